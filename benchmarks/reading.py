"""What it costs to ask: the status of a task beside a long history, and a health check of a large machine.

    python benchmarks/reading.py [--slack 2] [--smoke] [--json]

Status: a task with 20 live agents beside 100,000 ended runs, in turn with the same without them. Health
check: of 1,000 live runs, each with its session, then of as many ghosts (every runner is killed with
SIGKILL), both beside 100,000 ended runs; its raw limit is one bare `tmux list-sessions` of the same server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from figures import Figure, amount, in_turn, main, times, within, worst
from grounds import LIMITS, MANY, SLEEP, Deployer, fleet, ground, until

from headcount import Headcount
from headcount.doors.audit.crowd import at_once
from tests.support.histories import fill

STATUS_MEDIAN = 1.2
STATUS_P99 = 2.0
CHECK_MS = 100.0
DEPLOYERS = 10
DEPLOY = """
for _ in range(given["each"][me]):
    fleet.deploy(
        given["task"], role="sleeper", harness="command", command=given["command"], allow_duplicate_role=True
    )
"""


def figures(*, smoke: bool) -> Iterator[Figure]:
    many = 500 if smoke else MANY
    with ground() as place:
        yield from status(place, many, *((2, 5) if smoke else (20, 300)))
    with ground() as place:
        yield from health(place, many, *((20, 2) if smoke else (1000, 15)))


def status(place: Path, many: int, live: int, rounds: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        asks = []
        for name, history in (("young", 0), ("old", many)):
            opened = stack.enter_context(fleet(place / name))
            deployer = Deployer(opened, place)
            for _ in range(live):
                deployer.deploy()
            if history:
                fill(opened, history)
            asks.append(lambda opened=opened, task=deployer.task: opened.get_task_status(task))
        young, old = in_turn(asks, rounds)
    what, raw = f"status of {live} live beside {many:,} ended", "the same beside none"
    yield times(what, old, young, STATUS_MEDIAN, raw_name=raw)
    yield worst(f"{what}, p99", old, young, STATUS_P99, raw_name=raw)


def health(place: Path, many: int, live: int, rounds: int) -> Iterator[Figure]:
    tmux = shutil.which("tmux")
    with fleet(place / "h", views=tmux is not None) as opened:
        fill(opened, many)
        deploy(opened, live - 1)
        Deployer(opened, place).deploy()
        if tmux:
            sessions(opened, tmux)
        yield from checks(opened, f"health check of {live:,} live", rounds, tmux)
        for seen in opened.context.placement.look():
            if seen.runner_pid:
                os.kill(seen.runner_pid, signal.SIGKILL)
        until(lambda: len(opened.registry_health_check().ghosts) == live)
        yield from checks(opened, f"health check of {live:,} ghosts", rounds, tmux)


def checks(opened: Headcount, what: str, rounds: int, tmux: str | None) -> Iterator[Figure]:
    ls = (tmux, "-N", "-S", str(opened.context.home.tmux_socket), "list-sessions") if tmux else ("true",)
    ours, raw = in_turn(
        (opened.registry_health_check, lambda: subprocess.run(ls, capture_output=True, check=True)), rounds
    )
    yield within(what, ours, CHECK_MS, raw=raw, raw_name="bare tmux ls" if tmux else "true")
    if tmux:
        yield amount(f"{what}, processes", processes(opened), 1, "", raw=None, raw_name="one listing")


def processes(opened: Headcount) -> int:
    """Return how many processes one health check starts."""
    started: list[object] = []
    sys.addaudithook(lambda event, args: started.append(args) if event == "subprocess.Popen" else None)
    opened.registry_health_check()
    return len(started)


def deploy(opened: Headcount, live: int) -> None:
    """Deploy real agents, from several processes at once, without views."""
    task = opened.create_task("many", project="/tmp").task_id
    given = {
        "home": opened.context.home.root,
        "task": task,
        "command": SLEEP,
        "each": [live // DEPLOYERS + (each < live % DEPLOYERS) for each in range(DEPLOYERS)],
        "settings": LIMITS,
    }
    at_once(DEPLOY, DEPLOYERS, given, patience=400)


def sessions(opened: Headcount, tmux: str) -> None:
    """Give each live run a session, all in one call, that costs less than a view."""
    names = [each.agent_id for each in opened.list_agents(limit=1000).agents]
    names.pop(0)  # the newest: the only one with a view of its own
    script = opened.context.home.root / "sessions.tmux"
    script.write_text("".join(f"new-session -d -s {name} 'exec sleep 600'\n" for name in names))
    until(opened.context.views.list)
    socket = str(opened.context.home.tmux_socket)
    subprocess.run((tmux, "-N", "-S", socket, "source-file", str(script)), check=True)
    until(lambda: len(opened.context.views.list() or ()) == len(names) + 1)


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
