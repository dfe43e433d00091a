"""Keeps one output stream of an agent within a bound.

Part of the runner's compiled copy (see `program`), so it imports nothing but built-in modules.
"""

from __future__ import annotations

import posix

CHUNK = 1 << 16
MAX_SEGMENTS = 16


class Stream:
    """Keeps one stream of the agent: all of it up to `cap` bytes, beyond that the head and a moving tail.

    The head is half of the cap. What follows goes to segments of a quarter each, named by the absolute
    offset of their first byte; when the last one is full the oldest is removed. Bytes that a full disk
    does not take are counted as cut, and the next segment begins behind them.
    """

    def __init__(self, fd: int, base: str, suffix: str, cap: int) -> None:
        self.fd = fd
        self.base = base
        self.suffix = suffix
        self.segment = max(cap // 4, 1)
        self.room = max(cap - 2 * self.segment, 1)
        self.total = 0
        self.cut = 0
        self.tail: list[list[int]] = []  # [offset, bytes] of the segments behind the head
        self.out = self._open(base + suffix)
        self.reading = True

    @staticmethod
    def _open(name: str) -> int:
        """Open a new file; no link that the agent has put in its place is followed."""
        return posix.open(name, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW, 0o600)

    def _name(self, offset: int) -> str:
        return "%s.%d%s" % (self.base, offset, self.suffix)

    def pump(self) -> bool:
        """Move one chunk; return whether there was one."""
        try:
            chunk = posix.read(self.fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self.reading = False
            return False
        self.keep(chunk)
        return True

    def keep(self, data: bytes) -> None:
        """Write `data`, or count what cannot be written."""
        while data:
            try:
                if not self.room:
                    self._rotate()
                written = posix.write(self.out, data if len(data) <= self.room else data[: self.room])
            except OSError:
                self._skip(len(data))
                return
            self.total += written
            self.room -= written
            data = data[written:]
            if self.tail:
                self.tail[-1][1] += written
                self._trim()

    def _rotate(self) -> None:
        """Go on in a new segment."""
        self.close()
        self.out = self._open(self._name(self.total))
        self.room = self.segment
        self.tail.append([self.total, 0])

    def _trim(self) -> None:
        """Remove the oldest segments that the cap has no room for beside the one being written."""
        while len(self.tail) > MAX_SEGMENTS or sum(size for _, size in self.tail[:-1]) > self.segment:
            offset, size = self.tail.pop(0)
            self.cut += size
            self._unlink(offset)

    def _skip(self, count: int) -> None:
        """Count bytes that could not be written; what follows needs a segment with its own offset."""
        self.close()
        if self.tail and not self.tail[-1][1]:
            self._unlink(self.tail.pop()[0])
        self.room = 0
        self.total += count
        self.cut += count

    def _unlink(self, offset: int) -> None:
        try:
            posix.unlink(self._name(offset))
        except OSError:
            pass  # the run directory was moved or removed: nothing is left to trim

    def close(self) -> None:
        if self.out >= 0:
            posix.close(self.out)
            self.out = -1
