"""The agents of one `headcount run`: shown while they live, ended when the person says so."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED, EXIT_TIMED_OUT
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import terminal, tree
from headcount.doors.cli.text import harmless

if TYPE_CHECKING:
    from types import FrameType

    from headcount.api import Headcount
    from headcount.services.answers import AgentFacts, Stopped

STEP: Final = 0.5
"""Seconds between two looks at what the agents say; the end of one is seen at once."""
_AT_ONCE: Final = 16
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Draw = Callable[[Sequence["AgentFacts"]], None]


class Interrupted(Exception):
    """The person wants an end; `number` is the signal that said so."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Watch:
    """What `run` started, and all that these agents deploy in their turn."""

    def __init__(self, fleet: Headcount, task_id: str) -> None:
        self.fleet = fleet
        self.task_id = task_id
        self.roots: list[str] = []
        self._signals: list[int] = []

    def agents(self) -> tuple[AgentFacts, ...]:
        """Return them in order of deployment; what else the task has is not ours to stop."""
        mine, found = set(self.roots), []
        for each in fleets.all_agents(self.fleet, task_id=self.task_id, ended=True):
            if each.agent_id in mine or each.parent in mine:
                mine.add(each.agent_id)
                found.append(each)
        return tuple(found)

    def until_over(self, timeout: float | None, *, draw: Draw) -> int:
        """Show the agents until all are over; return the exit code of the fleet.

        When `timeout` seconds have passed they are stopped.

        Raises:
            Interrupted: nothing has been stopped yet.
        """
        deadline = None if timeout is None else terminal.ticking() + timeout
        while True:
            agents = self.agents()
            draw(agents)
            self.check()
            living = [each.agent_id for each in agents if tree.live(each)]
            if not living:
                return EXIT_DONE if all(each.outcome == "completed" for each in agents) else EXIT_FAILED
            left = STEP if deadline is None else min(STEP, deadline - terminal.ticking())
            if left <= 0:
                self.end("its time ran out", draw=draw)
                return EXIT_TIMED_OUT
            self.fleet.wait_for_agents(living, any=True, timeout=left)

    def check(self) -> None:
        """Raise what a signal has asked for since."""
        if self._signals:
            raise Interrupted(self._signals[0])

    def end(self, reason: str, *, draw: Draw) -> None:
        """Stop all that live, until none does; kill them once a signal comes (again).

        Raises:
            HeadcountError: one could not be stopped; all others have been.
        """
        heard = len(self._signals)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            asked = stopping = self._ask(pool, self.fleet.stop_agent, reason)
            killing = False
            while stopping:
                stopping = list(wait(stopping, timeout=STEP / 4).not_done)
                if len(self._signals) > heard and not killing:
                    killing = True
                    more = self._ask(pool, self.fleet.kill_agent, reason)
                    asked, stopping = [*asked, *more], [*stopping, *more]
                draw(self.agents())
        for each in asked:
            each.result()

    def _ask(
        self, pool: ThreadPoolExecutor, how: Callable[..., Stopped], reason: str
    ) -> list[Future[Stopped]]:
        living = [each.agent_id for each in self.agents() if tree.live(each)]
        return [pool.submit(how, each, reason=reason) for each in living]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect Ctrl-C and TERM instead of dying of them: our agents end first."""
        before = [signal.signal(each, self._heard) for each in _SIGNALS]
        try:
            yield
        finally:
            for number, handler in zip(_SIGNALS, before, strict=True):
                signal.signal(number, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)


@contextmanager
def shown(*, quiet: bool) -> Iterator[Draw]:
    """Yield how to show agents: a tree drawn over and over on a terminal, else a line for each change.

    Both go to stderr: stdout is for the result.
    """
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty() and terminal.live():
        with _tree() as draw:
            yield draw
    else:
        yield _Lines().draw


@contextmanager
def _tree() -> Iterator[Draw]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as drawing:

        def draw(agents: Sequence[AgentFacts]) -> None:
            lines = tree.draw(agents, now=terminal.now(), width=terminal.width())
            drawing.update(Text.from_ansi("\n".join([*lines, tree.totals(agents)])), refresh=True)

        yield draw


class _Lines:
    """One line for each change of an agent, for a log."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def draw(self, agents: Sequence[AgentFacts]) -> None:
        for each in agents:
            now = change(each)
            if self._said.get(each.agent_id) != now:
                self._said[each.agent_id] = now
                print(f"{each.agent_id}  {now}", file=sys.stderr, flush=True)


def change(agent: AgentFacts) -> str:
    """Return where an agent stands, in a line."""
    if not tree.live(agent):
        return f"{tree.word(agent)}: {harmless(agent.reason or '')}".rstrip(": ")
    progress = "" if agent.progress is None else f" {agent.progress}%"
    message = f": {harmless(agent.message)}" if agent.message else ""
    return f"{agent.state}{progress}{message}"
