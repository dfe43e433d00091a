"""How long the command line takes to answer, beside a bare interpreter in the same run.

    python benchmarks/cli_start.py [--rounds N] [--slack FACTOR]

Exits 1 if a median misses its limit. Limits are milliseconds on the machine that the project is measured on,
and ratios to a bare start: a slow or busy machine is slow for both, so only what misses both has failed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("headcount"))
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "b", "version": "1"},
    },
}
QUIET_BARE_MS = 12
"""What a bare start takes on the measured machine when nothing else runs there."""

LIMITS_MS = {"headcount --help": 100, "headcount ps --json": 200, "headcount mcp, first answer": 150}


def command(*argv: str) -> Callable[[], None]:
    return lambda: subprocess.run(argv, stdout=subprocess.DEVNULL, check=True).check_returncode()


def first_answer() -> None:
    """Start the bridge, with no daemon there, and stop the clock at its first line."""
    line = json.dumps(INITIALIZE).encode() + b"\n"
    with subprocess.Popen([COMMAND, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bridge:
        assert bridge.stdin is not None
        assert bridge.stdout is not None
        bridge.stdin.write(line)
        bridge.stdin.flush()
        assert b'"result"' in bridge.stdout.readline()
        first_answer.at = time.perf_counter()  # type: ignore[attr-defined]
        bridge.stdin.close()


def measured(what: Callable[[], None], rounds: int) -> list[float]:
    """Return the milliseconds of each round; the first, which fills the caches, is left out."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        what()
        ended = getattr(what, "at", None) or time.perf_counter()
        times.append((ended - began) * 1000)
    return times[1:]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--slack", type=float, default=1.0, help="factor on every limit, 2 in CI")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hcb-", dir="/tmp") as home:
        os.environ.update(HEADCOUNT_HOME=home, HEADCOUNT_AUTOSTART="0")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{home}/bytecode"  # an installed package has its bytecode
        bare = statistics.median(measured(command(sys.executable, "-c", "pass"), asked.rounds))
        print(f"{'bare python -c pass':<30} {bare:7.1f} ms")
        whats = (command(COMMAND, "--help"), command(COMMAND, "ps", "--json"), first_answer)
        return _judged(dict(zip(LIMITS_MS, whats, strict=True)), bare, asked.rounds, asked.slack)


def _judged(whats: dict[str, Callable[[], None]], bare: float, rounds: int, slack: float) -> int:
    missed = 0
    for name, what in whats.items():
        times = sorted(measured(what, rounds))
        median, worst = statistics.median(times), times[-1]
        most = LIMITS_MS[name] * slack
        ratio = most / QUIET_BARE_MS
        good = median <= most or median / bare <= ratio
        missed += not good
        verdict = "ok" if good else "MISSED"
        print(f"{name:<30} {median:7.1f} ms  worst {worst:7.1f}  {median / bare:4.1f} x bare  "
              f"(limit {most:.0f} ms or {ratio:.0f} x)  {verdict}")  # fmt: skip
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
