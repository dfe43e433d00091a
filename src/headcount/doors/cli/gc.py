"""`headcount gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.arguments import Size, Span
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import size

if TYPE_CHECKING:
    from headcount.services.answers import Collected


@click.command(short_help="Move old run directories to the trash.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, only say what would go.")
@click.option(
    "--older-than",
    type=Span(),
    default="14d",
    show_default=True,
    metavar="TIME",
    help="Runs that ended longer ago.",
)
@click.option(
    "--max-size",
    type=Size(),
    metavar="SIZE",
    help="And the oldest others, until all ended runs fit, such as 2G.",
)
@json_option
def gc(*, apply_: bool, older_than: float, max_size: int | None, as_json: bool) -> None:
    """Move the directories of ended runs to the trash folder and prune the journal. Never anything live.

    Worktrees go with them, if they are clean, unused, and every commit in them is on another branch.

    The trash is yours to delete.
    """
    with fleets.opened() as fleet:
        answer = fleet.gc(dry_run=not apply_, older_than=older_than, keep_bytes=max_size)
    show(answer, as_json=as_json, text=lambda: _said(answer))


def _said(answer: Collected) -> str:
    trees = [f"worktree of {each}" for each in answer.worktrees]
    lines = [*answer.runs, *trees]
    what = f"{len(answer.runs)} runs, {size(answer.bytes)}"
    if trees:
        what = f"{what}, {len(trees)} worktrees"
    if answer.dry_run and not lines:
        return "no run would go; '--older-than 1d' or '--max-size 1G' takes more"
    if answer.dry_run:
        return "\n".join([*lines, f"would go: {what}; 'headcount gc --apply' moves them to the trash"])
    lines.append(f"gone: {what}, {answer.events} events")
    return "\n".join([*lines, f"trash: {answer.trash}"] if answer.trash else lines)
