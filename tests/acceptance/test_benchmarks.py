"""The benchmarks run, judge, and leave nothing; what they find is for quiet machines and for `make bench`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import leftovers

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = (
    "deploy_time",
    "deploy_crowd",
    "reading",
    "ending",
    "footprint",
    "harness_speed",
    "flood",
    "thousand",
)

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="they read /proc"),
    pytest.mark.usefixtures("require_tmux"),
]


def run(place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, str(BENCHMARKS / "run.py"), *args)
    env = {**os.environ, "HEADCOUNT_BENCH_ROOT": str(place)}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=280, env=env)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_measures_each_figure_and_leaves_nothing(name: str, home: Path) -> None:
    done = run(home, "--only", name, "--smoke", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert figures
    for each in figures:
        assert each["most"] > 0, each
        assert each["median"] >= 0, each
        assert each["raw"] is None or each["raw"] > 0, each
    assert os.listdir(home) == []
    assert leftovers.processes_under(home) == []


def test_a_missed_limit_is_said_and_fails_the_run() -> None:
    judge = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.argv[1:] = []\n"
        "from figures import main, times\n"
        "def figures(*, smoke):\n"
        "    yield times('kept', [29.0, 29.0], [10.0, 10.0], 3, raw_name='bare')\n"
        "    yield times('broken', [31.0, 31.0], [10.0, 10.0], 3, raw_name='bare')\n"
        "sys.exit(main(figures, ''))\n"
    )
    argv = (sys.executable, "-c", judge, str(BENCHMARKS))
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "CI": "false"}, timeout=60
    )
    assert done.returncode == 1, done.stderr
    verdicts = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()[1:]}
    assert verdicts == {"kept": "ok", "broken": "MISSED"}


def test_ci_doubles_the_limits() -> None:
    ask = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from figures import slack_of\n"
        "print(slack_of(None), slack_of(3))\n"
    )
    argv = (sys.executable, "-c", ask, str(BENCHMARKS))
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={**os.environ, "CI": "true"}, timeout=60
    )
    assert done.stdout.split() == ["2.0", "3"]


FAKE = """
import json, pathlib, sys
state = pathlib.Path(__file__).with_suffix(".tries")
tries = len(state.read_text()) if state.exists() else 0
state.write_text("x" * (tries + 1))
found = FOUND[tries]
if found is None:
    sys.exit("no figure")
print(json.dumps({"name": "a", "median": found, "p99": None, "own_unit": "ms", "raw": 1.0, "raw_name": "raw",
                  "found": found, "most": 3.0, "unit": "x"}))
"""


def judged(home: Path, found: list[float | None]) -> subprocess.CompletedProcess[str]:
    """Run `run.py` over a program that finds these, one after the other; None: it breaks."""
    for name in ("run.py", "figures.py"):
        shutil.copy(BENCHMARKS / name, home)
    (home / "ending.py").write_text(FAKE.replace("FOUND", repr(found)))
    argv = (sys.executable, str(home / "run.py"), "--only", "ending")
    env = {**os.environ, "CI": "false", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env)


@pytest.mark.parametrize(
    ("found", "code", "verdict"),
    [
        ([2.0], 0, "ok"),
        ([4.0, 5.0, 2.5], 0, "ok (best of 3)"),
        ([9.0, 4.0, 8.0], 1, "MISSED (best of 3)"),
        ([None, 2.0], 0, "ok"),
    ],
)
def test_what_is_missed_is_tried_again_and_the_best_counts(
    home: Path, found: list[float | None], code: int, verdict: str
) -> None:
    done = judged(home, found)
    assert done.stdout.rstrip().endswith(verdict), done.stdout
    assert done.returncode == code


def test_a_program_that_breaks_fails_the_run(home: Path) -> None:
    done = judged(home, [None, None, None])
    assert done.returncode == 1
    assert "BROKEN: ending" in done.stderr


def test_a_program_that_is_not_there_is_refused(home: Path) -> None:
    done = run(home, "--only", "no_such_program")
    assert done.returncode == 2
    assert "no_such_program" in done.stderr
