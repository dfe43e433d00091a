"""`make mutants`: break one promise at a time, and require that a test notices.

Each break is made in a copy of the package, which stands before the installed one in PYTHONPATH. First the
tests must pass on the unbroken copy. `run.py WORD` tries only the breaks with that word in promise or name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.mutants.breaks import BREAKS, Break  # noqa: E402 - found by the line above

SEEDS = "80"
TIMEOUT = 600.0
FAILED = 1  # pytest's word for "tests ran, and some failed"; anything else says nothing of the break


@dataclass(frozen=True)
class Verdict:
    """What became of one break."""

    broken: Break
    caught: bool
    seconds: float
    why: str = ""


def main(words: Sequence[str]) -> int:
    chosen = [each for each in BREAKS if all(word in f"{each.promise} {each.name}" for word in words)]
    stale = [each for each in chosen if _source(each).count(each.old) != 1]
    for each in stale:
        print(f"STALE     {each.promise}: {each.name}\n          not found once in {each.file}: {each.old!r}")
    if stale or not chosen:
        return 2
    if why := unbroken(chosen):
        print(f"The tests fail without any break:\n{why}")
        return 2
    survived = 0
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for verdict in pool.map(try_break, chosen):
            survived += not verdict.caught
            word = "caught" if verdict.caught else "SURVIVED"
            print(
                f"{word:<9} {verdict.seconds:5.1f} s  {verdict.broken.promise:<22} {verdict.broken.name}",
                flush=True,
            )
            if verdict.why:
                print(verdict.why)
    print(f"{len(chosen) - survived} of {len(chosen)} breaks were caught")
    return 1 if survived else 0


def _source(broken: Break) -> str:
    return (REPOSITORY / "src" / "headcount" / broken.file).read_text()


def unbroken(chosen: Iterable[Break]) -> str:
    """Return what the tests say of the unbroken package, "" if they pass."""
    tests = sorted({test for each in chosen for test in each.tests})
    with _copy(None) as folder:
        where = subprocess.run(
            (sys.executable, "-c", "import headcount; print(headcount.__file__)"),
            cwd=REPOSITORY,
            env=_environ(folder),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        if not where.startswith(str(folder)):
            return f"the copy is not what is tested, but {where}"
        done = _pytest(folder, tests, "-n", "2")
    return "" if done.returncode == 0 else done.stdout


def try_break(broken: Break) -> Verdict:
    """Make one break and run its tests."""
    began = time.monotonic()
    with _copy(broken) as folder:
        done = _pytest(folder, broken.tests, "-x")
    seconds = time.monotonic() - began
    if done.returncode == FAILED:
        return Verdict(broken, caught=True, seconds=seconds)
    return Verdict(
        broken, caught=False, seconds=seconds, why="" if done.returncode == 0 else done.stdout[-2000:]
    )


class _copy:  # noqa: N801 - reads as the verb it is
    """A copy of the package with one break in it, for as long as it is needed."""

    def __init__(self, broken: Break | None) -> None:
        self._broken = broken
        self._folder = Path(tempfile.mkdtemp(prefix="headcount-mutant-"))

    def __enter__(self) -> Path:
        package = self._folder / "headcount"
        shutil.copytree(
            REPOSITORY / "src" / "headcount", package, ignore=shutil.ignore_patterns("__pycache__")
        )
        if self._broken is not None:
            file = package / self._broken.file
            file.write_text(file.read_text().replace(self._broken.old, self._broken.new))
        return self._folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)


def _environ(folder: Path) -> dict[str, str]:
    """Return the environment in which the copied package stands before the installed one."""
    ours = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "HEADCOUNT_SEEDS": SEEDS}
    return {**os.environ, **ours}


def _pytest(folder: Path, tests: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the copied package."""
    command = (sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "--timeout=120")
    return subprocess.run(
        (*command, *options, *tests),
        cwd=REPOSITORY,
        env=_environ(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
