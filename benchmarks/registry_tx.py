"""What a write transaction of the registry costs beside a bare one of SQLite's. Exits 1 if a bound is missed.

    python benchmarks/registry_tx.py [--times 300] [--writers 100] [--slack 2]

The bare one is BEGIN IMMEDIATE, one INSERT, COMMIT on the same file system with the same pragmas, without
our queue, row types and checks. Then many processes write at once, and then beside a long history.
It touches a scratch directory only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from headcount.domain.model import RunKey  # noqa: E402  # after the path
from headcount.store.connection import connect  # noqa: E402
from headcount.store.registry import Registry  # noqa: E402
from tests.support.forks import together  # noqa: E402
from tests.support.registries import BOOT, TASK, confirm, end, new_run, registry, with_task  # noqa: E402

EVENT_RATIO = 2.0  # one event in a transaction, to the bare insert
RESERVE_RATIO = 4.0  # the first transaction of a deploy, to the bare insert
HISTORY_RATIO = 1.2  # the same beside 100,000 ended runs
CROWD_RATIO = 4.0  # all transactions of a crowd that opens the registry first, to as many of one process


def in_turn(acts: Sequence[Callable[[int], object]], times: int) -> list[list[float]]:
    """Time the acts by turns, so that what else the machine does falls on all of them alike."""
    taken: list[list[float]] = [[] for _ in acts]
    for number in range(times):
        for act, mine in zip(acts, taken, strict=True):
            began = time.perf_counter()
            act(number)
            mine.append((time.perf_counter() - began) * 1000)
    return [sorted(each) for each in taken]


def spread(taken: list[float]) -> str:
    return f"median {statistics.median(taken):.3f} ms, p99 {taken[int(len(taken) * 0.99)]:.3f} ms"


class Bare:
    """SQLite, and nothing around it."""

    def __init__(self, home: Path) -> None:
        self.connection = connect(home / "bare.db", mode="rwc", wait=10)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(
            "CREATE TABLE event (seq INTEGER PRIMARY KEY, at REAL, kind TEXT, data TEXT) STRICT"
        )

    def insert(self, number: int) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute("INSERT INTO event (at, kind, data) VALUES (?, 'k', '{}')", [float(number)])
        self.connection.execute("COMMIT")


class Ours:
    """The same through the registry, and the first transaction of a deploy."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.opened = with_task(home)

    def event(self, number: int) -> None:
        with self.opened.write("event") as tx:
            tx.events.add("k", now=float(number))

    def reserve(self, number: int) -> None:
        """Admission, agent, run and event."""
        name = f"b-{number}"
        with self.opened.write("deploy") as tx:
            tx.runs.admission(TASK, parent=None, role="b", work_hash="w", boot_id=BOOT, since_boottime=0.0)
            tx.runs.add(new_run(name, takes_role=True, token_hash=name))
            tx.events.add("reserved", now=1.0, task_id=TASK, agent_id=name, run=1)

    def end(self, number: int) -> None:
        with self.opened.write("end") as tx:
            end(tx, RunKey(f"b-{number}", 1))


def grow(opened: Registry, number: int) -> None:
    """Write history of another task, in batches."""
    from tests.support.registries import task

    with opened.write("grow") as tx:
        tx.tasks.add(task("task-history"))
    for start in range(0, number, 5000):
        with opened.write("grow") as tx:
            for each in range(start, start + 5000):
                name = f"old-{each}"
                tx.runs.add(new_run(name, task_id="task-history"))
                end(tx, RunKey(name, 1))
                tx.events.add("ended", now=1.0, task_id="task-history", agent_id=name)


def crowd(home: Path, writers: int) -> tuple[float, float]:
    """Return the wall time of two transactions in each of many processes, and the longest wait in one."""

    def work(me: int) -> float:
        opened = registry(home)
        longest = 0.0
        for step in range(2):
            began = time.perf_counter()
            with opened.write("deploy") as tx:
                if step == 0:
                    tx.runs.add(new_run(f"crowd{me}-1"))
                else:
                    confirm(tx, RunKey(f"crowd{me}-1", 1))
            longest = max(longest, time.perf_counter() - began)
        opened.close()
        return longest

    began = time.perf_counter()
    waits = together(writers, work)
    return time.perf_counter() - began, max(waits)


def alone(writers: int) -> float:
    """Return the wall time of a crowd that does nothing."""
    began = time.perf_counter()
    together(writers, lambda me: me)
    return time.perf_counter() - began


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", type=int, default=300)
    arguments.add_argument("--writers", type=int, default=100)
    arguments.add_argument("--history", type=int, default=100_000)
    arguments.add_argument("--slack", type=float, default=1.0)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return measure(Path(name), asked)


def measure(home: Path, asked: argparse.Namespace) -> int:
    bare, young, old = Bare(home), Ours(home / "young"), Ours(home / "old")
    grow(old.opened, asked.history)
    old.opened.checkpoint()
    acts = [bare.insert, young.event, young.reserve, young.end, old.reserve, old.end]
    limit, one, reserve, _, later, _ = in_turn(acts, asked.times)
    (home / "crowd").mkdir()
    with_task(home / "crowd").close()
    nothing = alone(asked.writers)
    wall, longest = crowd(home / "crowd", asked.writers)
    bare.connection.close()
    young.opened.close()
    old.opened.close()
    base = statistics.median(limit)
    print(f"bare insert                   {spread(limit)}")
    print(f"one event                     {spread(one)}")
    print(f"reserve a run                 {spread(reserve)}")
    print(f"  beside {asked.history} ended runs   {spread(later)}")
    print(
        f"{asked.writers} processes, 2 transactions each: {wall:.2f} s, of which {nothing:.2f} s is forking;"
    )
    print(f"  the longest wait {longest:.2f} s")
    serial = 2 * asked.writers * statistics.median(reserve) / 1000
    bounds = (
        ("one event / bare insert", statistics.median(one) / base, EVENT_RATIO),
        ("reserve / bare insert", statistics.median(reserve) / base, RESERVE_RATIO),
        ("with history / without", statistics.median(later) / statistics.median(reserve), HISTORY_RATIO),
        ("crowd / the same one by one", (wall - nothing) / serial, CROWD_RATIO),
    )
    missed = 0
    for what, found, most in bounds:
        good = found <= most * asked.slack
        missed += not good
        print(f"{'ok    ' if good else 'MISSED'} {what}: {found:.2f} (at most {most * asked.slack:g})")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
