"""What agents discovered."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from headcount.domain.model import Finding, FindingCounts, Severity
from headcount.store.codec import dump, load
from headcount.store.session import Session


class Findings:
    """The finding table inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        agent_id: str,
        run: int,
        task_id: str,
        *,
        type: str,  # the word of the glossary
        severity: Severity,
        message: str,
        data: Mapping[str, object],
        late: bool,
        now: float,
    ) -> int:
        """Return the finding's number, which grows."""
        return self._session.number(
            "findings.add",
            task_id=task_id,
            agent_id=agent_id,
            run=run,
            type=type,
            severity=severity.value,
            message=message,
            data=dump(data),
            late=int(late),
            now=now,
        )

    def page(
        self,
        task_id: str,
        *,
        severity: str | None = None,
        type: str | None = None,
        agent_id: str | None = None,
        since: float | None = None,
        after: int = 0,
        limit: int,
    ) -> list[Finding]:
        """Return the task's findings behind the number `after`, oldest first."""
        rows = self._session.all(
            "findings.page",
            task_id=task_id,
            severity=severity,
            type=type,
            agent_id=agent_id,
            since=since,
            after=after,
            limit=limit,
        )
        return [_finding(row) for row in rows]

    def recent(self, task_id: str, *, limit: int) -> list[Finding]:
        """Return the last findings of a task, newest first."""
        return [_finding(row) for row in self._session.all("findings.recent", task_id=task_id, limit=limit)]

    def summary(self, task_id: str) -> FindingCounts:
        by_severity: Counter[str] = Counter()
        by_type: Counter[str] = Counter()
        for row in self._session.all("findings.summary", task_id=task_id):
            by_severity[row["severity"]] += row["number"]
            by_type[row["type"]] += row["number"]
        return FindingCounts(
            total=by_severity.total(),
            by_severity={each.value: by_severity[each] for each in Severity if by_severity[each]},
            by_type=dict(sorted(by_type.items())),
        )


def _finding(row: sqlite3.Row) -> Finding:
    return Finding(
        id=row["id"],
        agent_id=row["agent_id"],
        run=row["run"],
        task_id=row["task_id"],
        type=row["type"],
        severity=Severity(row["severity"]),
        message=row["message"],
        data=load(row["data"]),
        late=bool(row["late"]),
        at=row["at"],
    )
