"""Read the journal."""

from __future__ import annotations

from headcount.domain.ids import check_id
from headcount.domain.model import Event
from headcount.services import agents, given
from headcount.services.answers import EventFacts, EventList, iso
from headcount.services.context import Context


def page(
    context: Context, *, cursor: int, limit: int, task_id: str | None, agent_id: str | None
) -> EventList:
    """Return events behind `cursor`, oldest first.

    Raises:
        InvalidInput: a cursor, limit or id that is none.
    """
    limit = agents.bounded(limit)
    given.whole("cursor", cursor)
    for kind, value in (("task", task_id), ("agent", agent_id)):
        if value is not None:
            check_id(kind, value)
    with context.registry.read() as tx:
        found = tx.events.since(cursor, limit=limit + 1, task_id=task_id, agent_id=agent_id)
    shown = tuple(map(facts, found[:limit]))
    return EventList(shown, shown[-1].seq if shown else cursor, len(found) > limit)


def facts(event: Event) -> EventFacts:
    """Return an event as doors show it."""
    return EventFacts(
        seq=event.seq,
        at=iso(event.at) or "",
        kind=event.kind,
        task_id=event.task_id,
        agent_id=event.agent_id,
        run=event.run,
        reason=event.reason,
        data=event.data,
    )
