"""A wall clock that a test moves, by libfaketime; spans are measured by clocks that it leaves alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import needs

YEAR = 365 * 86400
_SITE = Path(__file__).parent / "programs" / "clock"


class Clock:
    """The wall clock of all processes that are started with `env`, the running ones too."""

    def __init__(self, place: Path) -> None:
        faketime = needs.program("faketime", how="apt-get install faketime")
        show = [faketime, "-f", "+0", "sh", "-c", 'echo "$LD_PRELOAD"']
        library = subprocess.run(show, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        self._file = place / "clock"
        self.move(0)
        self.env = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # nor CLOCK_BOOTTIME
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": str(_SITE),
        }

    def move(self, seconds: int) -> None:
        """Set the clock to the true time and `seconds`, at once."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        os.replace(new, self._file)
