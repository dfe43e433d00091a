"""The agent program as a child of the driver: lines out of it, lines into it, its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

CHUNK = 65536
LINE_MAX = 32_000_000
"""Bytes of a line that are read as one; what is longer is passed on, and nobody reads it."""
SIGNALLED = 128
"""By a shell's custom, a program that signal n has ended has the exit code 128 + n."""


class Agent:
    """Both pipes are asynchronous: a program that does not read while it writes blocks nobody."""

    def __init__(self, argv: list[str]) -> None:
        theirs_in, self.stdin = os.pipe()
        self.stdout, theirs_out = os.pipe()
        for fd in (self.stdin, self.stdout):
            os.set_blocking(fd, False)
        self.pid = os.posix_spawnp(
            argv[0],
            argv,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs_in, 0), (os.POSIX_SPAWN_DUP2, theirs_out, 1)],
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.code: int | None = None  # once it has ended
        self.reading = True
        self._unread = b""
        self._skipping = False
        self._unsent = bytearray()

    @property
    def writing(self) -> bool:
        """Whether something waits until it reads."""
        return bool(self._unsent) and self.stdin >= 0

    def send(self, line: bytes) -> None:
        self._unsent += line + b"\n"
        self.flush()

    def flush(self) -> None:
        """Hand over what it takes now; what a dead program was to get is forgotten."""
        while self.writing:
            try:
                written = os.write(self.stdin, self._unsent[:CHUNK])
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            del self._unsent[:written]

    def close(self) -> None:
        """End its input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
        self._unsent.clear()

    def lines(self) -> Iterator[bytes]:
        """Yield what it has written, line by line, without waiting. What is no whole line, or too long for
        one, is passed on at once."""
        while self.reading:
            try:
                chunk = os.read(self.stdout, CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                self.reading = False
                if self._unread:
                    write(self._unread + b"\n")  # a torn last line
                return
            yield from self._split(chunk)

    def _split(self, chunk: bytes) -> Iterator[bytes]:
        *whole, rest = (self._unread + chunk).split(b"\n") if b"\n" in chunk else (self._unread + chunk,)
        self._unread = rest
        for line in whole:
            if self._skipping:
                self._skipping = False
                write(line + b"\n")
            else:
                yield line
        if len(rest) > LINE_MAX:
            write(rest)
            self._unread, self._skipping = b"", True

    def ended(self) -> bool:
        """Say whether it has ended; then `code` is its exit code."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else SIGNALLED - code
        return self.code is not None

    def signal(self, number: int) -> None:
        if not self.ended():
            os.kill(self.pid, number)

    def wait(self, seconds: float, take: Callable[[bytes], None]) -> bool:
        """Wait for its end while `take` gets the lines that it writes; say whether it has ended."""
        until = time.monotonic() + seconds
        while not self.ended():
            self._give(take)
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        self._give(take)
        return True

    def _give(self, take: Callable[[bytes], None]) -> None:
        for line in self.lines():
            take(line)


def write(data: bytes) -> None:
    """Write to our own output, all of it."""
    while data:
        data = data[os.write(1, data) :]
