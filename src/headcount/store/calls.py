"""What calls wrote, by the key of the call: a call that is sent again is carried out once."""

from __future__ import annotations

from collections.abc import Mapping

from headcount.store.codec import dump, load
from headcount.store.session import Session


class Calls:
    """The call table inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, caller: str, key: str) -> tuple[str, Mapping[str, object]] | None:
        """Return (request hash, what it wrote) of the first attempt, or None."""
        row = self._session.one("calls.get", caller=caller, key=key)
        return None if row is None else (row["request_hash"], load(row["wrote"]))

    def put(
        self, caller: str, key: str, *, request_hash: str, wrote: Mapping[str, object], now: float
    ) -> None:
        """Remember what a call wrote; the key must be new (look first, in the same transaction)."""
        self._session.change(
            "calls.put", caller=caller, key=key, request_hash=request_hash, wrote=dump(wrote), now=now
        )

    def prune(self, before: float) -> int:
        """Forget the calls that were made before a moment; return how many."""
        return self._session.change("calls.prune", before=before)
