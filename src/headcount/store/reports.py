"""What agents say of their own progress."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from headcount.domain.model import Report, ReportStatus, RunKey
from headcount.store.session import Session


class Reports:
    """The report table inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        agent_id: str,
        run: int,
        task_id: str,
        *,
        status: ReportStatus,
        message: str,
        progress: int | None,
        late: bool,
        now: float,
    ) -> int:
        """Return the report's number, which grows."""
        return self._session.number(
            "reports.add",
            task_id=task_id,
            agent_id=agent_id,
            run=run,
            status=status.value,
            message=message,
            progress=progress,
            late=int(late),
            now=now,
        )

    def latest(self, agent_id: str) -> Report | None:
        row = self._session.one("reports.latest", agent_id=agent_id)
        return None if row is None else _report(row)

    def latest_of(self, keys: Iterable[RunKey]) -> dict[RunKey, Report]:
        """Return the last report of each of these runs that has one; one step in an index for each."""
        found = {}
        for key in keys:
            row = self._session.one("reports.latest_of_run", agent_id=key.agent_id, run=key.n)
            if row is not None:
                found[key] = _report(row)
        return found

    def recent(self, task_id: str, *, limit: int) -> list[Report]:
        """Return the last reports of a task, newest first."""
        return [_report(row) for row in self._session.all("reports.recent", task_id=task_id, limit=limit)]

    def page(
        self, task_id: str | None = None, agent_id: str | None = None, *, after: int = 0, limit: int
    ) -> list[Report]:
        """Return reports behind the number `after`, oldest first: an agent's, else a task's, else all."""
        if agent_id is not None:
            rows = self._session.all("reports.page_of_agent", agent_id=agent_id, after=after, limit=limit)
        elif task_id is not None:
            rows = self._session.all("reports.page_of_task", task_id=task_id, after=after, limit=limit)
        else:
            rows = self._session.all("reports.page", after=after, limit=limit)
        return [_report(row) for row in rows]


def _report(row: sqlite3.Row) -> Report:
    return Report(
        id=row["id"],
        agent_id=row["agent_id"],
        run=row["run"],
        task_id=row["task_id"],
        status=ReportStatus(row["status"]),
        message=row["message"],
        progress=row["progress"],
        late=bool(row["late"]),
        at=row["at"],
    )
