"""How long a start takes beside a bare `python -I -S -c pass`, and what a runner weighs.

    python benchmarks/start_ratio.py [--starts N] [--live N]

Exits 1 if the median start takes more than 2.6 times the bare Python, or a runner has more than 4.5 MB of its
own (PSS) at 100 live. With CI=true twice as much is allowed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headcount.config import Home
from headcount.domain.model import LockState, Order, RunKey
from headcount.runtimes import program
from headcount.runtimes.local import LocalPlacement

RATIO = 2.6
PSS_MB = 4.5
SLACK = 2.0 if os.environ.get("CI") == "true" else 1.0
ENV = {"PATH": os.defpath}


def order(placement: LocalPlacement, n: int, *argv: str) -> Order:
    return Order(
        key=RunKey("bench-0000000000000001", n),
        task_id="task-0000000000000001",
        role="bench",
        parent=None,
        depth=1,
        harness="command",
        model=None,
        effort=None,
        argv=argv,
        cwd="/",
        prompt=None,
        stdin=b"a prompt",
        files={},
        grace=1.0,
        output_cap=1_000_000,
        deployer=placement.self_process(),
        reserved_at=time.time(),
    )


def timed(work: object, *args: object, **named: object) -> float:
    began = time.perf_counter()
    work(*args, **named)  # type: ignore[operator]
    return time.perf_counter() - began


def starts(placement: LocalPlacement, number: int) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of bare Pythons, of preparations and of starts, taken in turn."""
    bare, prepared, started = [], [], []
    for n in range(1, number + 1):
        bare.append(timed(subprocess.run, (program.interpreter(), "-I", "-S", "-c", "pass"), check=True))
        made = order(placement, n, "/bin/true")
        prepared.append(timed(placement.prepare, made))
        path = placement.run_path(made.key, reserved_at=made.reserved_at)
        started.append(timed(placement.start, made.key, path, env=ENV, timeout=30.0))
    return bare[1:], prepared[1:], started[1:]  # the first start compiled the runner


def weight(pid: int) -> float:
    """Return the megabytes of a process, with its share of what it has in common with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def weights(placement: LocalPlacement, number: int) -> list[float]:
    """Return what each of `number` runners weighs while all of them live."""
    pids = []
    try:
        for n in range(100_001, 100_001 + number):
            made = order(placement, n, "/bin/sleep", "600")
            path = placement.prepare(made)
            pids.append(placement.start(made.key, path, env=ENV, timeout=30.0).runner.pid)
        return [weight(pid) for pid in pids]
    finally:
        end_all(placement)


def end_all(placement: LocalPlacement) -> None:
    for seen in placement.look():
        placement.signal_stop(seen.key, seen.path, grace=0)
    until = time.monotonic() + 30
    while any(seen.lock is not LockState.FREE for seen in placement.look()) and time.monotonic() < until:
        time.sleep(0.05)


def row(name: str, seconds: list[float]) -> str:
    found = sorted(seconds)
    p99 = found[int(len(found) * 0.99)]
    return f"{name:28}{statistics.median(found) * 1000:9.2f} ms median{p99 * 1000:9.2f} ms p99"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--starts", type=int, default=100)
    arguments.add_argument("--live", type=int, default=100)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="hc-bench-") as folder:
        home = Home(Path(folder))
        home.make()
        placement = LocalPlacement(home)
        bare, prepared, started = starts(placement, given.starts)
        end_all(placement)
        for seen in placement.look():
            placement.unmark(seen.key)
        heavy = weights(placement, given.live) if sys.platform == "linux" else []
    ratio = statistics.median(started) / statistics.median(bare)
    print(row("bare python -I -S -c pass", bare))
    print(row("prepare (durable)", prepared))
    print(row("start (harness runs)", started))
    print(f"{'start / bare':28}{ratio:9.2f}    limit {RATIO * SLACK:.1f}")
    failed = ratio > RATIO * SLACK
    if heavy:
        pss = statistics.median(heavy)
        print(f"{f'runner at {len(heavy)} live':28}{pss:9.2f} MB PSS, limit {PSS_MB * SLACK:.1f}")
        failed = failed or pss > PSS_MB * SLACK
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
