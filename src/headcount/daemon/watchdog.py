"""Looks at live runs again and again, and does what their policies say.

Its clock counts what was watched: between two looks no more than they should be apart. A machine that slept,
or a daemon that was halted, has seen nothing meanwhile, so nothing fires for that time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from headcount.domain.errors import HeadcountError
from headcount.domain.model import Run
from headcount.services import watchdog
from headcount.services.context import Context

LATE: Final = 2.0
"""How many times the pause between two looks counts at most: a busy machine makes them late."""


class Watchdog:
    """The looks of one daemon."""

    def __init__(self, context: Context, *, remember: Callable[[Run], None]) -> None:
        self._context: Final = context
        self._remember: Final = remember
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._over: Final = threading.Event()
        self._memory: Final = watchdog.Memory()
        self._looked: float | None = None  # by the monotonic clock
        self._watched = 0.0
        self.failures = 0

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        """Look and act, until `end`."""
        while not self._over.is_set():
            try:
                self.look()
            except Exception:  # noqa: BLE001  the edge of the loop: it survives, logs and counts
                self.failures += 1
                self._log.exception("watchdog_failed")
            self._over.wait(self._context.settings.watchdog_every)

    def look(self) -> None:
        """Look once, and act."""
        now = self._context.clock.monotonic()
        if self._looked is not None:
            self._watched += min(now - self._looked, LATE * self._context.settings.watchdog_every)
        self._looked = now
        for due in watchdog.tick(self._context, self._memory, self._watched):
            self._act(due)
        watchdog.tell_of_ended(self._context)

    def _act(self, due: watchdog.Due) -> None:
        try:
            watchdog.act(self._context, due, self._watched, remember=self._remember)
        except HeadcountError as error:
            self._log.info("watchdog_did_not_act", run=str(due.flag.key), reason=error.code)
        else:
            self._log.info(
                "watchdog_acted", run=str(due.flag.key), kind=due.flag.kind, action=due.flag.action
            )
