"""The live runners, as the kernel tells of them: where they begin, and when they end."""

from __future__ import annotations

import contextlib
import os
import re
import select
from collections import deque
from typing import Final

from headcount.daemon.inotify import CREATE, DELETE, MODIFY, MOVED_TO, OVERFLOW, Inotify, Note
from headcount.daemon.transcripts import Transcripts
from headcount.domain.model import LockState, RunKey
from headcount.runtimes import records
from headcount.services.context import Context

_MARK: Final = re.compile(r"(?P<agent>[A-Za-z][A-Za-z0-9_-]*)\.(?P<n>[1-9][0-9]*)")
NONE: Final[dict[RunKey, str]] = {}

BEGUN: Final = (records.START, records.EXIT, records.VOID)
"""Records from which on there is a runner to follow, or none to wait for."""

Over = dict[RunKey, str]
"""Runs that seem to be over, each with its directory."""


class Runners:
    """Attached to each live run by a pidfd of its runner, which nothing but its end makes readable.

    A new mark in `live/` leads to the run's directory, a record that appears there to the runner.
    """

    def __init__(self, context: Context, inotify: Inotify, transcripts: Transcripts) -> None:
        self._context: Final = context
        self._transcripts: Final = transcripts
        self._live: Final = os.fspath(context.home.live)
        self._inotify: Final = inotify
        self._epoll: Final = select.epoll()
        self._ends: Final[dict[int, tuple[RunKey, str]]] = {}  # pidfd -> run
        self._dirs: Final[dict[int, RunKey]] = {}  # watch of a run directory -> run
        self._notes: Final[deque[Note]] = deque()  # not heard yet
        self._looked = context.clock.monotonic()
        self._epoll.register(inotify.fd, select.EPOLLIN)
        self._marks: Final = inotify.add(self._live, CREATE | MOVED_TO | DELETE)

    def wait(self, timeout: float) -> Over:
        """Wait for word, at most `timeout` seconds; return what it says is over.

        Ends go before all else: of a hundred deploys at once no second one is met while an end waits.
        Every `timeout` seconds there is a look around, which finds whatever was missed.
        """
        ready = [fd for fd, _ in self._epoll.poll(0 if self._notes else timeout)]
        over: Over = {}
        for fd in [fd for fd in ready if fd in self._ends]:
            over |= self._gone(fd)
        if over:
            return over
        quiet = not (ready or self._notes)
        if quiet or self._context.clock.monotonic() - self._looked >= timeout:
            return self.look_around()
        if not self._notes:
            self._notes.extend(self._inotify.read())
        return self._heard(self._notes.popleft()) if self._notes else NONE

    def look_around(self) -> Over:
        """Attach to every marked run that is not attached to yet."""
        self._looked = self._context.clock.monotonic()
        known = {key for key, _ in self._ends.values()}
        over: Over = {}
        for name in os.listdir(self._live):
            if (key := _key(name)) and key not in known:
                over |= self._meet(key)
        return over

    def _gone(self, fd: int) -> Over:
        self._epoll.unregister(fd)
        key, path = self._ends.pop(fd)
        os.close(fd)
        self._forget(key)  # what was written last says nothing new
        return self._is_over(key, path)

    def _heard(self, note: Note) -> Over:
        if note.mask & OVERFLOW:
            return self.look_around()
        if note.wd == self._marks:
            key = _key(note.name)
            if key is None:
                return NONE
            return self._forget(key) if note.mask & DELETE else self._meet(key)
        key = self._dirs.get(note.wd)
        if key is None or note.mask & MODIFY:
            return self._wrote(key)
        return self._attach(key) if note.name in BEGUN else NONE

    def _wrote(self, key: RunKey | None) -> Over:
        if key is not None:
            self._transcripts.wrote(key)
        return NONE

    def _meet(self, key: RunKey) -> Over:
        """Watch a run's directory for its records, then attach to its runner if it is there already."""
        path = self._path(key)
        if path is None:
            return NONE
        heard = MOVED_TO | (MODIFY if self._transcribe(key, path) else 0)
        with contextlib.suppress(OSError):  # no more watches, or gone: the look around still finds it
            self._dirs[self._inotify.add(path, heard)] = key
        return self._attach(key) if any(os.path.exists(f"{path}/{name}") for name in BEGUN) else NONE

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

    def _forget(self, key: RunKey) -> Over:
        for wd in [wd for wd, each in self._dirs.items() if each == key]:
            del self._dirs[wd]
            self._inotify.drop(wd)
        return NONE

    def _attach(self, key: RunKey) -> Over:
        """Open a pidfd of the run's runner; return the run if it is over instead."""
        path = self._path(key)
        if path is None or any(key == each for each, _ in self._ends.values()):
            return NONE
        seen = self._context.placement.look_at(key, path)
        if seen.lock is LockState.HELD and seen.runner_pid is not None:
            return NONE if self._pin(key, path, seen.runner_pid) else self._is_over(key, path)
        if seen.lock is LockState.FREE and (seen.exit or seen.void or seen.start):
            return self._is_over(key, path)
        return NONE

    def _is_over(self, key: RunKey, path: str) -> Over:
        self._transcripts.over(key)
        return {key: path}

    def _pin(self, key: RunKey, path: str, pid: int) -> bool:
        """Follow the runner by a pidfd; False if it has ended meanwhile."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if self._context.placement.look_at(key, path).runner_pid != pid:
            os.close(fd)  # it ended between the look and the pidfd, which may be of a stranger
            return False
        self._ends[fd] = (key, path)
        self._epoll.register(fd, select.EPOLLIN)
        return True

    def _path(self, key: RunKey) -> str | None:
        try:
            return os.path.normpath(os.path.join(self._live, os.readlink(f"{self._live}/{key}")))
        except OSError:
            return None


def _key(name: str) -> RunKey | None:
    match = _MARK.fullmatch(name)
    return RunKey(match["agent"], int(match["n"])) if match else None
