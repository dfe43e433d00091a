"""What a hundred views cost: memory, time to appear, time to list. Exits 1 if a bound is missed.

    python benchmarks/views.py [--views 100] [--slack 2]

Needs tmux, and Linux for the memory. It touches a scratch directory only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from headcount.domain.ids import base32
from headcount.domain.model import RunKey
from headcount.runtimes.tmux_view import TmuxViews

VIEW_KB = 1024
LIST_RATIO = 2.0  # to a bare `tmux ls`, which is started the same way
SHOW_RATIO = 3.0  # to two bare interpreters for each view, all started at once
BARE = (sys.executable, "-I", "-S", "-c", "pass")


def milliseconds(act: Callable[[], object], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


def spread(taken: list[float]) -> str:
    return f"median {statistics.median(taken):.1f} ms, p99 {taken[int(len(taken) * 0.99)]:.1f} ms"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("the views did not appear within a minute")
        time.sleep(0.005)


def tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def pss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Bench:
    """A scratch home with runs, each a directory and a process to follow."""

    def __init__(self, home: Path, tmux: str, number: int) -> None:
        self.tmux = (tmux, "-u", "-S", str(home / "tmux.sock"))
        self.views = TmuxViews(str(home / "tmux.sock"), tmux=tmux, env=os.environ, timeout=10)
        self.runners = [subprocess.Popen(("sleep", "600")) for _ in range(number)]
        self.paths = [home / str(each) for each in range(number)]
        for path in self.paths:
            path.mkdir()
            (path / "output.jsonl").write_text("a line of an agent's output, as long as one may be\n" * 200)

    def show(self, number: int) -> None:
        key = RunKey(f"builder-{base32(number, 16)}", 1)
        path, pid = self.paths[number], self.runners[number].pid
        self.views.show(key, str(path), runner_pid=pid, renders=False)

    def count(self) -> int:
        return len(self.views.list() or ())

    def ask(self, *command: str) -> list[int]:
        answer = subprocess.run((*self.tmux, *command), capture_output=True, text=True, check=True)
        return list(map(int, answer.stdout.split()))

    def memory(self) -> float:
        """Return the kilobytes of one view with its share of the server."""
        panes = self.ask("list-panes", "-a", "-F", "#{pane_pid}")
        until(lambda: all(len(tree(pid)) >= 6 for pid in panes))
        (server,) = self.ask("display-message", "-p", "#{pid}")
        each = [sum(map(pss_kb, tree(pid))) for pid in panes]
        print(f"memory of a view: {statistics.mean(each):.0f} kB, of the server: {pss_kb(server)} kB")
        return statistics.mean(each) + pss_kb(server) / len(panes)

    def close(self) -> None:
        (server,) = self.ask("display-message", "-p", "#{pid}")
        os.kill(server, signal.SIGKILL)
        for runner in self.runners:
            runner.kill()
            runner.wait()


def crowd(number: int) -> float:
    """Return the seconds that bare interpreters take, all started at once."""
    began = time.perf_counter()
    for each in [subprocess.Popen(BARE) for _ in range(number)]:
        each.wait()
    return time.perf_counter() - began


def measure(bench: Bench, number: int, slack: float) -> list[str]:
    missed = []
    bench.show(0)
    until(lambda: bench.count() == 1)
    bare = crowd(2 * number)
    began = time.perf_counter()
    calls = milliseconds(iter(map(bench.show, range(1, number))).__next__, number - 1)
    until(lambda: bench.count() == number)
    all_up = time.perf_counter() - began
    print(f"a call of show: {spread(calls)}")
    print(f"{number - 1} views up: {all_up:.2f} s; {2 * number} bare interpreters: {bare:.2f} s")
    if all_up > SHOW_RATIO * slack * bare:
        missed.append(f"views took {all_up / bare:.1f} times the bare interpreters")
    listed = milliseconds(bench.count, 50)
    ls = (*bench.tmux, "list-sessions")
    alone = milliseconds(lambda: subprocess.run(ls, capture_output=True, check=True), 50)
    print(f"list of {number}: {spread(listed)}; bare tmux ls: {spread(alone)}")
    if statistics.median(listed) > LIST_RATIO * slack * statistics.median(alone):
        missed.append("the list is slower than its bound")
    cost = bench.memory()
    print(f"a view with its share of the server: {cost:.0f} kB")
    if cost > VIEW_KB:
        missed.append(f"a view costs {cost:.0f} kB, more than {VIEW_KB}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--views", type=int, default=100)
    parser.add_argument("--slack", type=float, default=1.0, help="by which ratios of time may be missed")
    options = parser.parse_args()
    tmux = shutil.which("tmux")
    if tmux is None:
        sys.exit("tmux is not installed")
    home = Path(tempfile.mkdtemp(prefix="hc-views-"))
    bench = Bench(home, tmux, options.views)
    try:
        missed = measure(bench, options.views, options.slack)
    finally:
        bench.close()
        shutil.rmtree(home)
    for each in missed:
        print(f"MISSED: {each}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
