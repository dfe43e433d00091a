"""`headcount findings`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent, complete_task
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, paint

if TYPE_CHECKING:
    from headcount.services.answers import FindingList


@click.command(short_help="Show what the agents of a task discovered.")
@click.argument("task", metavar="[TASK]", required=False, shell_complete=complete_task)
@click.option(
    "--severity", type=click.Choice(["critical", "high", "medium", "low", "info"]), help="Only these."
)
@click.option("--type", "type_", metavar="TYPE", help="Only this type.")
@click.option("--agent", metavar="AGENT", shell_complete=complete_agent, help="Only this agent's.")
@click.option("--since", metavar="TIME", help="Only since an ISO 8601 time.")
@click.option(
    "--cursor", type=click.IntRange(min=0), metavar="N", default=0, help="Go on behind an earlier answer."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many.",
)
@json_option
def findings(
    *,
    task: str | None,
    severity: str | None,
    type_: str | None,
    agent: str | None,
    since: str | None,
    cursor: int,
    limit: int,
    as_json: bool,
) -> None:
    """Show what the agents of a task discovered, oldest first; of the open task, if there is only one."""
    with fleets.opened() as fleet:
        page = fleet.get_findings(
            fleets.the_task_id(fleet, task),
            severity=severity,
            type=type_,
            agent_id=None if agent is None else fleets.agent_id(fleet, agent),
            since=since,
            cursor=cursor,
            limit=limit,
        )
    show(page, as_json=as_json, text=lambda: _listing(page))


def _listing(page: FindingList) -> str:
    lines = [
        f"{paint(f'{each.severity:<8}', each.severity)}  {harmless(each.type)}: {harmless(each.message)}\n"
        f"          {each.agent_id}, {each.at}{', late' if each.late else ''}"
        for each in page.findings
    ]
    counts = ", ".join(f"{n} {severity}" for severity, n in page.by_severity.items() if n)
    more = [f"more: --cursor {page.next_cursor}"] if page.more else []
    return "\n".join([*lines, f"of the whole task: {counts or 'no findings'}", *more])
