"""The harnesses there are, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headcount.domain.errors import InvalidInput
from headcount.harnesses.acp import Acp
from headcount.harnesses.base import Harness
from headcount.harnesses.claude import Claude
from headcount.harnesses.codex import Codex
from headcount.harnesses.command import Command
from headcount.harnesses.copilot import Copilot
from headcount.harnesses.gemini import Gemini
from headcount.harnesses.opencode import OpenCode
from headcount.harnesses.pi import Pi
from headcount.harnesses.qwen import Qwen
from headcount.harnesses.script import Script

HARNESSES: Final[Mapping[str, Harness]] = {
    each.name: each
    for each in (Acp(), Claude(), Codex(), Command(), Copilot(), Gemini(), OpenCode(), Pi(), Qwen(), Script())
}


def names() -> tuple[str, ...]:
    """Return the names of all harnesses, sorted."""
    return tuple(sorted(HARNESSES))


def find(name: str) -> Harness:
    """Return the harness of that name.

    Raises:
        InvalidInput: there is none; the hint lists those there are.
    """
    try:
        return HARNESSES[name]
    except KeyError:
        raise InvalidInput(
            f"there is no harness {name[:64]!r}", hint=f"known: {', '.join(names())}"
        ) from None
