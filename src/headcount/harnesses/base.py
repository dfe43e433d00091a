"""A harness is pure: text in, data out. It knows one agent program and touches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord, RunKey


class EntryKind(StrEnum):
    """One vocabulary for every harness's output stream."""

    SESSION = "session"
    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    USAGE = "usage"
    RATE_LIMITED = "rate_limited"
    PERMISSION_DENIED = "permission_denied"
    ERROR = "error"
    RESULT = "result"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One parsed part of one line of output. `text` is what a person reads; `data` the facts."""

    kind: EntryKind
    text: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spec:
    """What a harness needs to know to make a command."""

    key: RunKey
    task_id: str
    prompt: str  # what the agent receives: assembled, or raw for `command`
    command: tuple[str, ...]  # what stands behind `--`
    model: str | None
    effort: str | None
    cwd: str
    run_path: str
    headcount: tuple[str, ...]  # argv prefix of the headcount command
    env: Mapping[str, str]  # the caller's allow-listed variables, to find programs in PATH


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start it. `files` are written into the run directory (0600) before the start."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended, from its exit record and its own last words."""

    outcome: Outcome
    reason: str
    result: Mapping[str, object] | None = None
    usage: Mapping[str, object] | None = None


class Harness(Protocol):
    """One agent program."""

    name: str
    renders: bool  # its stream is not readable as it is
    needs_prompt: bool
    needs_command: bool
    wraps_prompt: bool  # receives the assembled prompt; False: the raw one
    env_names: tuple[str, ...]  # further variables that it needs from the caller
    env_prefixes: tuple[str, ...]  # and all those that begin so

    def check(self, *, prompt: str, command: tuple[str, ...], model: str | None, effort: str | None) -> None:
        """Refuse, by the words alone and before anything is reserved, what can never be started.

        Raises:
            InvalidInput: it cannot do what is asked.
        """
        ...

    def command(self, spec: Spec) -> Launch:
        """Return how to start the agent.

        Raises:
            PlacementFailed: the program is not there or cannot be run, with what to do.
            InvalidInput: it cannot do what is asked.
        """
        ...

    def read(self, line: bytes) -> Sequence[Entry]:
        """Parse one line without its newline. Never raises; what it does not know is UNKNOWN."""
        ...

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        """Judge a run; `tail` is the end of its output (at least 256 KiB, or all of it)."""
        ...
