"""`headcount stop`, `kill` and `halt`: three ways to end agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import click

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.arguments import Span
from headcount.doors.cli.complete import complete_agent, complete_task
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import paint

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.services.answers import Halted, Stopped

_AT_ONCE: Final = 16
"""Agents stopped at the same time, so that one that takes its whole grace does not make the others wait."""


@click.command(short_help="Stop agents: TERM, grace, KILL.")
@click.argument("agents", nargs=-1, metavar="[AGENT]...", shell_complete=complete_agent)
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="All live agents of this task.")
@click.option("--grace", type=Span(), metavar="TIME", help="Time between TERM and KILL.")
@click.option("--reason", metavar="TEXT", default="", help="For the record.")
@json_option
def stop(
    *, agents: tuple[str, ...], task: str | None, grace: float | None, reason: str, as_json: bool
) -> int:
    """Stop agents with all of their processes: TERM, then after a grace KILL.

    Answers when they are over. Exit code 1: something of them is left, and is listed.
    """
    with fleets.opened() as fleet:
        ids = _meant(fleet, agents, task)
        stopped = each_of(ids, lambda one: fleet.stop_agent(one, reason=reason, grace=grace))
    return _answer(stopped, as_json=as_json)


@click.command(short_help="End agents and all their processes at once.")
@click.argument("agents", nargs=-1, metavar="[AGENT]...", shell_complete=complete_agent)
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="All live agents of this task.")
@click.option("--reason", metavar="TEXT", default="", help="For the record.")
@json_option
def kill(*, agents: tuple[str, ...], task: str | None, reason: str, as_json: bool) -> int:
    """End agents with all of their processes at once.

    Exit code 1: something of them is left, and is listed.
    """
    with fleets.opened() as fleet:
        ids = _meant(fleet, agents, task)
        stopped = each_of(ids, lambda one: fleet.kill_agent(one, reason=reason))
    return _answer(stopped, as_json=as_json)


@click.command(short_help="End every live agent and refuse new ones.")
@click.option("--release", is_flag=True, help="Lift the emergency stop.")
@click.option("--reason", metavar="TEXT", default="", help="For the record.")
@json_option
def halt(*, release: bool, reason: str, as_json: bool) -> int:
    """End every live agent of this machine at once, and refuse new ones until --release.

    Works without the daemon. Exit code 1: something is left, and is listed.
    """
    with fleets.opened() as fleet:
        answer = fleet.release_halt() if release else fleet.halt(reason=reason)
    show(answer, as_json=as_json, text=lambda: _halted(answer))
    return EXIT_FAILED if any(each.survivors for each in answer.stopped) else EXIT_DONE


def each_of(ids: Sequence[str], end: Callable[[str], Stopped]) -> tuple[Stopped, ...]:
    """End all of them side by side; the first error is raised when all have been tried."""
    if len(ids) <= 1:
        return tuple(map(end, ids))
    with ThreadPoolExecutor(min(_AT_ONCE, len(ids))) as pool:
        return tuple([future.result() for future in [pool.submit(end, each) for each in ids]])


def _meant(fleet: Headcount, agents: Sequence[str], task: str | None) -> tuple[str, ...]:
    if bool(agents) == bool(task):
        raise click.UsageError("Name agents or a task.")
    if task:
        return tuple(each.agent_id for each in fleets.all_agents(fleet, task_id=fleets.task_id(fleet, task)))
    return fleets.agent_ids(fleet, agents)


def _answer(stopped: tuple[Stopped, ...], *, as_json: bool) -> int:
    show(
        {"stopped": stopped}, as_json=as_json, text=lambda: "\n".join(map(line, stopped)) or "no live agents"
    )
    return EXIT_FAILED if any(each.survivors for each in stopped) else EXIT_DONE


def line(each: Stopped) -> str:
    """Return what became of one agent."""
    over = each.outcome or each.state
    if not each.was_live:
        return f"{each.agent_id} was over already: {over}"
    how = f"exit code {each.exit_code}" if each.exit_code is not None else f"signal {each.signal}"
    known = f" ({how})" if each.exit_code is not None or each.signal is not None else ""
    left = paint(f"; still there: {', '.join(map(str, each.survivors))}", "bad") if each.survivors else ""
    note = f"; {each.note}" if each.note else ""
    return f"{each.agent_id} {over}{known}{left}{note}"


def _halted(answer: Halted) -> str:
    state = (
        "halted: new deploys are refused until 'headcount halt --release'"
        if answer.halted
        else "released: deploys are admitted again"
    )
    lines = [*map(line, answer.stopped), state]
    return "\n".join([*lines, answer.note] if answer.note else lines)
