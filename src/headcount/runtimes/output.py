"""Reading what a runner kept of an agent's output."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headcount.runtimes.base import OutputSlice

_NAMES: Final = {"output": ("output", ".jsonl"), "stderr": ("stderr", ".log")}
_TRIES: Final = 5


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file that holds the bytes from the absolute `offset` on."""

    offset: int
    size: int
    path: str

    @property
    def end(self) -> int:
        return self.offset + self.size


def segments(path: str, stream: str) -> Sequence[Segment]:
    """Return the segments of a stream, in order; one that is removed while we look is left out."""
    base, suffix = _NAMES[stream]
    found = []
    try:
        names = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    for name in names:
        middle = name[len(base) : len(name) - len(suffix)]
        if name != base + middle + suffix or not _is_offset(middle):
            continue
        try:
            there = os.lstat(f"{path}/{name}")
        except FileNotFoundError:
            continue
        if stat.S_ISREG(there.st_mode):  # nothing else is a runner's
            found.append(Segment(int(middle[1:] or 0), there.st_size, f"{path}/{name}"))
    return sorted(found)


def _is_offset(middle: str) -> bool:
    return not middle or (middle[0] == "." and middle[1:].isdigit())


def read(path: str, *, offset: int, limit: int, stream: str, written: int | None) -> OutputSlice:
    """Read up to `limit` bytes from `offset` on, without a gap inside; see `Placement.read_output`.

    `written` is how many bytes the agent wrote, once that is known: the last of them may be cut as well.
    """
    tries = 0
    while True:
        tries += 1
        parts = segments(path, stream)
        end = max([each.end for each in parts] + [written or 0])
        start = max(end + offset, 0) if offset < 0 else offset
        try:
            return _slice(parts, start, limit, end)
        except FileNotFoundError:  # the oldest segment was removed meanwhile
            if tries == _TRIES:
                return OutputSlice(b"", start, 0, end)


def _slice(parts: Sequence[Segment], start: int, limit: int, end: int) -> OutputSlice:
    begin = next((max(each.offset, start) for each in parts if each.end > start), max(start, end))
    data = bytearray()
    for each in parts:
        at = begin + len(data)
        if each.offset <= at < each.end and len(data) < limit:
            with open(each.path, "rb", opener=_opened) as file:
                file.seek(at - each.offset)
                data += file.read(min(limit - len(data), each.end - at))
    return OutputSlice(bytes(data), begin, begin - start, end)


def _opened(path: str, flags: int) -> int:
    """Open a file: not what a link in its place, which the agent may have made, points to."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(errno.ENOENT, "it is a link", path) from error
        raise
