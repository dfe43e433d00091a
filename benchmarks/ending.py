"""How soon an end is known, and how long a stop takes.

    python benchmarks/ending.py [--slack 2] [--smoke] [--json]

The end of an agent is noticed by the daemon: from the moment its process is gone to its row. The raw limit
is what that consists of: a bare process noticed by its parent, one small file made durable, one transaction.
A stop is called through the library; its raw limit is a bare process told to end, and for one that ignores
it the grace.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from figures import Figure, amount, in_turn, main, median, milliseconds, p99, stretch, within
from grounds import SLEEP, Deployer, daemon, fleet, ground

from headcount import Headcount

NOTICED_MEDIAN_MS = 15.0
NOTICED_P99_MS = 60.0
STOP_MS = 150.0
BEYOND_THE_GRACE_MS = 300.0
GRACE = 0.5
STUBBORN = ("/bin/sh", "-c", "trap '' TERM; exec sleep 600")


def figures(*, smoke: bool) -> Iterator[Figure]:
    ends, stops = (3, 2) if smoke else (100, 15)
    with ground() as place, fleet(place / "h", views=True) as opened, daemon(place / "h"):
        yield from noticed(opened, place, ends)
    with ground() as place, fleet(place / "h") as opened:
        yield from stopped(opened, place, stops)


def noticed(opened: Headcount, place: Path, number: int) -> Iterator[Figure]:
    deployer = Deployer(opened, place)
    ours, raw = [], []
    for _ in range(number):
        agent = deployer.deploy()
        time.sleep(0.05)  # the daemon has attached, the view is made: it is the end that is timed
        assert agent.pid is not None
        gone(agent.pid)
        ours.append(milliseconds(partial(await_row, opened, agent.agent_id)))
        raw.append(consists_of(opened, place))
    name = "bare end, file, row"
    yield within("end of an agent noticed", ours, NOTICED_MEDIAN_MS, raw=raw, raw_name=name)
    yield amount(
        "end of an agent noticed, p99",
        p99(ours),
        NOTICED_P99_MS * stretch(),
        "ms",
        raw=p99(raw),
        raw_name=name,
    )


def gone(pid: int) -> None:
    """Kill a process and return as soon as it is gone."""
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([fd], [], [])
    os.close(fd)


def await_row(opened: Headcount, agent_id: str) -> None:
    """Wait for the row without the kernel's help, and without taking a core from the daemon."""
    while True:
        with opened.context.registry.read() as tx:
            run = tx.runs.get(agent_id)
        if run is not None and not run.live:
            return
        time.sleep(0.001)


def consists_of(opened: Headcount, place: Path) -> float:
    with subprocess.Popen(SLEEP) as process:
        gone(process.pid)
        began = time.perf_counter()
        process.wait()
        fd = os.open(place / "record", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, b"x" * 400)
        os.fsync(fd)
        os.close(fd)
        os.rename(place / "record", place / "record.json")
        with opened.context.registry.write("benchmark") as tx:
            tx.events.add("benchmark", now=0.0)
        return (time.perf_counter() - began) * 1000


def stopped(opened: Headcount, place: Path, number: int) -> Iterator[Figure]:
    deployer = Deployer(opened, place)

    def soft() -> None:
        opened.stop_agent(willing.pop().agent_id)

    def hard() -> None:
        opened.stop_agent(stubborn.pop().agent_id, grace=GRACE)

    def bare() -> None:
        process = processes.pop()
        process.terminate()
        process.wait()

    willing = [deployer.deploy() for _ in range(number + 1)]
    stubborn = [deployer.deploy(*STUBBORN) for _ in range(number + 1)]
    processes = [subprocess.Popen(SLEEP) for _ in range(number + 1)]
    time.sleep(0.3)  # the stubborn ones have set their trap
    first, second, raw = in_turn((soft, hard, bare), number)
    yield within("stop of a willing agent", first, STOP_MS, raw=raw, raw_name="bare TERM and wait")
    yield within(
        f"stop of one that ignores it, beyond {GRACE} s",
        second,
        BEYOND_THE_GRACE_MS,
        raw=[GRACE * 1000],
        raw_name="the grace",
        found=median(second) - GRACE * 1000,
    )


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
