"""`headcount wait`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED, EXIT_TIMED_OUT
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import terminal, tree
from headcount.doors.cli.arguments import Span
from headcount.doors.cli.complete import complete_agent, complete_task
from headcount.doors.cli.show import json_option, show
from headcount.services.answers import Waited

if TYPE_CHECKING:
    from headcount.api import Headcount

_STEP: Final = 30.0
"""Seconds of one call; a person's wait may be longer than one call's bound."""
_STEP_SHOWN: Final = 1.0


@click.command(short_help="Wait until agents have ended.")
@click.argument("agents", nargs=-1, metavar="[AGENT]...", shell_complete=complete_agent)
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="All agents of this task.")
@click.option("--any", "any_", is_flag=True, help="Until one has ended, not all.")
@click.option(
    "--until",
    type=click.Choice(["ended", "reported", "done", "blocked", "finding"]),
    default="ended",
    show_default=True,
    help="What to wait for: an end, anything said since, a last report of that status, a finding.",
)
@click.option(
    "--timeout", type=Span(), metavar="TIME", help="Give up after so long, such as 90 or 5m (exit code 6)."
)
@json_option
def wait(
    *, agents: tuple[str, ...], task: str | None, any_: bool, until: str, timeout: float | None, as_json: bool
) -> int:
    """Wait until agents have ended: those named, those of a task, or all live ones. One that has ended
    satisfies every --until.

    Exit code 0: all that ended completed. 1: one did not. 6: time ran out; the agents go on.
    """
    if agents and task:
        raise click.UsageError("Name agents or a task, not both.")
    with fleets.opened() as fleet:
        task_id = fleets.maybe_task_id(fleet, task)
        ids = fleets.agent_ids(fleet, agents) if agents or task else _living(fleet)
        if ids or task_id:
            waited = _wait(
                fleet, ids, task_id=task_id, any_=any_, until=until, timeout=timeout, quiet=as_json
            )
        else:
            waited = Waited(True, until, (), (), 0.0, None, "no agent is live")
    show(waited, as_json=as_json, text=lambda: _said(waited))
    return _exit_code(waited)


def _living(fleet: Headcount) -> tuple[str, ...]:
    return tuple(each.agent_id for each in fleets.all_agents(fleet))


def _wait(
    fleet: Headcount,
    ids: Sequence[str],
    *,
    task_id: str | None,
    any_: bool,
    until: str,
    timeout: float | None,
    quiet: bool,
) -> Waited:
    """Ask again and again until it is done or `timeout` has passed, showing the count meanwhile."""
    shown = sys.stderr.isatty() and not quiet
    begun, cursor = terminal.ticking(), None
    while True:
        spent = terminal.ticking() - begun
        step = _STEP_SHOWN if shown else _STEP
        if timeout is not None:
            step = min(step, max(0.0, timeout - spent))
        waited = fleet.wait_for_agents(
            ids, task_id=task_id, any=any_, until=until, timeout=step, cursor=cursor
        )
        cursor = waited.cursor
        spent = terminal.ticking() - begun
        if waited.done or (timeout is not None and spent >= timeout):
            _progress("", shown=shown)
            return replace(waited, waited_s=round(spent, 3))
        _progress(f"waiting for {len(waited.pending)}: {', '.join(waited.pending[:3])}", shown=shown)


def _progress(line: str, *, shown: bool) -> None:
    if shown:
        print(f"\r\x1b[K{line[: terminal.width(sys.stderr) - 1]}", end="", file=sys.stderr, flush=True)


def _exit_code(waited: Waited) -> int:
    if not waited.done:
        return EXIT_TIMED_OUT
    return EXIT_FAILED if waited.failed else EXIT_DONE


def _said(waited: Waited) -> str:
    if not waited.agents:
        return "no agents to wait for"
    drawn = tree.draw(waited.agents, now=terminal.now(), width=terminal.width())
    ran_out = [] if waited.done else [f"time ran out; still going on: {', '.join(waited.pending)}"]
    return "\n".join([*drawn, *ran_out])
