"""`headcount events`: the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent, complete_task
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, table

if TYPE_CHECKING:
    from headcount.services.answers import EventFacts, EventList


@click.command(short_help="Show the registry's journal.")
@click.option(
    "--since", type=click.IntRange(min=0), default=0, metavar="CURSOR", help="Only what came behind it."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many.",
)
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Only of this task.")
@click.option("--agent", metavar="AGENT", shell_complete=complete_agent, help="Only of this agent.")
@json_option
def events(*, since: int, limit: int, task: str | None, agent: str | None, as_json: bool) -> None:
    """Show the journal, oldest first: every change of the registry, with its reason.

    The answer's next_cursor is the next call's --since.
    """
    with fleets.opened() as fleet:
        page = fleet.read_events(
            cursor=since,
            limit=limit,
            task_id=fleets.maybe_task_id(fleet, task),
            agent_id=None if agent is None else fleets.agent_id(fleet, agent),
        )
    show(page, as_json=as_json, text=lambda: _listing(page))


def _listing(page: EventList) -> str:
    rows = [(str(each.seq), each.at, each.kind, _about(each)) for each in page.events]
    last = f"more: --since {page.next_cursor}" if page.more else f"next: --since {page.next_cursor}"
    return "\n".join(filter(None, [table(rows), last]))


def _about(event: EventFacts) -> str:
    whom = event.agent_id or event.task_id or ""
    facts = ", ".join(f"{name}={value}" for name, value in event.data.items() if value is not None)
    return harmless("  ".join(filter(None, [whom, event.reason, facts])))
