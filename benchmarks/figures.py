"""What a measurement is, how it is judged, and how the programs here print it.

A figure is ours beside the raw limit of the same machine, taken in turn in the same run. Ratios are judged
as they are. Limits in milliseconds hold on a machine where a bare `python -I -S -c pass` takes 9 ms; where
it takes longer at the moment of the run they are stretched in proportion, and the table shows what they
have become.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import NoReturn, Protocol

from headcount.runtimes import program

BARE = (program.interpreter(), "-I", "-S", "-c", "pass")
BARE_NAME = "bare python -I -S"
BARE_MS = 9.0
STRETCH_MAX = 4.0


@dataclass(frozen=True)
class Figure:
    """One line of the table. `found` is judged against `most`, in `unit` (x: times the raw median)."""

    name: str
    median: float
    p99: float | None
    own_unit: str
    raw: float | None
    raw_name: str
    found: float
    most: float
    unit: str
    tries: int = 1

    def used(self, slack: float) -> float:
        """Return the share of the limit that is used; more than 1 is a miss."""
        return self.found / (self.most * slack)


class Measure(Protocol):
    def __call__(self, *, smoke: bool) -> Iterator[Figure]: ...


def median(taken: Sequence[float]) -> float:
    return statistics.median(taken)


def p99(taken: Sequence[float]) -> float:
    return sorted(taken)[math.ceil(len(taken) * 0.99) - 1]


def times(name: str, ours: Sequence[float], raw: Sequence[float], most: float, *, raw_name: str) -> Figure:
    """Judge the median of ours in times of the raw one; all in milliseconds."""
    found = median(ours) / median(raw)
    return Figure(name, median(ours), p99(ours), "ms", median(raw), raw_name, found, most, "x")


def worst(name: str, ours: Sequence[float], raw: Sequence[float], most: float, *, raw_name: str) -> Figure:
    """Judge the 99th percentile of ours in times of the raw one's."""
    return Figure(name, median(ours), p99(ours), "ms", p99(raw), raw_name, p99(ours) / p99(raw), most, "x")


def within(
    name: str,
    ours: Sequence[float],
    most: float,
    *,
    raw: Sequence[float],
    raw_name: str,
    found: float | None = None,
) -> Figure:
    """Judge the median of ours (or `found`) by milliseconds."""
    judged = median(ours) if found is None else found
    return Figure(name, median(ours), p99(ours), "ms", median(raw), raw_name, judged, most * stretch(), "ms")


def amount(name: str, found: float, most: float, unit: str, *, raw: float | None, raw_name: str) -> Figure:
    """Judge an amount: megabytes, a share of a core, a number of calls."""
    return Figure(name, found, None, unit, raw, raw_name, found, most, unit)


_SEEN: list[float] = []


def bare() -> None:
    """Start the raw limit of every start; what it takes tells how fast the machine is now."""
    began = time.perf_counter()
    subprocess.run(BARE, check=True)
    _SEEN.append((time.perf_counter() - began) * 1000)


def stretch() -> float:
    """Return by how much limits in milliseconds are stretched on this machine at this moment."""
    while len(_SEEN) < 15:
        bare()
    return min(max(median(_SEEN) / BARE_MS, 1.0), STRETCH_MAX)


def milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def in_turn(
    acts: Sequence[Callable[[], object]], rounds: int, *, between: Callable[[], object] = lambda: None
) -> list[list[float]]:
    """Time the acts by turns, so that what else the machine does falls on all of them alike; the first
    round, which fills the caches, is left out."""
    taken: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds + 1):
        for act, mine in zip(acts, taken, strict=True):
            mine.append(milliseconds(act))
            between()
    return [each[1:] for each in taken]


def table(figures: Iterable[Figure], slack: float) -> str:
    """Draw the figures, each with its verdict."""
    head = f"{'':<46}{'median':>11}{'p99':>9}  {'raw limit':<34}{'found':>11}{'limit':>10}  verdict"
    return "\n".join([head, *(_row(each, slack) for each in figures)])


def _row(each: Figure, slack: float) -> str:
    tail = "" if each.p99 is None else f"{each.p99:.1f}"
    raw = each.raw_name if each.raw is None else f"{each.raw:.1f} {each.own_unit} {each.raw_name}"
    verdict = "ok" if each.used(slack) <= 1 else "MISSED"
    again = f" (best of {each.tries})" if each.tries > 1 else ""
    return (
        f"{each.name:<46}{each.median:8.1f} {each.own_unit:<2}{tail:>9}  {raw:<34}"
        f"{each.found:8.2f} {each.unit:<2}{each.most * slack:7.2f} {each.unit:<2}  {verdict}{again}"
    )


def slack_of(given: float | None) -> float:
    """Return the factor on every limit: as given, else 2 in CI, whose machines are shared."""
    if given is not None:
        return given
    return 2.0 if os.environ.get("CI") == "true" else 1.0


def main(measure: Measure, doc: str | None) -> int:
    """Be one program: measure, print, and return 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slack", type=float, help="factor on every limit; default 1, or 2 with CI=true")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, no judgement: does it still run?")
    parser.add_argument("--json", action="store_true", help="one figure a line, no judgement")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _told)  # so that what was started is ended
    found = []
    for figure in measure(smoke=asked.smoke):
        found.append(figure)
        if asked.json:
            print(json.dumps(asdict(figure)), flush=True)
    slack = slack_of(asked.slack)
    if not asked.json:
        print(table(found, slack))
    judged = not asked.json and not asked.smoke
    return int(judged and any(each.used(slack) > 1 for each in found))


def _told(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
