"""What the command line knows of its terminal, its environment and the time: asked here and nowhere else."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Final

_MIN_WIDTH: Final = 40


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


def width() -> int:
    """Return the columns there are; 80 where there is no terminal."""
    return max(_MIN_WIDTH, shutil.get_terminal_size((80, 24)).columns)


def now() -> float:
    return time.time()


def pause(seconds: float) -> None:
    """Wait between two looks."""
    time.sleep(seconds)


def ticking() -> float:
    """Return seconds that nobody sets back."""
    return time.monotonic()
