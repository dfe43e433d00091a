"""Whether the daemon's loops come round: what a service manager's watchdog is told depends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PATIENCE: Final = 120.0
"""Seconds beyond its own pause in which a loop comes round, on a machine that does much else. What it waits
for (the registry, tmux, git) has its own time-outs, of up to 30 s."""


class Progress:
    """When each loop last came round. A loop that died does so no more."""

    def __init__(self, now: Callable[[], float], *, pause: float) -> None:
        """`now` are seconds that stop while the machine sleeps, `pause` those that a loop may wait."""
        self._now: Final = now
        self._most: Final = pause + PATIENCE
        self._last: Final[dict[str, float]] = {}

    def came_round(self, loop: str) -> None:
        self._last[loop] = self._now()

    def stuck(self) -> list[str]:
        """Return the loops that are overdue."""
        now = self._now()
        return [loop for loop, last in self._last.items() if now - last > self._most]
