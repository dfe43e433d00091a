"""What a fleet of a hundred idle agents weighs, and how soon the commands answer.

    python benchmarks/footprint.py [--slack 2] [--smoke] [--json]

Memory is PSS: a process's own, with its share of what it has in common with others. Needs Linux. The raw
limit of a runner is a bare `python -I -S` that sleeps, of a view a bare `sleep`, of the daemon and the bridge
a bare `python`; that of a command is a bare `python -c pass`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cli_start
from figures import BARE, Figure, amount, in_turn, main, median, milliseconds, within
from grounds import SLEEP, Deployer, daemon, fleet, ground, until
from start_ratio import weight
from views import tree

from headcount import Headcount
from tests.support.daemons import Bridge

RUNNER_MB, VIEW_MB, DAEMON_MB, BRIDGE_MB = 4.5, 1.0, 100.0, 20.0
IDLE_PERCENT = 1.0
PYTHON_SLEEPS = (*BARE[:-1], "import time; time.sleep(600)")


def figures(*, smoke: bool) -> Iterator[Figure]:
    live, seconds, rounds = (3, 1, 2) if smoke else (100, 20, 15)
    with ground() as place, fleet(place / "h", views=True) as opened, daemon(place / "h") as pid:
        yield from weights(opened, place, live)
        yield from daemons(pid, place, live, seconds)
    with ground() as place:
        (place / "h").mkdir(mode=0o700)
        yield from commands(place, rounds)


def weights(opened: Headcount, place: Path, live: int) -> Iterator[Figure]:
    deployer = Deployer(opened, place)
    made = [deployer.deploy() for _ in range(live)]
    bare = weigh_bare(PYTHON_SLEEPS)
    runners = [weight(each.runner_pid or 0) for each in made]
    yield amount(
        f"runner at {live} live, PSS",
        median(runners),
        RUNNER_MB,
        "MB",
        raw=bare,
        raw_name="bare python -I -S",
    )
    if shutil.which("tmux") is None:
        return
    until(lambda: len(opened.context.views.list() or ()) == live)
    time.sleep(1)  # every view has begun to follow
    panes = ask(opened, "list-panes", "-a", "-F", "#{pane_pid}")
    (server,) = ask(opened, "display-message", "-p", "#{pid}")
    each = sum(weight(pid) for pane in panes for pid in tree(pane)) / live + weight(server) / live
    yield amount(
        f"view at {live} live, PSS", each, VIEW_MB, "MB", raw=weigh_bare(SLEEP), raw_name="bare sleep"
    )


def daemons(pid: int, place: Path, live: int, seconds: float) -> Iterator[Figure]:
    python = weigh_bare((sys.executable, "-c", "import time; time.sleep(600)"))
    time.sleep(min(2, seconds))  # what the deploys set off is over
    busy = idle(pid, seconds)
    yield amount(
        f"daemon with {live} idle agents, of a core",
        busy,
        IDLE_PERCENT,
        "%",
        raw=None,
        raw_name="nothing to do",
    )
    yield amount(
        f"daemon with {live} agents, PSS", weight(pid), DAEMON_MB, "MB", raw=python, raw_name="bare python"
    )
    with Bridge(place / "h") as bridge:
        bridge.ask("tools/list")
        found = weight(bridge.process.pid)
    yield amount("headcount mcp, PSS", found, BRIDGE_MB, "MB", raw=python, raw_name="bare python")


def commands(place: Path, rounds: int) -> Iterator[Figure]:
    os.environ.update(HEADCOUNT_HOME=str(place / "h"), HEADCOUNT_AUTOSTART="0")
    whats = [
        cli_start.command(cli_start.COMMAND, "--help"),
        cli_start.command(cli_start.COMMAND, "ps", "--json"),
        first_answer,
        cli_start.command(sys.executable, "-c", "pass"),
    ]
    for what in whats:
        what()  # its bytecode is written
    *ours, raw = in_turn(whats, rounds)
    ours[2] = answers[-rounds:]
    for (name, most), taken in zip(cli_start.LIMITS_MS.items(), ours, strict=True):
        yield within(name, taken, most, raw=raw, raw_name="bare python -c pass")


answers: list[float] = []


def first_answer() -> None:
    """Time the bridge without a daemon up to its first line, not to its end."""
    began = time.perf_counter()
    cli_start.first_answer()
    ended: float = cli_start.first_answer.at  # type: ignore[attr-defined]
    answers.append((ended - began) * 1000)


def weigh_bare(argv: Sequence[str]) -> float:
    """Return what ten bare processes of a kind weigh each."""
    processes = [subprocess.Popen(argv) for _ in range(10)]
    try:
        time.sleep(0.5)
        return median([weight(each.pid) for each in processes])
    finally:
        for each in processes:
            each.kill()
            each.wait()


def idle(pid: int, seconds: float) -> float:
    """Return the percentage of a core that a process takes."""
    began = cpu_seconds(pid)
    taken = milliseconds(lambda: time.sleep(seconds)) / 1000
    return (cpu_seconds(pid) - began) / taken * 100


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(opened: Headcount, *command: str) -> list[int]:
    tmux = ("tmux", "-u", "-N", "-S", str(opened.context.home.tmux_socket))
    return list(map(int, subprocess.run((*tmux, *command), capture_output=True, check=True).stdout.split()))


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
