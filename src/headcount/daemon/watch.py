"""Keeps the count right while the daemon lives.

Two threads, beside the one that writes transcripts. The first is pushed by the kernel: a new mark in
`live/` or a start record leads it to the runner, whose end it learns of through a pidfd, and records at
once. The second does the whole headcount, views included, every few seconds and after each end; it may
wait for tmux, the first never does.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from headcount.daemon.inotify import CREATE, DELETE, MODIFY, MOVED_TO, OVERFLOW, Inotify, Note
from headcount.daemon.transcripts import Transcripts
from headcount.domain.model import LockState, RunKey
from headcount.runtimes import records
from headcount.services import headcount, settle
from headcount.services.context import Context

POLL: Final = 0.25
"""Seconds between looks where the kernel does not tell us."""
AFTER_AN_END: Final = 0.15
"""Seconds in which further ends are gathered before the whole headcount that closes their views."""
AFTER_A_FAILURE: Final = 1.0

_MARK: Final = re.compile(r"(?P<agent>[A-Za-z][A-Za-z0-9_-]*)\.(?P<n>[1-9][0-9]*)")


class Kept(Protocol):
    def keep(self) -> None: ...


class Watch:
    """The supervision. Exceptions in it are logged and counted; they end nothing."""

    def __init__(self, context: Context, held: Kept, *, pushed: bool = hasattr(os, "pidfd_open")) -> None:
        self._context: Final = context
        self._held: Final = held
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._kernel: Final = _kernel() if pushed else None
        self._transcripts: Final = Transcripts(context)
        self._due: Final = threading.Event()
        self._over: Final = threading.Event()
        self._headcounts = self._failures = self._ends = 0

    def begin(self) -> None:
        """Start the threads."""
        for work in (self._follow, self._count, self._transcripts.run):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def end(self) -> None:
        """Let the threads end, without waiting for them: agents need nothing of us."""
        self._over.set()
        self._transcripts.end()
        self._due.set()

    def counters(self) -> dict[str, Any]:
        """Return what has been done since the start."""
        failures = self._failures + self._transcripts.failures
        return {"headcounts": self._headcounts, "ends_noticed": self._ends, "failures": failures}

    # the headcount

    def _count(self) -> None:
        while not self._over.is_set():
            self._safely(self._headcount)
            self._due.wait(self._context.settings.headcount_every)
            if self._due.is_set() and not self._over.wait(AFTER_AN_END):
                self._due.clear()

    def _headcount(self) -> None:
        done = headcount.tick(self._context)
        self._held.keep()
        self._headcounts += 1
        for each in done:
            self._log.info("headcount_acted", kind=each.kind, subject=each.subject, action=each.action)

    # what the kernel tells

    def _follow(self) -> None:
        if self._kernel is None:
            while not self._over.wait(POLL):
                self._safely(self._observe)
            return
        runners = Runners(self._context, self._kernel, self._transcripts)
        self._safely(runners.look_around)
        while not self._over.is_set():
            self._safely(lambda: self._step(runners))

    def _step(self, runners: Runners) -> None:
        if runners.wait(self._context.settings.headcount_every):
            self._observe()

    def _observe(self) -> None:
        """Record every end that can be seen."""
        settled = settle.observe(self._context)
        self._ends += len(settled)
        for each in settled:
            self._log.info("run_settled", run=str(each.row.key), action=type(each.action).__name__)
        self._due.set()

    def _safely(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001  the edge of the loop: it survives, logs and counts
            self._failures += 1
            self._log.exception("supervision_failed", work=getattr(work, "__name__", "step"))
            self._over.wait(AFTER_A_FAILURE)


def _kernel() -> Inotify | None:
    try:
        return Inotify()
    except OSError:
        return None


class Runners:
    """The live runners, each with a pidfd that tells of its end."""

    def __init__(self, context: Context, inotify: Inotify, transcripts: Transcripts) -> None:
        self._context: Final = context
        self._transcripts: Final = transcripts
        self._live: Final = os.fspath(context.home.live)
        self._inotify: Final = inotify
        self._epoll: Final = select.epoll()
        self._ends: Final[dict[int, RunKey]] = {}  # pidfd -> run
        self._dirs: Final[dict[int, RunKey]] = {}  # watch of a run directory -> run
        self._epoll.register(inotify.fd, select.EPOLLIN)
        self._marks: Final = inotify.add(self._live, CREATE | MOVED_TO | DELETE)

    def wait(self, timeout: float) -> bool:
        """Wait for word; return whether something may have ended. With no word for `timeout` seconds,
        look around: whatever was missed is found then."""
        ready = self._epoll.poll(timeout)
        if not ready:
            return self.look_around()
        over = [self._gone(fd) for fd, _ in ready if fd in self._ends]
        heard = [
            self._heard(note) for fd, _ in ready if fd == self._inotify.fd for note in self._inotify.read()
        ]
        return any(over) or any(heard)

    def look_around(self) -> bool:
        """Attach to every marked run that is not attached to yet."""
        known = {*self._ends.values()}
        marked = [key for name in os.listdir(self._live) if (key := _key(name)) and key not in known]
        over = [self._meet(key) for key in marked]  # all of them, not only up to the first
        return any(over)

    def _gone(self, fd: int) -> bool:
        self._epoll.unregister(fd)
        self._transcripts.over(self._ends.pop(fd))
        os.close(fd)
        return True

    def _heard(self, note: Note) -> bool:
        """Act on one note; return whether something may have ended."""
        if note.mask & OVERFLOW:
            return self.look_around()
        if note.wd == self._marks:
            key = _key(note.name)
            if key is None:
                return False
            return self._forget(key) if note.mask & DELETE else self._meet(key)
        key = self._dirs.get(note.wd)
        if key is not None and note.mask & MODIFY:
            self._transcripts.wrote(key)
            return False
        return key is not None and note.name.endswith(".json") and self._attach(key)

    def _meet(self, key: RunKey) -> bool:
        """Watch a run's directory for its records, then attach to its runner if it is there already."""
        path = self._path(key)
        if path is None:
            return False
        heard = MOVED_TO | (MODIFY if self._transcribe(key, path) else 0)
        with contextlib.suppress(OSError):  # no more watches, or gone: the look around still finds it
            self._dirs[self._inotify.add(path, heard)] = key
        return self._attach(key)

    def _transcribe(self, key: RunKey, path: str) -> bool:
        """Have a transcript written if the run's stream wants one."""
        try:
            order = records.read_order(path)
        except records.Unreadable:
            return False
        if order is None or not order.renders:
            return False
        self._transcripts.follow(key, path, self._context.harness(order.harness))
        return True

    def _forget(self, key: RunKey) -> bool:
        for wd in [wd for wd, each in self._dirs.items() if each == key]:
            del self._dirs[wd]
            self._inotify.drop(wd)
        return False

    def _attach(self, key: RunKey) -> bool:
        """Open a pidfd of the run's runner; return whether the run is over instead."""
        path = self._path(key)
        if path is None or key in self._ends.values():
            return False
        seen = self._context.placement.look_at(key, path)
        if seen.lock is not LockState.HELD or seen.runner_pid is None:
            over = seen.lock is LockState.FREE and (seen.exit or seen.void or seen.start) is not None
            if over:
                self._transcripts.over(key)
            return over
        try:
            fd = os.pidfd_open(seen.runner_pid)
        except ProcessLookupError:
            return True
        if self._context.placement.look_at(key, path).runner_pid != seen.runner_pid:
            os.close(fd)  # it ended between the look and the pidfd, which may be of a stranger
            return True
        self._ends[fd] = key
        self._epoll.register(fd, select.EPOLLIN)
        return False

    def _path(self, key: RunKey) -> str | None:
        try:
            return os.path.normpath(os.path.join(self._live, os.readlink(f"{self._live}/{key}")))
        except OSError:
            return None


def _key(name: str) -> RunKey | None:
    match = _MARK.fullmatch(name)
    return RunKey(match["agent"], int(match["n"])) if match else None
