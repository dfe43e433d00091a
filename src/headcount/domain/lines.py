"""Lines of a stream of bytes that may be long, have lines of any length, and have lost a part in the middle.

Offsets are absolute: as the agent wrote the bytes. Where bytes were lost, the line before ends and a new one
begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

BLOCK: Final = 256 * 1024
"""Bytes of one read."""

LINE_MAX: Final = 16 * 1024 * 1024
"""Bytes of one line that are held in memory; of a longer one the beginning."""


class Slice(Protocol):
    """Bytes from `offset` on; `end` is behind the last byte ever written. Empty: nothing is there."""

    @property
    def data(self) -> bytes: ...
    @property
    def offset(self) -> int: ...
    @property
    def end(self) -> int: ...


Read = Callable[[int, int], Slice]
"""Read from an absolute offset up to so many bytes, without a gap inside; lost bytes are stepped over."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `data` is without its line feed; of a line longer than `LINE_MAX` it is the beginning."""

    start: int
    end: int  # behind the line feed, if it has one
    data: bytes
    terminated: bool

    @property
    def size(self) -> int:
        return self.end - self.start - self.terminated


def spans(read: Read, start: int, end: int, *, block: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """Yield what is there between two offsets, in order, each piece with its offset."""
    at = start
    while at < end:
        found = read(at, min(block, end - at))
        data = found.data[: max(0, end - found.offset)]
        if not data:
            return
        yield found.offset, data
        at = found.offset + len(data)


class _Pending:
    """A line of which not all pieces are there yet; never holds much more than `LINE_MAX`."""

    def __init__(self, at: int) -> None:
        self.start = self.end = at
        self._pieces: deque[bytes] = deque()
        self._held = 0

    def __bool__(self) -> bool:
        return self.end > self.start

    def append(self, piece: bytes) -> None:
        self.end += len(piece)
        if self._held < LINE_MAX:
            self._pieces.append(piece)
            self._held += len(piece)

    def prepend(self, piece: bytes) -> None:
        self.start -= len(piece)
        self._pieces.appendleft(piece)
        self._held += len(piece)
        while self._held - len(self._pieces[-1]) >= LINE_MAX:
            self._held -= len(self._pieces.pop())

    def line(self, *, terminated: bool) -> Line:
        data = b"".join(self._pieces)[:LINE_MAX]
        return Line(self.start, self.end + terminated, data, terminated)


def forward(read: Read, start: int, end: int) -> Iterator[Line]:
    """Yield the lines from `start`, where one is taken to begin, to `end`; the last may have no line feed."""
    pending = _Pending(start)
    for at, data in spans(read, start, end):
        if at != pending.end:
            if pending:
                yield pending.line(terminated=False)
            pending = _Pending(at)
        first, *others = data.split(b"\n")
        pending.append(first)
        if not others:
            continue
        yield (line := pending.line(terminated=True))
        begin = line.end
        for piece in others[:-1]:  # the most of them by far: not one of them needs to be pieced together
            end_of_line = begin + len(piece) + 1
            yield Line(begin, end_of_line, piece[:LINE_MAX], terminated=True)
            begin = end_of_line
        pending = _Pending(begin)
        pending.append(others[-1])
    if pending:
        yield pending.line(terminated=False)


def backward(read: Read, end: int) -> Iterator[Line]:
    """Yield the lines before `end`, the last first. Reads no more than it has to."""
    pending, terminated = _Pending(end), False
    for at, data in _spans_backward(read, end):
        if at + len(data) != pending.start:
            if pending or terminated:
                yield pending.line(terminated=terminated)
            pending, terminated = _Pending(at + len(data)), False
        first, *others = data.split(b"\n")
        for piece in reversed(others):
            pending.prepend(piece)
            if pending or terminated:
                yield pending.line(terminated=terminated)
            pending, terminated = _Pending(pending.start - 1), True
        pending.prepend(first)
    if pending or terminated:
        yield pending.line(terminated=terminated)


def _spans_backward(read: Read, end: int) -> Iterator[tuple[int, bytes]]:
    while end > 0:
        start = max(0, end - BLOCK)
        yield from reversed(list(spans(read, start, end)))
        end = start


def count_lines(read: Read, start: int, end: int) -> tuple[int, int]:
    """Return how many lines and how many bytes are there between two offsets where lines begin."""
    lines = size = 0
    last, at_end = start, b"\n"
    for at, data in spans(read, start, end, block=4 * BLOCK):
        lines += data.count(b"\n") + (at != last and at_end != b"\n")
        size += len(data)
        last, at_end = at + len(data), data[-1:]
    return lines + (at_end != b"\n"), size
