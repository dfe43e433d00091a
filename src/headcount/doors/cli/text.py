"""Text for a terminal: harmless, of the right width, and coloured only where colours are seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from headcount.domain.transcript import escape_controls
from headcount.doors.cli import terminal

if TYPE_CHECKING:
    from headcount.services.answers import UsedFacts

COLOURS: Final = {
    "reserved": "36",
    "running": "32",
    "interactive": "36",
    "stopping": "33",
    "completed": "32",
    "failed": "31",
    "stopped": "33",
    "timed_out": "31",
    "over_budget": "31",
    "start_failed": "31",
    "lost": "31",
    "critical": "1;31",
    "high": "31",
    "medium": "33",
    "blocked": "33",
    "ok": "32",
    "bad": "31",
    "dim": "2",
    "bold": "1",
}
_WIDE: Final = frozenset("WF")


def harmless(text: str, *, lines: bool = False) -> str:
    """Return `text` with everything that could steer a terminal made visible.

    `lines` keeps tabs and the ends of lines; otherwise all white space becomes one blank.
    """
    return escape_controls(text if lines else " ".join(text.split()))


def columns(text: str) -> int:
    """Return how many columns `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in _WIDE)
        for each in text
    )


def fit(text: str, width: int) -> str:
    """Return `text` in at most `width` columns; what is left out shows as an ellipsis."""
    if columns(text) <= width:
        return text
    mark = "…" if terminal.boxes() else "~"
    kept = text[:width]
    while kept and columns(kept) > width - 1:
        kept = kept[:-1]
    return kept + mark if width > 0 else ""


def pad(text: str, width: int) -> str:
    return text + " " * max(0, width - columns(text))


def paint(text: str, *names: str) -> str:
    """Colour `text` by what it means; unknown names and pipes leave it as it is."""
    codes = [COLOURS[name] for name in names if name in COLOURS]
    if not codes or not text or not terminal.colours():
        return text
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m"


def table(rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), last: int | None = None) -> str:
    """Return rows in columns; the last one is cut to what is left of `last` columns (the terminal's)."""
    every = [list(head), *map(list, rows)] if head else [list(row) for row in rows]
    if not every:
        return ""
    widths = [max(columns(row[at]) for row in every) for at in range(len(every[0]) - 1)]
    room = max(8, (terminal.width() if last is None else last) - sum(widths) - 2 * len(widths))
    lines = []
    for at, row in enumerate(every):
        cells = [pad(cell, wide) for cell, wide in zip(row, widths, strict=False)]
        line = "  ".join([*cells, fit(row[-1], room)]).rstrip()
        lines.append(paint(line, "dim") if head and at == 0 else line)
    return "\n".join(lines)


def seconds(iso: str | None) -> float | None:
    """Return an answer's time as seconds since the epoch."""
    return None if iso is None else datetime.fromisoformat(iso).timestamp()


def span(length: float | None) -> str:
    """Return a length of time in at most six characters: `5s`, `3m20s`, `2h05m`, `3d04h`."""
    if length is None:
        return "-"
    whole = max(0, int(length))
    minutes, sec = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{sec:02}s" if minutes else f"{sec}s"


def dollars(amount: float) -> str:
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"


def used(sums: UsedFacts) -> str:
    """Return what runs used together, nothing if no model worked: `12000 tokens in, 300 out, $0.0123`."""
    said = tokens(sums.input, sums.output, sums.cached)
    if sums.cost_usd is not None:
        said.append(dollars(sums.cost_usd))
    if sums.cost_unknown:
        said.append(f"cost of {sums.cost_unknown} run{'s' if sums.cost_unknown > 1 else ''} unknown")
    return ", ".join(said)


def tokens(read: int | None, wrote: int | None, cached: int | None) -> list[str]:
    """Return what is known of them in words."""
    said = [] if read is None else [f"{read} tokens in" + (f" ({cached} cached)" if cached else "")]
    return said if wrote is None else [*said, f"{wrote} out"]


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
