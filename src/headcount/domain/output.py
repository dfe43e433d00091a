"""What a reader of an agent's output gets: bounded, in the form asked for, all that was left out counted.

Two ways to read: the end of it (`tail`, or nothing asked), and forward from a cursor, page by page. A cursor
is an absolute byte offset. Pages of plain text from cursor to cursor are the whole output, nothing lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Final

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput
from headcount.domain.lines import Line, Read, backward, count_lines, forward, spans
from headcount.domain.pieces import (
    Parse,
    Piece,
    byte_size,
    cost,
    first_bytes,
    fit,
    json_pieces,
    parsed_pieces,
    recent_pieces,
    text_pieces,
)
from headcount.domain.summary import summarize
from headcount.domain.transcript import escape_controls, render

__all__ = ["OutputFormat", "OutputPage", "OutputWish", "check_wish", "escape_controls", "render", "shape"]

DEFAULT_BYTES: Final = 8_000
MOST_BYTES: Final = 1_000_000
"""Of one page. A reader that wants more reads pages."""

SEARCH_MAX: Final = 256 * 1024 * 1024
"""Bytes that one call looks through for lines to show."""

COUNT_MAX: Final = 64 * 1024 * 1024
COUNT_MAX_PAGING: Final = 4 * 1024 * 1024
"""Bytes in which lines are counted that are not shown; of more, only the bytes are known. A reader that goes
from page to page would else pay for the rest at every page."""

SUMMARY_MAX: Final = 16 * 1024 * 1024
RECENT: Final = 20
"""Entries that `recent` shows if no tail is asked for."""


class OutputFormat(StrEnum):
    """How output is shown."""

    TEXT = "text"  # as it was written
    JSONL = "jsonl"  # those lines that are JSON objects
    PARSED = "parsed"  # entries in our own vocabulary, one JSON object a line
    SUMMARY = "summary"  # what happened, counted
    RECENT = "recent"  # the last entries, one readable line each


@dataclass(frozen=True, slots=True)
class OutputWish:
    """What to show. `final`: the agent writes no more, so that a last line without line feed is whole."""

    format: OutputFormat = OutputFormat.TEXT
    tail: int | None = None
    matches: Callable[[bytes], object] | None = None
    max_bytes: int = DEFAULT_BYTES
    cursor: int | None = None
    final: bool = True


@dataclass(frozen=True, slots=True)
class OutputPage:
    """A part of an agent's output, from the byte `start` up to `next_cursor`, both as the agent wrote them.

    Within it `lines` are shown (entries, for parsed and recent), `lines_filtered` do not match or are not in
    the format asked for, and `lines_left_out` had no room. `lines_before` and `lines_after` are None where
    they were not counted; the bytes always are. `bytes_lost` the output cap took, as far as was looked.
    """

    format: str
    text: str
    lines: int
    start: int
    next_cursor: int
    more: bool
    total_bytes: int
    bytes_before: int
    bytes_after: int
    lines_before: int | None
    lines_after: int | None
    lines_filtered: int
    lines_left_out: int
    lines_shortened: int
    bytes_shortened: int
    bytes_lost: int
    note: str


def check_wish(*, format: str, tail: int | None, max_bytes: int, cursor: int | None) -> OutputFormat:
    """Return the format, if all can be shown as asked.

    Raises:
        InvalidInput: an unknown format, a number out of its range, or a tail together with a cursor.
    """
    if format not in set(OutputFormat):
        raise InvalidInput(f"there is no format {format[:40]!r}", hint=f"one of {', '.join(OutputFormat)}")
    if tail is not None and tail < 1:
        raise InvalidInput(f"tail is {tail}", hint="ask for 1 line or more")
    if not 1 <= max_bytes <= MOST_BYTES:
        raise InvalidInput(f"max_bytes is {max_bytes}", hint=f"1 to {MOST_BYTES}; next_cursor leads on")
    if cursor is not None and cursor < 0:
        raise InvalidInput(f"cursor is {cursor}", hint="use next_cursor of an earlier answer, or 0")
    if tail is not None and cursor is not None:
        raise InvalidInput("tail and cursor exclude each other", hint="leave one of them out")
    return OutputFormat(format)


def shape(read: Read, wish: OutputWish, parse: Parse) -> OutputPage:
    """Return the page that was asked for. Survives lines of any length and bytes that are no text."""
    end = read(0, 1).end
    if wish.format is OutputFormat.SUMMARY:
        found = _summary(read, wish, parse, end)
    elif wish.cursor is None:
        found = _last_lines(read, wish, parse, end)
    elif wish.format is OutputFormat.TEXT and wish.matches is None:
        found = _next_bytes(read, wish, end)
    else:
        found = _next_lines(read, wish, parse, end)
    return _page(read, wish, found, end)


@dataclass(slots=True)
class _Found:
    """What was gone through: from `start` to `stop`, `seen` bytes of it were there."""

    start: int
    stop: int
    pieces: list[Piece] = field(default_factory=list)
    seen: int = 0
    filtered: int = 0
    waiting: int = 0  # bytes behind `stop` that are the beginning of something unfinished

    def take(self, line: Line, pieces: Sequence[Piece]) -> None:
        self.start, self.stop = min(self.start, line.start), max(self.stop, line.end)
        self.seen += line.end - line.start
        self.filtered += not pieces
        self.pieces += pieces


def _maker(wish: OutputWish, parse: Parse) -> Callable[[Line], Sequence[Piece]]:
    """Return what makes of a line the pieces to be shown; none if it does not match."""
    most = wish.max_bytes
    make: Mapping[OutputFormat, Callable[[Line], Sequence[Piece]]] = {
        OutputFormat.TEXT: lambda line: text_pieces(line, most),
        OutputFormat.JSONL: lambda line: json_pieces(line, most),
        OutputFormat.PARSED: lambda line: parsed_pieces(line, most, parse),
        OutputFormat.RECENT: lambda line: recent_pieces(line, parse),
    }
    matches = wish.matches
    if matches is None:
        return make[wish.format]
    return lambda line: make[wish.format](line) if matches(line.data) else ()


# ---------------------------------------------------------------- four ways through the output


def _last_lines(read: Read, wish: OutputWish, parse: Parse, end: int) -> _Found:
    """The last lines: as many as were asked for, or else those that fit."""
    make = _maker(wish, parse)
    tail = wish.tail or (RECENT if wish.format is OutputFormat.RECENT else None)
    most = None if tail is None else min(tail, wish.max_bytes)
    found, room = _Found(end, end), wish.max_bytes
    for line in backward(read, end):
        pieces = make(line)
        room -= sum(map(cost, pieces))
        if most is None and room < 0 and found.pieces:
            break
        found.take(line, list(reversed(pieces)))
        if len(found.pieces) >= most if most is not None else room <= 0:
            break
        if end - found.start > SEARCH_MAX:
            break
    found.pieces = found.pieces[:most][::-1]
    return found


def _next_bytes(read: Read, wish: OutputWish, end: int) -> _Found:
    """The next bytes as they are: whole lines, if there is the end of one, and never half a character."""
    asked = wish.cursor or 0
    at, data = next(spans(read, asked, end, block=max(4, wish.max_bytes)), (max(asked, end), b""))
    at_end = at + len(data) >= end
    if not at_end:
        data = data[: data.rfind(b"\n") + 1 or len(data)]
    waiting = _unfinished(data)
    if not waiting or (wish.final if at_end else waiting == len(data)):
        waiting = 0
    data = data[: len(data) - waiting]
    body = data.removesuffix(b"\n")
    text = body.decode("utf-8", "replace")
    piece = Piece(text, byte_size(text), lambda whole, *_: whole, terminated=body != data)
    return _Found(at, at + len(data), [piece] if data else [], seen=len(data), waiting=waiting)


def _unfinished(data: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character whose rest is not there."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = (
                2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
            )
            return back if needed > back else 0
    return 0


def _next_lines(read: Read, wish: OutputWish, parse: Parse, end: int) -> _Found:
    """The next lines that fit, at least one; a last one without line feed only when no more can come."""
    make = _maker(wish, parse)
    start = min(wish.cursor or 0, end)
    found, room = _Found(start, start), wish.max_bytes
    for line in forward(read, start, end):
        if line.end == end and not line.terminated and not wish.final:
            found.waiting = line.size
            break
        pieces = make(line)
        room -= sum(map(cost, pieces))
        if room < 0 and found.pieces:
            break
        found.take(line, pieces)
        if room <= 0 or found.stop - start > SEARCH_MAX:
            break
    return found


def _summary(read: Read, wish: OutputWish, parse: Parse, end: int) -> _Found:
    """All of it, or the end of it if it is very long, counted."""
    asked = wish.cursor or 0
    start = max(asked, end - SUMMARY_MAX)
    found = _Found(end, start)

    def entries() -> Iterator[Entry]:
        lines = forward(read, start, end)
        for line in islice(lines, 1, None) if start > asked else lines:  # the first one is a fragment
            fits = wish.matches is None or wish.matches(line.data)
            found.take(line, ())
            found.filtered -= bool(fits)
            if fits:
                yield from parse(line.data)

    text = summarize(entries())
    found.start = min(found.start, found.stop)
    found.pieces = [Piece(text, byte_size(text), lambda whole, _size, most: first_bytes(whole, most))]
    return found


# ---------------------------------------------------------------- the page


def _page(read: Read, wish: OutputWish, found: _Found, end: int) -> OutputPage:
    plain = wish.cursor is not None and wish.format is OutputFormat.TEXT and wish.matches is None
    shown = found.pieces if plain else fit(found.pieces, wish.max_bytes)
    # a line that is not the last and has no end was broken off by the cap: it is not one with the next
    last = len(shown) - 1
    text = "".join(piece.text + "\n" * (piece.terminated or at < last) for at, piece in enumerate(shown))
    most = COUNT_MAX if wish.cursor is None else COUNT_MAX_PAGING
    before, lost_before = _counted(read, 0, found.start, most)
    after, lost_after = _counted(read, found.stop, end, most)
    short = [piece.size - byte_size(piece.text) for piece in shown if byte_size(piece.text) < piece.size]
    page = OutputPage(
        format=str(wish.format),
        text=text,
        lines=text.count("\n") + (text[-1:] not in ("", "\n")),
        start=found.start,
        next_cursor=found.stop,
        more=found.start < found.stop < end - found.waiting,
        total_bytes=end,
        bytes_before=found.start,
        bytes_after=end - found.stop,
        lines_before=before,
        lines_after=after,
        lines_filtered=found.filtered,
        lines_left_out=len(found.pieces) - len(shown),
        lines_shortened=len(short),
        bytes_shortened=sum(short),
        bytes_lost=lost_before + found.stop - found.start - found.seen + lost_after,
        note="",
    )
    return replace(page, note=_note(page))


def _counted(read: Read, start: int, end: int, most: int) -> tuple[int | None, int]:
    """Return how many lines are between, and how many bytes were lost there."""
    if end - start > most:
        return None, 0
    lines, size = count_lines(read, start, end)
    return lines, end - start - size


def _note(page: OutputPage) -> str:
    """Say in words what the counts say, and how to get the rest."""
    parts = (
        (
            page.bytes_before,
            f"{_lines(page.lines_before)}{page.bytes_before} bytes before (cursor=0 begins there)",
        ),
        (page.lines_filtered, f"{page.lines_filtered} lines do not match"),
        (page.lines_left_out, f"{page.lines_left_out} lines had no room (max_bytes)"),
        (page.lines_shortened, f"{page.lines_shortened} lines shortened by {page.bytes_shortened} bytes"),
        (page.bytes_lost, f"{page.bytes_lost} bytes cut by the output cap"),
        (
            page.bytes_after,
            f"{_lines(page.lines_after)}{page.bytes_after} bytes after (cursor={page.next_cursor})",
        ),
    )
    return "; ".join(words for count, words in parts if count)


def _lines(count: int | None) -> str:
    return "" if count is None else f"{count} lines, "
