"""The readable text of a run whose stream is not made for people, for its view and for `less`.

Written by the daemon while the run lives, from the run's own output: it can be lost and written again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

from headcount.domain.entries import Entry
from headcount.domain.errors import Infrastructure
from headcount.domain.transcript import render
from headcount.runtimes.base import OutputSlice, Placement

LINE_MAX: Final = 1_000_000
"""Bytes of a line that are rendered, and of output that are read at once; a longer line is left out."""
SIZE_MAX: Final = 8_000_000
"""Bytes after which a transcript begins anew; the full one is kept beside it, the one before is gone."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a transcript is. What the file has beyond `size` renders output from `offset` on."""

    offset: int = 0  # of the output: all before it is in the transcript
    size: int = 0  # of the transcript
    in_line: bool = False  # the offset is inside a line that is left out


class Transcript:
    """Follows one run's output. `read` parses one line without its newline, as a harness does.

    Killed at any step, a later one goes on where this one was: nothing is lost or written twice. The
    place is stored after the text, and text beyond the stored size is recognised by its length.
    """

    def __init__(
        self,
        path: str,
        placement: Placement,
        read: Callable[[bytes], Iterable[Entry]],
        *,
        size_max: int = SIZE_MAX,
        line_max: int = LINE_MAX,
    ) -> None:
        self._path = path
        self._placement = placement
        self._read = read
        self._size_max = size_max
        self._line_max = line_max
        self._file = f"{path}/transcript"
        self._place: Place | None = None  # not read yet, or no longer known
        self._ahead = 0  # bytes that a predecessor wrote and did not count

    def advance(self, *, over: bool = False) -> bool:
        """Append what complete lines the run has written, at most about a megabyte of them.

        A line that is still being written is left for later, unless the run is `over`. Returns whether
        there may be more to do at once. Waits for nothing.

        Raises:
            Infrastructure: the transcript cannot be written; the next call tries the same again.
        """
        try:
            place = self._place or self._load()
            piece = self._placement.read_output(self._path, offset=place.offset, limit=self._line_max)
            text, then = self._digest(piece, place, over=over)
            if then != place:
                self._append(text, then)
        except OSError as error:
            self._place = None
            raise Infrastructure(f"the transcript of {self._path} cannot be written: {error}") from error
        return then.offset != place.offset and piece.offset + len(piece.data) < piece.end

    def _digest(self, piece: OutputSlice, place: Place, *, over: bool) -> tuple[bytes, Place]:
        """Return the text of a piece of output and how far it reaches. Touches nothing."""
        lines = "".join(self._lines(piece, place, over=over))
        in_line = not piece.data and (place.in_line or piece.cut > 0)
        taken = piece.data.rfind(b"\n") + 1
        if over and piece.offset + len(piece.data) == piece.end:
            taken = len(piece.data)
        elif not taken and (len(piece.data) >= self._line_max or place.in_line or piece.cut):
            taken, in_line = len(piece.data), True
        return lines.encode(errors="replace"), replace(place, offset=piece.offset + taken, in_line=in_line)

    def _lines(self, piece: OutputSlice, place: Place, *, over: bool) -> Iterator[str]:
        """Yield the text of each complete line, and notes on what is left out."""
        if piece.cut:
            yield f"[{piece.cut} bytes left out]\n"
        *lines, rest = piece.data.split(b"\n")
        if over and piece.offset + len(piece.data) == piece.end:
            lines.append(rest)
        elif not lines and len(piece.data) >= self._line_max and not place.in_line:
            yield f"[a line of more than {self._line_max} bytes left out]\n"
        for number, line in enumerate(lines):
            torn = number == 0 and (place.in_line or piece.cut > 0)
            if line and not torn:
                yield from (f"{text}\n" for text in render(self._read(line)))

    def _append(self, text: bytes, then: Place) -> None:
        """Write text, then the place behind it. `_ahead` bytes of the text are there already."""
        assert self._place is not None
        size = self._place.size
        if size and size + len(text) > self._size_max:
            os.replace(self._file, f"{self._file}.1")
            size = 0
            self._store(replace(self._place, size=0))
        there = min(self._ahead, len(text))
        if text[there:]:
            _append(self._file, text[there:])
        self._ahead -= there
        self._store(replace(then, size=size + len(text)))

    def _load(self) -> Place:
        """Read the place; without a valid one the transcript begins anew."""
        place = _read_place(f"{self._file}.place")
        if place is None:
            place = Place()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file)
            self._store(place)
        there = _size(self._file)
        self._ahead = max(0, there - place.size)
        self._place = replace(place, size=min(place.size, there))  # less: it was full and moved aside
        return self._place

    def _store(self, place: Place) -> None:
        passing = f"{self._file}.place.tmp"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(passing)  # a dead writer's, or a link that the agent made
        with open(passing, "x", encoding="ascii", opener=_private) as file:
            json.dump({"format": 1, **asdict(place)}, file)
        os.replace(passing, f"{self._file}.place")
        self._place = place


def _read_place(path: str) -> Place | None:
    try:
        with open(path, encoding="ascii") as file:
            facts = json.load(file)
        return Place(int(facts["offset"]), int(facts["size"]), bool(facts["in_line"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # torn by a power cut: it is not synced
        return None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _append(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
