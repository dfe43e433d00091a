"""A harness is pure: text in, data out. It knows one agent program and touches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headcount.domain.account import Ending
from headcount.domain.entries import Entry
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord, RunKey
from headcount.domain.options import Ability, Effort, Options, Permissions


@dataclass(frozen=True, slots=True)
class Session:
    """The program's own conversation. `resumed`: it exists, and this run goes on with it; otherwise
    `session_id` is what to call it, if the program lets us."""

    session_id: str
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """What a harness needs to know to make a command."""

    key: RunKey
    task_id: str
    prompt: str  # what the agent receives: assembled, or raw for `command`
    command: tuple[str, ...]  # what stands behind `--`
    options: Options
    session: Session
    cwd: str
    run_path: str
    headcount: tuple[str, ...]  # argv prefix of the headcount command
    env: Mapping[str, str]  # the caller's allow-listed variables, to find programs in PATH
    ask_expiry: float = 900.0  # seconds for a person to answer what the agent asks


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start it. `files` are written into the run directory (0600) before the start, by relative paths,
    which may have folders (0700). `interrupts`: a stop begins with SIGINT, on which it says what it used."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bytes | None = None
    interrupts: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended, from its exit record and its own last words."""

    outcome: Outcome
    reason: str
    result: Mapping[str, object] | None = None
    usage: Mapping[str, object] | None = None
    ending: Ending | None = None  # None: what the outcome says


@dataclass(frozen=True, slots=True)
class Probe:
    """How to find out whether a program is there, which one it is, and whether it is logged in.

    It is logged in if one of `login_env` (a name; one that ends in * is a prefix) is set or one of
    `login_files` (relative to the home directory) is there; with neither given, nobody can tell.
    """

    program: str
    install: str  # what to do if it is missing
    oldest: tuple[int, ...] = ()  # the oldest version that is known to work
    version_args: tuple[str, ...] = ("--version",)
    login_env: tuple[str, ...] = ()
    login_files: tuple[str, ...] = ()
    login: str = ""  # what to do if nobody is logged in


class Harness(Protocol):
    """One agent program."""

    name: str
    renders: bool  # its stream is not readable as it is
    needs_prompt: bool
    needs_command: bool
    wraps_prompt: bool  # receives the assembled prompt; False: the raw one
    env_names: tuple[str, ...]  # further variables that it needs from the caller
    env_prefixes: tuple[str, ...]  # and all those that begin so
    abilities: frozenset[Ability]
    permissions: frozenset[Permissions]  # those it can hold its program to; empty: it has no say
    efforts: tuple[Effort, ...]
    probe: Probe | None  # None: there is no one program to look for

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        """Refuse, by the words alone and before anything is reserved, what can never be started. What the
        abilities rule out was refused before (`abilities.check_options`).

        Raises:
            InvalidInput: it cannot do what is asked.
        """
        ...

    def command(self, spec: Spec) -> Launch:
        """Return how to start the agent, or to go on with its conversation.

        Raises:
            PlacementFailed: the program is not there or cannot be run, with what to do.
            InvalidInput: it cannot do what is asked.
        """
        ...

    def interactive(self, spec: Spec) -> Launch:
        """Return how to open the conversation for a person, in the program's own form, on a terminal.

        Raises:
            PlacementFailed: as for `command`.
            InvalidInput: the program has no such form (no ability `takeover`).
        """
        ...

    def read(self, line: bytes) -> Sequence[Entry]:
        """Parse one line without its newline. Never raises; what it does not know is UNKNOWN."""
        ...

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        """Judge a run; `tail` is the end of its output (at least 256 KiB, or all of it)."""
        ...
