"""`make soak`: long storms of random operations and violence on real processes, and many random histories.

    python tests/soak/run.py [--operations N] [--storms N] [--seed N] [--histories N]

Prints a table for each storm; exit code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.simulation.driver import Failed, simulate  # noqa: E402 - found by the line above
from tests.support import leftovers, private  # noqa: E402
from tests.support.storm import storm  # noqa: E402


def main() -> int:
    given = _arguments()
    bad = 0
    private.make_root(os.environ)
    root = Path(os.environ[private.MARK])
    try:
        for seed in range(given.seed, given.seed + given.storms):
            bad += _storm(root, seed, given.operations)
        for seed in range(given.seed * 1_000_000, given.seed * 1_000_000 + given.histories):
            bad += _history(seed)
    finally:
        leftovers.end_all(root)
        private.remove(root)
    return min(bad, 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--storms", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--histories", type=int, default=0)
    return parser.parse_args()


def _storm(root: Path, seed: int, operations: int) -> int:
    place = private.place_for_a_test(root)
    home = place / "h"
    home.mkdir(mode=0o700)
    os.environ["HEADCOUNT_HOME"] = str(home)
    (place / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(place / "run")
    with tempfile.TemporaryDirectory(dir=place) as project:
        report = storm(home, Path(project), seed=seed, operations=operations)
    left = leftovers.await_none(place)
    report.wrong += [f"left behind: {each}" for each in left]
    leftovers.remove_cgroups(home)
    print(report.table(), flush=True)
    return len(report.wrong)


def _history(seed: int) -> int:
    try:
        simulate(seed)
    except Failed as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
