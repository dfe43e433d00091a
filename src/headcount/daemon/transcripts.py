"""Writes the readable transcripts of live runs whose stream is not made for people.

In a thread of its own, woken when such a run has written: a view may lag, a headcount may not.
"""

from __future__ import annotations

import threading
from typing import Final

import structlog

from headcount.domain.model import RunKey
from headcount.harnesses.base import Harness
from headcount.runtimes.transcript import Transcript
from headcount.services.context import Context

GATHER: Final = 0.1
"""Seconds in which further output is gathered, so that a stream of words is not a stream of writes."""
REST: Final = 3.0
"""How many times as long as it worked it rests: while it works, status calls wait for the interpreter."""


class Transcripts:
    """The transcripts that are being written. `wrote` and `over` may be called from any thread."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._open: Final[dict[RunKey, Transcript]] = {}
        self._news: Final[dict[RunKey, bool]] = {}  # run -> whether it is over
        self._change: Final = threading.Condition()
        self._ended = False
        self.failures = 0

    def follow(self, key: RunKey, path: str, harness: Harness) -> None:
        """Write the transcript of this run from now on."""
        with self._change:
            if key not in self._open:
                self._open[key] = Transcript(path, self._context.placement, harness.read)
        self.wrote(key)

    def wrote(self, key: RunKey) -> None:
        """Take note that a run has written."""
        self._tell(key, over=False)

    def over(self, key: RunKey) -> None:
        """Take note that a run has ended: what is left of it is written, then it is forgotten."""
        self._tell(key, over=True)

    def end(self) -> None:
        with self._change:
            self._ended = True
            self._change.notify()

    def run(self) -> None:
        """Write what there is to write, until `end`."""
        while not self._ended:
            for key, over in self._due():
                began = self._context.clock.monotonic()
                if self._advance(key, over=over):  # the others first: a flood has always more
                    self._tell(key, over=over)
                self._rest(REST * (self._context.clock.monotonic() - began))

    def _rest(self, seconds: float) -> None:
        with self._change:
            self._change.wait_for(lambda: self._ended, seconds)

    def _tell(self, key: RunKey, *, over: bool) -> None:
        with self._change:
            if key in self._open:
                self._news[key] = over or self._news.get(key, False)
                self._change.notify()

    def _due(self) -> list[tuple[RunKey, bool]]:
        with self._change:
            self._change.wait_for(lambda: self._news or self._ended)
            self._change.wait_for(lambda: self._ended, GATHER)
            due = list(self._news.items())
            self._news.clear()
        return due

    def _advance(self, key: RunKey, *, over: bool) -> bool:
        """Write a piece; return whether there is more to write at once."""
        more = False
        try:
            more = self._open[key].advance(over=over)
        except Exception:  # noqa: BLE001  one run's view must not end the others'
            self.failures += 1
            self._log.exception("transcript_failed", run=str(key))
        if over and not more:
            with self._change:
                del self._open[key]
                self._news.pop(key, None)
        return more
