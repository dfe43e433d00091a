"""`headcount doctor` and `headcount repair`: is the count right, and make it right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import terminal
from headcount.doors.cli.complete import complete_task
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, paint, table

if TYPE_CHECKING:
    from headcount.services.answers import Check, Diagnosis, Health, Problem, Rebuilt

_KINDS: Final = (
    "ghosts",
    "strays",
    "unfinished",
    "wrong_identities",
    "views_missing",
    "foreign_sessions",
    "rowless",
    "earlier_boot",
    "unknown",
)
_MARKS: Final = {True: ("ok", "ok"), False: ("BAD", "bad"), None: ("?", "dim")}


@click.command(short_help="Check that the count is right, and what it stands on.")
@json_option
def doctor(*, as_json: bool) -> int:
    """Check that registry and machine agree, and everything that Headcount stands on. Changes nothing.

    Exit code 1: something is wrong; what to do stands beside it.
    """
    with fleets.opened() as fleet:
        found = fleet.doctor()
    show(found, as_json=as_json, text=lambda: _diagnosis(found))
    return EXIT_DONE if found.healthy else EXIT_FAILED


def _diagnosis(found: Diagnosis) -> str:
    """Return the checks with the count first, then each problem."""
    lines = [each.detail for each in found.checks if each.name == "count"]
    lines += [_check(each) for each in found.checks if each.name != "count"]
    lines += problems(found)
    lines.append(_wrapped("variables that agents get: ", found.env_kept))
    for harness, names in found.env_of_harness.items():
        lines.append(_wrapped(f"those of harness {harness} also: ", names))
    lines.append(_wrapped("and do not get (--env NAME or the setting env adds one): ", found.env_dropped))
    lines.append(paint("healthy", "ok") if found.healthy else paint("unhealthy", "bad"))
    return "\n".join(lines)


def _wrapped(title: str, words: Sequence[str]) -> str:
    """Return a list of words on lines of the terminal's width."""
    from textwrap import fill

    text = harmless(", ".join(words)) or "none"
    return fill(title + text, terminal.prose_width(), subsequent_indent="  ", break_on_hyphens=False)


def _check(check: Check) -> str:
    mark, colour = _MARKS[check.ok]
    hint = f"  ({check.hint})" if check.hint and check.ok is not True else ""
    return f"{paint(f'{mark:<4}', colour)}{check.name:<10}{harmless(check.detail)}{hint}"


def problems(found: Diagnosis | Health) -> list[str]:
    """Return a line for each disagreement, by kind."""
    rows = [each for kind in _KINDS for each in getattr(found, kind, ())]
    return _rows(rows)


def _rows(found: Sequence[Problem]) -> list[str]:
    rows = [(each.kind, each.subject, each.action, harmless(each.detail)) for each in found]
    return (
        [table(rows, head=("PROBLEM", "WHAT", "REPAIR", "WHY"), last=max(terminal.width(), 120))]
        if rows
        else []
    )


@click.command(short_help="Make registry and machine agree.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without it, only say what would be done.")
@click.option(
    "--rebuild",
    is_flag=True,
    help="Make a quarantined registry anew from the last backup and the run directories.",
)
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Only what belongs to this task.")
@json_option
def repair(*, apply_: bool, rebuild: bool, task: str | None, as_json: bool) -> int:
    """Show what a repair would do, and with --apply do it. It never starts an agent.

    Exit code 1: it was applied, and something is still wrong.
    """
    with fleets.opened() as fleet:
        if rebuild:
            rebuilt = fleet.rebuild_registry()
            show(rebuilt, as_json=as_json, text=lambda: _rebuilt(rebuilt))
            return EXIT_DONE
        task_id = None if task is None else fleet.get_task_status(fleets.task_id(fleet, task)).task.task_id
        health = fleet.validate_and_repair_registry(dry_run=not apply_, task_id=task_id)
    show(health, as_json=as_json, text=lambda: _repaired(health))
    return EXIT_FAILED if apply_ and not health.healthy else EXIT_DONE


def _repaired(health: Health) -> str:
    differ = health.live_rows - health.live_runs
    count = f"Running: {health.live_runs}, Tmux: {health.sessions_count}, Diff: {differ}"
    lines = [f"Registry: {health.live_rows}, {count}"]
    if health.done:
        lines += ["done:", *_rows(health.done)]
    left = problems(health)
    if left:
        lines += ["still wrong:" if not health.dry_run else "to do:", *left]
        lines += ["nothing was changed; 'headcount repair --apply' does it"] if health.dry_run else []
    elif not health.done:
        lines.append("nothing to repair")
    return "\n".join(lines)


def _rebuilt(answer: Rebuilt) -> str:
    lines = [
        f"rebuilt: {answer.tasks} tasks, {answer.agents} agents, {answer.runs} runs",
        f"from backup: {answer.from_backup or 'none'}",
        f"quarantined: {answer.quarantined or 'nothing'}",
    ]
    return "\n".join([*lines, *(f"lost: {harmless(each)}" for each in answer.lost)])
