"""Tells hooks what happens: a thread for each, so that one that hangs holds up no other.

Each learns from the registry that there is something to do: it does not matter who wrote the event, and what
a daemon that was killed left undone is done by the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from headcount.domain.notices import Hook, NoticeState
from headcount.services import notify
from headcount.services.context import Context

EVERY: Final = 0.5
"""Seconds between two looks at whether there is something to tell."""


class Notices:
    """The hooks of the settings, as they were when the daemon began."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._over: Final = threading.Event()
        self._begun: Final = threading.Event()
        self.failures = 0

    def end(self) -> None:
        self._over.set()

    def works(self) -> Sequence[Callable[[], None]]:
        """Return what is to run, each in a thread of its own."""
        return [self._begin, *(_follower(self, hook) for hook in self._context.settings.notify)]

    def _begin(self) -> None:
        """Take note of the hooks, which needs the registry: where that fails, until it does not."""
        while not self._begun.is_set() and not self._over.is_set():
            self._safely(self._take_note)
            if not self._begun.is_set():
                self._over.wait(EVERY)

    def _take_note(self) -> None:
        notify.begin(self._context)
        self._begun.set()

    def follow(self, hook: Hook) -> None:
        """Tell a hook what there is to tell, until `end`."""
        version: object = None  # of the registry when nothing was left to be told
        while not self._over.wait(EVERY):
            if not self._begun.is_set():
                continue
            now = self._safely(self._context.registry.version)
            if now is not None and now != version:
                version = now if self._safely(lambda: self._look(hook)) else None

    def _look(self, hook: Hook) -> bool:
        """Tell what is due; return whether nothing is left, now or later."""
        while notify.collect(self._context, hook) and not self._over.is_set():
            pass
        for notice in notify.due(self._context, hook):
            if self._over.is_set():
                return False
            state = notify.deliver(self._context, hook, notice)
            if state is not NoticeState.DELIVERED:
                self.failures += 1
                self._log.warning("notice_not_delivered", hook=hook.name, notice=notice.id, state=state.value)
                return False  # the others at the next look: a hook that is down is not tried at once for each
        return not notify.queued(self._context, hook)

    def _safely(self, work: Callable[[], object]) -> object:
        try:
            return work()
        except Exception:  # noqa: BLE001  the edge of the loop: it survives, logs and counts
            self.failures += 1
            self._log.exception("notify_failed")
            return None


def _follower(notices: Notices, hook: Hook) -> Callable[[], None]:
    def follow() -> None:
        notices.follow(hook)

    return follow
