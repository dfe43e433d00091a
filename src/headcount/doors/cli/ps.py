"""`headcount ps` and what it shows."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import terminal, tree
from headcount.doors.cli.complete import complete_task
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import fit

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.services.answers import AgentFacts

_EVERY: Final = 1.0
"""Seconds between two looks of --watch."""


@click.command(short_help="Show the agents as a tree.")
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Only the agents of this task.")
@click.option("--all", "ended", is_flag=True, help="Ended agents too.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many agents.")
@click.option("--watch", is_flag=True, help="Keep showing, until Ctrl-C.")
@json_option
def ps(*, task: str | None, ended: bool, limit: int | None, watch: bool, as_json: bool) -> None:
    """Show the live agents of this machine as a tree: who deployed whom, in which state, how far.

    The last column is what the agent said last, or why it ended.
    """
    if watch and as_json:
        raise click.UsageError("--watch draws for people; without it, --json answers once.")
    with fleets.opened() as fleet:
        task_id = fleets.maybe_task_id(fleet, task)
        if watch:
            _watch(fleet, task_id=task_id, ended=ended, limit=limit)
            return
        agents = fleets.all_agents(fleet, task_id=task_id, ended=ended, limit=limit)
        show({"agents": agents}, as_json=as_json, text=lambda: "\n".join(picture(fleet, agents, ended=ended)))


def picture(fleet: Headcount, agents: Sequence[AgentFacts], *, ended: bool) -> list[str]:
    """Return the tree with its totals, or what to do where there is none."""
    if not agents:
        return ["no agents" if ended else "no live agents ('headcount ps --all' shows ended ones)"]
    about = _descriptions(fleet, {each.task_id for each in agents})
    drawn = tree.draw(agents, now=terminal.now(), width=terminal.width(), tasks=about)
    return [*drawn, fit(tree.totals(agents) + tree.layers(agents), terminal.width())]


def _descriptions(fleet: Headcount, wanted: set[str]) -> dict[str, str]:
    """Return what the tasks are about, of the latest page: a tree is drawn whether or not it is known."""
    return {
        each.task_id: each.description for each in fleet.list_tasks(limit=200).tasks if each.task_id in wanted
    }


def _watch(fleet: Headcount, *, task_id: str | None, ended: bool, limit: int | None) -> None:
    """Draw again and again over what was drawn, or below it where nothing can be drawn over."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    heard: list[int] = []
    with _hearing(heard), Live(console=Console(), auto_refresh=False, screen=terminal.live()) as drawing:
        while not heard:
            agents = fleets.all_agents(fleet, task_id=task_id, ended=ended, limit=limit)
            drawing.update(Text.from_ansi("\n".join(picture(fleet, agents, ended=ended))), refresh=True)
            terminal.pause(_EVERY)
    raise KeyboardInterrupt


@contextmanager
def _hearing(heard: list[int]) -> Iterator[None]:
    """Note a Ctrl-C besides raising it: raised within a destructor, Python would drop it."""

    def interrupt(number: int, _: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
