"""The harnesses there are, by name: our own, and those of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headcount.domain.errors import Infrastructure, InvalidInput
from headcount.domain.model import TERMINAL
from headcount.harnesses import plugins
from headcount.harnesses.acp import Acp
from headcount.harnesses.base import Harness
from headcount.harnesses.claude import Claude
from headcount.harnesses.codex import Codex
from headcount.harnesses.command import Command
from headcount.harnesses.copilot import Copilot
from headcount.harnesses.gemini import Gemini
from headcount.harnesses.gone import Gone
from headcount.harnesses.opencode import OpenCode
from headcount.harnesses.pi import Pi
from headcount.harnesses.qwen import Qwen
from headcount.harnesses.script import Script
from headcount.harnesses.terminal import Terminal

HARNESSES: Final[Mapping[str, Harness]] = {
    each.name: each
    for each in (Acp(), Claude(), Codex(), Command(), Copilot(), Gemini(), OpenCode(), Pi(), Qwen(), Script())
}

TAKEN: Final = frozenset((*HARNESSES, TERMINAL))
"""Names that no harness of another package may have."""


def names() -> tuple[str, ...]:
    """Return the names of our own harnesses, sorted."""
    return tuple(sorted(HARNESSES))


def find(name: str) -> Harness:
    """Return the harness of that name.

    Raises:
        InvalidInput: there is none; the hint lists those there are.
        Infrastructure: another package has it, and it cannot be used.
    """
    if name in HARNESSES:
        return HARNESSES[name]
    found = plugins.find(name, TAKEN)
    if found is None:
        more = [each.name for each in plugins.every(TAKEN) if each.harness is not None]
        known = ", ".join(sorted((*HARNESSES, *more)))
        raise InvalidInput(f"there is no harness {name[:64]!r}", hint=f"known: {known}")
    if found.harness is None:
        raise Infrastructure(
            f"harness {name} of the package {found.package} cannot be used: {found.why}",
            code="harness_broken",
            hint="tell those who maintain that package; nothing else depends on it",
        )
    return found.harness


def find_of_run(name: str) -> Harness:
    """Return the harness of a run that there is. One that is no longer here, because its package is not, is
    stood in for: the run can still be read, judged and counted."""
    if name == TERMINAL:
        return Terminal()
    try:
        return find(name)
    except (InvalidInput, Infrastructure):
        return Gone(name)


def every() -> tuple[plugins.Plugin, ...]:
    """Return all, sorted by name, our own first; those of other packages are loaded for it."""
    own = [plugins.Plugin(name, "", HARNESSES[name]) for name in names()]
    return (*own, *plugins.every(TAKEN))
