"""What somebody outside is told of: at least once, until it was taken or there is no hope."""

from __future__ import annotations

import sqlite3

from headcount.domain.notices import Notice, NoticeState
from headcount.store.session import Session


class Notices:
    """The notice table inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def cursor(self, hook: str) -> int | None:
        """Return the number of the event up to which a hook has its notices, None for a new hook."""
        row = self._session.one("notices.cursor", hook=hook)
        return None if row is None else int(row["seq"])

    def move(self, hook: str, seq: int) -> None:
        """Record that a hook has its notices up to an event."""
        self._session.change("notices.move", hook=hook, seq=seq)

    def hooks(self) -> list[str]:
        """Return the names of all hooks that there were."""
        return [row["hook"] for row in self._session.all("notices.hooks")]

    def drop(self, hook: str, *, reason: str, now: float) -> None:
        """Forget a hook; what was still to be told to it is dead."""
        self._session.change("notices.drop", hook=hook)
        self._session.change("notices.abandon", hook=hook, reason=reason, now=now)

    def add(self, hook: str, event_id: int, *, now: float) -> None:
        """Have a hook told of an event, once however often this is called."""
        self._session.change("notices.add", hook=hook, event_id=event_id, now=now)

    def due(self, hook: str, *, now: float, far: float, limit: int) -> list[Notice]:
        """Return what a hook is to be told now, longest due first. What is due after `far` only is due: a
        clock was set back."""
        return [
            Notice(
                id=row["id"],
                event_id=row["event_id"],
                hook=row["hook"],
                state=NoticeState(row["state"]),
                tries=row["tries"],
                next_at=row["next_at"],
                reason=row["reason"],
            )
            for row in self._session.all("notices.due", hook=hook, now=now, far=far, limit=limit)
        ]

    def queued(self, hook: str) -> bool:
        """Say whether something is still to be told to a hook."""
        return self._session.number("notices.queued", hook=hook) == 1

    def tried(self, notice: Notice, state: NoticeState, *, next_at: float, reason: str | None) -> bool:
        """Record what came of a try. False: somebody else did."""
        return (
            self._session.change(
                "notices.tried",
                id=notice.id,
                tries=notice.tries,
                state=state.value,
                next_at=next_at,
                reason=reason,
            )
            == 1
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the notices of each hook by their state."""
        found: dict[str, dict[str, int]] = {}
        for row in self._session.all("notices.counts"):
            found.setdefault(row["hook"], {})[row["state"]] = row["number"]
        return found

    def last_failure(self, hook: str) -> str | None:
        """Return why a hook was last not told."""
        row: sqlite3.Row | None = self._session.one("notices.last_failure", hook=hook)
        return None if row is None else row["reason"]

    def forget(self, before: float) -> int:
        """Delete what was settled before a moment; return how many."""
        return self._session.change("notices.forget", before=before)
