"""Read what agents discovered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from headcount.domain.errors import InvalidInput
from headcount.domain.ids import check_id
from headcount.domain.model import Finding, Severity
from headcount.services import agents, given, rights
from headcount.services.answers import FindingFacts, FindingList, iso
from headcount.services.context import Context


@dataclass(frozen=True, slots=True)
class Filter:
    """Which findings; None for all. `since` is an ISO 8601 time, UTC where it names no zone."""

    severity: str | None
    type: str | None
    agent_id: str | None
    since: str | None
    cursor: int
    limit: int


def page(context: Context, task_id: str, wanted: Filter) -> FindingList:
    """Return a task's findings, oldest first.

    Raises:
        InvalidInput: an unknown severity, a time that is none.
        NotFound: no such task.
    """
    limit = agents.bounded(wanted.limit)
    given.whole("cursor", wanted.cursor)
    for name in ("severity", "type", "since"):
        given.maybe_text(name, getattr(wanted, name))
    if wanted.agent_id is not None:
        check_id("agent", wanted.agent_id)
    severity = None if wanted.severity is None else _severity(wanted.severity)
    since = None if wanted.since is None else _time(wanted.since)
    with context.registry.read() as tx:
        rights.existing_task(tx, task_id)
        found = tx.findings.page(
            task_id,
            severity=severity,
            type=wanted.type,
            agent_id=wanted.agent_id,
            since=since,
            after=wanted.cursor,
            limit=limit + 1,
        )
        summary = tx.findings.summary(task_id)
    shown = tuple(map(facts, found[:limit]))
    return FindingList(
        task_id=task_id,
        findings=shown,
        by_severity=summary.by_severity,
        by_type=summary.by_type,
        next_cursor=shown[-1].id if shown else wanted.cursor,
        more=len(found) > limit,
    )


def _severity(text: str) -> Severity:
    try:
        return Severity(text)
    except ValueError:
        raise InvalidInput(f"severity {text[:40]!r} is not one of {', '.join(Severity)}") from None


def _time(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"since {text[:40]!r} is not an ISO 8601 time", hint="such as 2026-11-23T04:35:00Z"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def facts(found: Finding) -> FindingFacts:
    """Return a finding as doors show it."""
    return FindingFacts(
        id=found.id,
        agent_id=found.agent_id,
        task_id=found.task_id,
        run=found.run,
        at=iso(found.at) or "",
        type=found.type,
        severity=found.severity,
        message=found.message,
        data=found.data,
        late=found.late,
    )
