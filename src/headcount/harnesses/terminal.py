"""By what a run on a terminal is read and judged: what appeared on it, and the exit code of its program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import PlacementFailed
from headcount.domain.model import TERMINAL, ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses.abilities import NotInteractive
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.parse import decode
from headcount.harnesses.verdicts import judge_exit

_STEERING: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[PX^_][^\x1b]*(?:\x1b\\|$)|[ -/]*[0-~])"
)
"""What steers a terminal and is no text: the control sequences, and the strings, of ECMA-48 and xterm."""


class Terminal(NotInteractive):
    """Stands in for the harness of an agent while a person has taken it over; starts nothing itself."""

    name: str = TERMINAL
    renders: bool = False
    needs_prompt: bool = False
    needs_command: bool = False
    wraps_prompt: bool = False
    env_names: tuple[str, ...] = ()
    env_prefixes: tuple[str, ...] = ()
    abilities: frozenset[Ability] = frozenset()
    permissions: frozenset[Permissions] = frozenset()
    efforts: tuple[Effort, ...] = ()
    probe: Probe | None = None

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        """Refuse nothing: nobody deploys with it."""

    def command(self, spec: Spec) -> Launch:
        raise PlacementFailed("a terminal is no agent", hint="see 'headcount takeover'")

    def read(self, line: bytes) -> Sequence[Entry]:
        return (Entry(EntryKind.TEXT, _STEERING.sub("", decode(line)).rstrip("\r")),)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return judge_exit(record)
