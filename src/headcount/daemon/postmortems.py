"""Makes the post-mortems of runs that are over.

In a thread of its own, which learns from the registry that there is something to do: so it does not matter
who recorded an end, and what was left undone by a daemon that was killed is done by the next.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

import structlog

from headcount.domain.errors import HeadcountError
from headcount.domain.model import RunKey
from headcount.services import postmortem
from headcount.services.context import Context

EVERY: Final = 1.0
"""Seconds between two looks at whether the registry has changed."""
BATCH: Final = 50
TRIES: Final = 3


class PostMortems:
    """The post-mortems that are still to be made."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._over: Final = threading.Event()
        self._failed: Final[Counter[RunKey]] = Counter()
        self._version: int | None = None  # of the registry when all was done
        self.failures = 0

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        """Make what there is to make, until `end`."""
        while not self._over.wait(EVERY):
            try:
                self._look()
            except Exception:  # noqa: BLE001  the edge of the loop: it survives, logs and counts
                self.failures += 1
                self._log.exception("postmortems_failed")

    def _look(self) -> None:
        version = self._context.registry.version()
        if version == self._version:
            return
        given_up = {key for key, times in self._failed.items() if times >= TRIES}
        for key in postmortem.due(self._context, BATCH + len(given_up)):
            if self._over.is_set():
                return
            if key not in given_up:
                self._make(key)
        # of before the look: what ends meanwhile is seen next time. One that waits for its account may get
        # none, and then nothing changes
        self._version = None if postmortem.waiting(self._context) else version

    def _make(self, key: RunKey) -> None:
        try:
            postmortem.make(self._context, key)
        except HeadcountError as error:
            self._fails(key, error.message)
        except Exception:
            self._fails(key, "see the traceback")
            raise

    def _fails(self, key: RunKey, why: str) -> None:
        self._failed[key] += 1
        self.failures += 1
        self._log.warning("postmortem_failed", run=str(key), reason=why, times=self._failed[key])
