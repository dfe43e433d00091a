"""What stands in for a harness that is no longer here: its package went or broke, and its runs are left."""

from __future__ import annotations

from collections.abc import Sequence

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import PlacementFailed
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses.abilities import NotInteractive
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.parse import decode
from headcount.harnesses.verdicts import judge_exit


class Gone(NotInteractive):
    """Starts nothing; reads a run's output as plain text and judges it by its exit code."""

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

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        """Refuse nothing by the words: `command` says what is wrong."""

    def command(self, spec: Spec) -> Launch:
        raise PlacementFailed(
            f"harness {self.name} is no longer here", hint="see 'headcount harness list' for what is"
        )

    def read(self, line: bytes) -> Sequence[Entry]:
        return (Entry(EntryKind.TEXT, decode(line)),)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return judge_exit(record)
