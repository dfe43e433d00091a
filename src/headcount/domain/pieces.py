"""What is shown of a line of output, and how many such pieces share a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headcount.domain.entries import Entry
from headcount.domain.lines import Line
from headcount.domain.transcript import one_line

SHARE: Final = 80
"""Bytes that each piece gets at least, before the oldest of them are left out."""

Parse = Callable[[bytes], Sequence[Entry]]
"""A harness's `read`: one line in, entries out; never raises."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One line of a page. `size` is what it takes in full, in bytes; of that `text` holds at least a page.

    `shorten(text, size, most)` gives the same in at most so many bytes, or "" if that cannot be.
    """

    text: str
    size: int
    shorten: Callable[[str, int, int], str]
    terminated: bool = True

    def within(self, most: int) -> str:
        return self.text if self.size <= most else self.shorten(self.text, self.size, most)


def text_pieces(line: Line, most: int) -> Sequence[Piece]:
    """The line as it is."""
    text = line.data.decode("utf-8", "replace")
    size = byte_size(text) + line.size - len(line.data)
    return (Piece(first_bytes(text, most), size, _cut, line.terminated),)


def json_pieces(line: Line, most: int) -> Sequence[Piece]:
    """The line if it is a JSON object."""
    text = line.data.decode("utf-8", "replace")
    if line.data[:1] != b"{" or line.size > len(line.data) or not _is_object(text):
        return ()
    return (Piece(first_bytes(text, most), byte_size(text), _cut_json),)


def parsed_pieces(line: Line, most: int, parse: Parse) -> Sequence[Piece]:
    """The line's entries as JSON objects of our own vocabulary."""
    return [_entry_piece(entry, most) for entry in parse(line.data)]


def recent_pieces(line: Line, parse: Parse) -> Sequence[Piece]:
    """The line's entries as one readable line each."""
    return [Piece(text, byte_size(text), _cut) for text in map(one_line, parse(line.data))]


def _entry_piece(entry: Entry, most: int) -> Piece:
    whole = _entry_json(str(entry.kind), entry.text, data=entry.data)
    size = byte_size(whole)
    if size <= most:
        return Piece(whole, size, _entry_cutter(str(entry.kind), entry.text, byte_size(entry.text)))
    begins = first_bytes(entry.text, most)
    return Piece("", size, _entry_cutter(str(entry.kind), begins, byte_size(entry.text)))


def _entry_json(kind: str, text: str, **more: object) -> str:
    try:
        return _json(
            {"kind": kind, "text": text, **{name: value for name, value in more.items() if value != {}}}
        )
    except (ValueError, RecursionError, TypeError):
        return _json({"kind": kind, "text": text, "data_left_out": True})


def _entry_cutter(kind: str, begins: str, text_size: int) -> Callable[[str, int, int], str]:
    """Return what shortens an entry: its data goes first, then the end of its text."""

    def shorten(_text: str, _size: int, most: int) -> str:
        for part in (
            most,
            most // 2,
            most // 8,
            0,
        ):  # escapes make JSON longer than its text, up to six times
            kept = first_bytes(begins, part)
            short = _entry_json(kind, kept, bytes_shortened=text_size - byte_size(kept), data_left_out=True)
            if byte_size(short) <= most:
                return short
        return ""

    return shorten


def _cut_json(text: str, size: int, most: int) -> str:
    """Return an object that says what is missing: half a JSON object is none."""
    for part in (most, most // 2, most // 8, 0):
        kept = first_bytes(text, part)
        short = _json({"begins": kept, "bytes_shortened": size - byte_size(kept)})
        if byte_size(short) <= most:
            return short
    return ""


def _cut(text: str, size: int, most: int) -> str:
    mark = byte_size(_mark(size))
    if most <= 2 * mark:
        return first_bytes(text, most)
    kept = first_bytes(text, most - mark)
    return kept + _mark(size - byte_size(kept))


def _mark(missing: int) -> str:
    return f" …(+{missing} bytes)"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def byte_size(text: str) -> int:
    """Return how many bytes `text` has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def first_bytes(text: str, most: int) -> str:
    """Return the characters that fit into the first `most` bytes."""
    if text.isascii():
        return text[:most]
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


# ---------------------------------------------------------------- sharing a page


def cost(piece: Piece) -> int:
    """Return what a piece takes of a page in full, its line feed included."""
    return piece.size + 1


def fit(pieces: Sequence[Piece], most: int) -> Sequence[Piece]:
    """Return the newest pieces in at most `most` bytes: the long ones give way first, then the oldest go.

    Each that is returned has its final text.
    """
    kept = _newest(pieces, most)
    level = _level([cost(piece) for piece in kept], most) - 1
    texts = [(piece, piece.within(level)) for piece in kept]
    return [
        Piece(text, piece.size, piece.shorten, piece.terminated)
        for piece, text in texts
        if text or not piece.size
    ]


def _newest(pieces: Sequence[Piece], most: int) -> Sequence[Piece]:
    """Return as many of the newest as fit when each gets what it needs, up to `SHARE`; at least one."""
    room, count = most, 0
    for piece in reversed(pieces):
        room -= min(cost(piece), SHARE + 1)
        if room < 0:
            break
        count += 1
    return pieces[-max(count, 1) :]


def _level(costs: Sequence[int], most: int) -> int:
    """Return the greatest height at which all, cut to it, are within `most` together."""
    room, left = most, len(costs)
    for each in sorted(costs):
        if each * left > room:
            return max(1, room // left)
        room, left = room - each, left - 1
    return max(costs, default=1)
