"""Measure everything that Headcount promises of speed and memory, beside the raw limits of this machine.

    python benchmarks/run.py [--only NAME]... [--slack 2] [--budget 480] [--smoke] [--json]

Runs each program here in a process of its own and prints one table; exits 1 if a limit is missed. What is
missed is measured again, up to three times in all while the budget of seconds lasts, and the best counts:
another process of the machine can make a figure worse, never better. With CI=true every limit is doubled.
docs/performance.md says what each line is.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from figures import Figure, slack_of, table

PROGRAMS = ("deploy_time", "deploy_crowd", "reading", "ending", "footprint", "harness_speed", "flood")
BY_NAME = ("thousand",)
"""Those that take more of the machine than a measurement of everything should."""
TRIES = 3
PATIENCE = 400.0
"""Seconds for one program."""


class Broken(Exception):
    """A program did not measure what it should; its own words are on stderr."""


def measured(name: str, *, smoke: bool) -> list[Figure]:
    """Run one program and return what it found.

    Raises:
        Broken: it failed, or took too long.
    """
    argv = (sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json", *(["--smoke"] * smoke))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        except BaseException as error:
            process.send_signal(signal.SIGTERM)  # it ends what it has started
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Broken(f"{name} took longer than {PATIENCE:g} s") from None
            raise
    if process.returncode != 0:
        raise Broken(f"{name} failed with exit code {process.returncode}")
    return [Figure(**json.loads(line)) for line in out.splitlines()]


def best(before: Iterable[Figure], after: Iterable[Figure]) -> list[Figure]:
    """Return the better of two measurements of each figure."""
    pairs = zip(before, after, strict=True)
    return [replace(min(pair, key=lambda each: each.used(1)), tries=pair[0].tries + 1) for pair in pairs]


def missed(figures: Iterable[Figure], slack: float) -> bool:
    return any(each.used(slack) > 1 for each in figures)


def all_of(names: Iterable[str], *, slack: float, deadline: float, smoke: bool) -> dict[str, list[Figure]]:
    """Measure once, then what was missed or broken again while there is time; the broken have no figures."""
    found, took = {}, {}
    for name in names:
        began = time.monotonic()
        found[name] = tried(name, [], smoke=smoke)
        took[name] = time.monotonic() - began
        told(f"{name}: {took[name]:.0f} s")
    for _ in range(TRIES - 1):
        for name, figures in found.items():
            wanted = not figures or (not smoke and missed(figures, slack))
            if wanted and time.monotonic() + took[name] < deadline:
                told(f"{name}: once more")
                found[name] = tried(name, figures, smoke=smoke)
    return found


def tried(name: str, before: list[Figure], *, smoke: bool) -> list[Figure]:
    try:
        found = measured(name, smoke=smoke)
    except Broken as error:
        told(str(error))
        return before
    return best(before, found) if before else found


def told(words: str) -> None:
    print(f"{words} (load {load()})", file=sys.stderr, flush=True)


def load() -> str:
    return " ".join(f"{each:.1f}" for each in os.getloadavg())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", choices=(*PROGRAMS, *BY_NAME), help="one program; may be repeated"
    )
    parser.add_argument("--slack", type=float, help="factor on every limit; default 1, or 2 with CI=true")
    parser.add_argument(
        "--budget", type=float, default=480, help="seconds within which misses are tried again"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, no judgement: do they still run?")
    parser.add_argument("--json", action="store_true", help="print the figures, not a table")
    asked = parser.parse_args()
    slack, before = slack_of(asked.slack), load()
    found = all_of(
        asked.only or PROGRAMS, slack=slack, deadline=time.monotonic() + asked.budget, smoke=asked.smoke
    )
    figures = [each for group in found.values() for each in group]
    if asked.json:
        facts = [{**asdict(each), "ok": each.used(slack) <= 1} for each in figures]
        print(json.dumps({"slack": slack, "load": before, "figures": facts}, indent=1))
    else:
        print(f"{os.cpu_count()} cores; load {before} before, {load()} after; limits x {slack:g}")
        print(table(figures, slack))
    broken = [name for name, group in found.items() if not group]
    for name in broken:
        print(f"BROKEN: {name}", file=sys.stderr)
    return int(bool(broken) or (not asked.smoke and missed(figures, slack)))


if __name__ == "__main__":
    sys.exit(main())
