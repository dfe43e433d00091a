"""`headcount approvals`: what agents ask, and the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_task
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, paint

if TYPE_CHECKING:
    from headcount.services.answers import ApprovalFacts, ApprovalList, Approved

_ARGUMENTS_MAX = 300


@click.command(short_help="Show what agents ask; allow or deny it.")
@click.argument("answer", type=click.Choice(["allow", "deny"]), required=False)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Only agents of this task.")
@click.option("--reason", metavar="TEXT", default="", help="For the agent's record.")
@json_option
def approvals(
    *, answer: str | None, ids: tuple[str, ...], task: str | None, reason: str, as_json: bool
) -> int:
    """Show what live agents ask before they do it, or allow or deny it by its ID.

    Agents ask that were deployed with --permissions ask. What nobody answers in time is denied. Exit code 1:
    an answer came too late.
    """
    if answer is None:
        with fleets.opened() as fleet:
            asked = fleet.list_approvals(task_id=None if task is None else fleets.task_id(fleet, task))
        show(asked, as_json=as_json, text=lambda: _listing(asked))
        return EXIT_DONE
    if not ids:
        raise click.UsageError(f"Name what to {answer}: see 'headcount approvals'.")
    with fleets.opened() as fleet:
        given = tuple(fleet.answer_approval(each, allow=answer == "allow", reason=reason) for each in ids)
    show({"answered": given}, as_json=as_json, text=lambda: "\n".join(map(_line, given)))
    late = any(each.state in {"expired", "withdrawn"} for each in given)
    return EXIT_FAILED if late else EXIT_DONE


def _listing(asked: ApprovalList) -> str:
    return "\n".join(map(_asked, asked.approvals)) or "nobody asks for anything"


def _asked(each: ApprovalFacts) -> str:
    lines = [paint(each.id, "bold"), f"    {each.tool}: {harmless(each.title)}"]
    if each.arguments:
        lines.append(f"    {harmless(each.arguments[:_ARGUMENTS_MAX])}")
    return "\n".join([*lines, f"    asked {each.asked_at}, expires {each.expires_at}"])


def _line(each: Approved) -> str:
    return f"{each.id} {each.state}" + (f": {each.note}" if each.note else "")
