"""What the command line knows of its terminal, its environment and the time: asked here and nowhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Final, TextIO

_MIN_WIDTH: Final = 40
_USUAL_WIDTH: Final = 80
_UNCUT: Final = 10_000
"""A pipe or a file cuts nothing, so neither do we: what reads it may want the end of a line."""


def prepare() -> None:
    """Let no character that the terminal cannot show end the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def environment() -> Mapping[str, str]:
    return os.environ


def interactive() -> bool:
    """Whether a person reads our output and can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def live() -> bool:
    """Whether what we print can be drawn over."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def colours() -> bool:
    return live() and not os.environ.get("NO_COLOR")


def boxes() -> bool:
    """Whether the output can show the branches of a tree."""
    return "utf" in (sys.stdout.encoding or "").lower()


def width(stream: TextIO | None = None) -> int:
    """Return the columns of what `stream` (stdout) goes to, or what COLUMNS says."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return max(_MIN_WIDTH, int(told))
    try:
        there = os.get_terminal_size((stream or sys.stdout).fileno()).columns
    except (OSError, ValueError, AttributeError):  # no terminal, closed, or no stdout at all
        return _UNCUT
    return max(_MIN_WIDTH, there or _USUAL_WIDTH)


def prose_width() -> int:
    """Return the columns that text for reading is wrapped to."""
    return min(width(), 100)


def now() -> float:
    return time.time()


def pause(seconds: float) -> None:
    """Wait between two looks."""
    time.sleep(seconds)


def ticking() -> float:
    """Return seconds that nobody sets back."""
    return time.monotonic()
