"""Idempotency keys: a deploy that is asked for again gets its first answer. They go with their agents."""

from __future__ import annotations

from headcount.store.session import Session


class IdempotencyKeys:
    """The idempotency_key table inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, scope: str, key: str) -> tuple[str, str, int] | None:
        """Return (request hash, agent id, run) of the first call, or None."""
        row = self._session.one("keys.get", scope=scope, key=key)
        return None if row is None else (row["request_hash"], row["agent_id"], row["run"])

    def put(self, scope: str, key: str, *, request_hash: str, agent_id: str, run: int, now: float) -> None:
        """Remember the answer; the key must be new (look first, in the same transaction)."""
        self._session.change(
            "keys.put", scope=scope, key=key, request_hash=request_hash, agent_id=agent_id, run=run, now=now
        )
