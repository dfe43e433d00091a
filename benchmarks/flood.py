"""Whether an agent that floods its output keeps others waiting: the status of a task meanwhile.

    python benchmarks/flood.py [--slack 2] [--smoke] [--json]

An agent writes 100,000 lines of Claude Code's stream a second, each of which its harness parses and its view
shows. Beside it the status of five other agents is asked for, through MCP (which the daemon answers, that
reads the flood too) and through the library. In turn with the same writer into a file, without Headcount.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from figures import Figure, main, median, milliseconds, p99
from grounds import Deployer, daemon, fleet, ground, until

from headcount import Headcount
from headcount.runtimes import program
from tests.support.daemons import Bridge

RATIO = 1.5
OTHERS = 5
WRITER = """
import json, os, sys, time
line = json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": "a few words"}]}})
block, began, written = (line + "\\n").encode() * 1000, time.monotonic(), 0
until = began + float(sys.argv[1])
while time.monotonic() < until:
    due = int((time.monotonic() - began) * 100)
    if written >= due:
        time.sleep(0.002)
        continue
    rest = block
    while rest:
        rest = rest[os.write(1, rest):]
    written += 1
sys.stderr.write(str(written * 1000))
"""
"""It writes what is due, and says at the end how many lines that were."""
SECONDS = 4.0


def figures(*, smoke: bool) -> Iterator[Figure]:
    turns, asks, seconds = (1, 5, 1.0) if smoke else (4, 40, SECONDS)
    with ExitStack() as stack:
        place = stack.enter_context(ground())
        writer(place, seconds)
        opened = stack.enter_context(fleet(place / "h", views=True))
        stack.enter_context(daemon(place / "h"))
        door = stack.enter_context(Bridge(place / "h"))
        flood = Flood(place, opened, seconds)
        deployer = Deployer(opened, place)
        for _ in range(OTHERS):
            deployer.deploy()
        whats: dict[str, Callable[[], object]] = {
            "through MCP": lambda: door.call("get_task_status", task_id=deployer.task),
            "by library": lambda: opened.get_task_status(deployer.task),
        }
        for name, what in whats.items():
            inside, outside, alone = [], [], []
            for _ in range(turns):
                alone += [milliseconds(what) for _ in range(asks)]
                outside += flood.beside(flood.outside, what, asks)
                inside += flood.beside(flood.inside, what, asks)
            yield judged(f"status beside a flood, {name}", inside, outside, alone)
        print(f"lines a second: {flood.rates}", file=sys.stderr)


def judged(name: str, inside: Sequence[float], outside: Sequence[float], alone: Sequence[float]) -> Figure:
    print(f"{name}: {median(alone):.1f} ms, p99 {p99(alone):.1f} with no flood", file=sys.stderr)
    found = p99(inside) / p99(outside)
    return Figure(
        name, median(inside), p99(inside), "ms", p99(outside), "p99, outside Headcount", found, RATIO, "x"
    )


def writer(place: Path, seconds: float) -> None:
    """Put the writer into PATH as what the harness claude starts."""
    (place / "writer.py").write_text(WRITER)
    (place / "bin").mkdir()
    claude = place / "bin" / "claude"
    argv = (program.interpreter(), "-I", "-S", str(place / "writer.py"), str(seconds))
    claude.write_text(f"#!/bin/sh\nexec {' '.join(argv)}\n")
    claude.chmod(0o755)
    os.environ.update(ANTHROPIC_API_KEY="x", PATH=f"{claude.parent}:{os.environ['PATH']}")


class Flood:
    """The writer, as an agent and by itself. `rates` are the lines a second that it got rid of."""

    def __init__(self, place: Path, opened: Headcount, seconds: float) -> None:
        self._place, self._fleet, self._seconds = place, opened, seconds
        self.rates: dict[str, list[int]] = {"inside": [], "outside": []}
        self._argv = (str(place / "bin" / "claude"), "-p")
        self._task = opened.create_task("a flood", project=place).task_id

    @contextmanager
    def outside(self) -> Iterator[None]:
        with (self._place / "flood").open("wb") as file:
            process = subprocess.Popen(self._argv, stdout=file, stderr=subprocess.PIPE)
            try:
                yield
            finally:
                _, err = process.communicate()
                self.rates["outside"].append(int(int(err) / self._seconds))

    @contextmanager
    def inside(self) -> Iterator[None]:
        made = self._fleet.deploy(
            self._task, role="flood", harness="claude", prompt="Flood.", allow_same_work=True
        )
        try:
            yield
        finally:
            self._fleet.wait_for_agents([made.agent_id], timeout=60)
            self.rates["inside"].append(self._lines(made.agent_id))
            until(lambda: self._fleet.get_agent(made.agent_id).runs[-1].account, patience=200)

    def _lines(self, agent_id: str) -> int:
        (path,) = (each.path for each in self._fleet.get_agent(agent_id).runs)
        return int(int((Path(path) / "stderr.log").read_text() or 0) / self._seconds)

    def beside(self, flood: Callable[[], object], what: Callable[[], object], asks: int) -> list[float]:
        with flood():  # type: ignore[attr-defined]
            time.sleep(0.3)  # it is in full flow
            return [milliseconds(what) for _ in range(asks)]


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
