"""The journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from headcount.domain.model import Event
from headcount.store.codec import dump, load
from headcount.store.session import Session

REFUSED: Final = "refused"
"""The kind of the events that `refusals` counts; their `reason` is the code of the refusal."""


class Events:
    """The event table inside one transaction: append-only but for `prune`."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        kind: str,
        *,
        now: float,
        task_id: str | None = None,
        agent_id: str | None = None,
        run: int | None = None,
        reason: str | None = None,
        data: Mapping[str, object] | None = None,
    ) -> int:
        """Return the event's number, which grows and is a cursor."""
        return self._session.number(
            "events.add",
            now=now,
            kind=kind,
            task_id=task_id,
            agent_id=agent_id,
            run=run,
            reason=reason,
            data=dump(data or {}),
        )

    def since(
        self,
        cursor: int = 0,
        *,
        limit: int,
        task_id: str | None = None,
        agent_id: str | None = None,
        kinds: Iterable[str] | None = None,
    ) -> list[Event]:
        """Return events behind the number `cursor`, oldest first."""
        values = {
            "cursor": cursor,
            "limit": limit,
            "kinds": None if kinds is None else f"|{'|'.join(kinds)}|",
        }
        if agent_id is not None:
            rows = self._session.all("events.since_of_agent", agent_id=agent_id, task_id=task_id, **values)
        elif task_id is not None:
            rows = self._session.all("events.since_of_task", task_id=task_id, **values)
        else:
            rows = self._session.all("events.since", **values)
        return [_event(row) for row in rows]

    def get(self, seq: int) -> Event | None:
        row = self._session.one("events.get", seq=seq)
        return None if row is None else _event(row)

    def refusals(self, task_id: str) -> dict[str, int]:
        """Count the task's refusals by reason, over the journal's retention."""
        rows = self._session.all("events.refusals", task_id=task_id)
        return {row["reason"]: row["number"] for row in rows}

    def last(self) -> int:
        """Return the number of the last event there ever was, 0 if none."""
        return self._session.number("events.last")

    def prune(self, before: float, keep: int) -> int:
        """Delete what is older than `before` and not among the newest `keep`; return how many."""
        self._session.change("events.open_retention", upto=self.last() - keep)
        gone = self._session.change("events.prune", before=before)
        self._session.change("events.close_retention")
        return gone

    def skip_to(self, seq: int) -> None:
        """Let the next event have a number above `seq`."""
        self._session.change("events.skip_from_none", seq=seq)
        self._session.change("events.skip", seq=seq)


def _event(row: sqlite3.Row) -> Event:
    return Event(
        seq=row["seq"],
        at=row["at"],
        kind=row["kind"],
        task_id=row["task_id"],
        agent_id=row["agent_id"],
        run=row["run"],
        reason=row["reason"],
        data=load(row["data"]),
    )
