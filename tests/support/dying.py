"""Processes that are killed with SIGKILL at one of the boundaries of what they do to a fleet."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).parent / "programs" / "dying.py"
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Dying:
    """Runs `code`, which has `fleet` and `given`, in one process each time."""

    process: subprocess.Popen[str]
    home: Path

    def boundaries(self, code: str, *given: str) -> int:
        """Run the whole of it; return how many boundaries it has."""
        status, passed, said = self._ask(-1, code, given)
        assert status == 0, said
        return passed

    def died(self, at: int, code: str, *given: str) -> bool:
        """Return whether it was killed at boundary `at`; else it got to its end before."""
        status, passed, said = self._ask(at, code, given)
        assert status in {0, -signal.SIGKILL}, (at, said)
        assert status or passed <= at, (at, passed)
        return status != 0

    def _ask(self, at: int, code: str, given: tuple[str, ...]) -> tuple[int, int, str]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([at, str(self.home), code, given]) + "\n")
        self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], f"boundary {at}: no end"
        status, passed, said = json.loads(self.process.stdout.readline())
        return status, passed, said


@contextmanager
def dying(home: Path) -> Iterator[Dying]:
    process = subprocess.Popen(
        [sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Dying(process, home)
        finally:
            process.kill()
