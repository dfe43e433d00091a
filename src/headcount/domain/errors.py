"""Everything that Headcount refuses or fails with, by the party that can put it right.

`code` is API: scripts and models compare it, so it never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_NOT_FOUND: Final = 4
EXIT_INFRASTRUCTURE: Final = 5
EXIT_TIMED_OUT: Final = 6


class HeadcountError(Exception):
    """Something was not done; `message` says what and on what, `hint` what to do next."""

    code: str = "error"
    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def facts(self) -> dict[str, Any]:
        """Return the error as every door shows it: always at least code, message and hint."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class InvalidInput(HeadcountError):
    """The caller's input is wrong; nothing was read or changed."""

    code = "invalid_input"
    exit_code = EXIT_USAGE


class NotFound(HeadcountError):
    """The named task, agent or run does not exist."""

    code = "not_found"
    exit_code = EXIT_NOT_FOUND


class Refused(HeadcountError):
    """A limit or rule forbids it; nothing was started.

    `limit` names the setting or rule, `value` its value, `holders` the agents that hold it.
    """

    code = "refused"
    exit_code = EXIT_REFUSED

    def __init__(
        self,
        message: str,
        *,
        code: str,
        limit: str = "",
        value: int | float | str | None = None,
        holders: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.limit = limit
        self.value = value
        self.holders = tuple(holders)

    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(),
            "limit": self.limit,
            "value": self.value,
            "holders": list(self.holders),
        }


class NotAllowed(Refused):
    """The caller's token does not give the right to do this."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, code="not_allowed", limit="rights", hint=hint)


class WaitRanOut(HeadcountError):
    """The condition did not come true in time; what was waited for goes on."""

    code = "wait_ran_out"
    exit_code = EXIT_TIMED_OUT


class Infrastructure(HeadcountError):
    """The machine, the registry or a tool of the system did not do what was asked."""

    code = "infrastructure"
    exit_code = EXIT_INFRASTRUCTURE


class RegistryBusy(Infrastructure):
    """Another process held the writers' lock for the whole deadline."""

    code = "registry_busy"

    def __init__(self, message: str, *, holder_pid: int | None, stopped: bool, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.holder_pid = holder_pid
        self.stopped = stopped

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "holder_pid": self.holder_pid, "stopped": self.stopped}


class RegistryCorrupt(Infrastructure):
    """The registry was quarantined; deploys are refused until `headcount repair --rebuild`."""

    code = "registry_corrupt"


class RegistryTooNew(Infrastructure):
    """A newer Headcount wrote this registry; this one must not touch it."""

    code = "registry_too_new"


class PlacementFailed(Infrastructure):
    """The runner or the harness could not be started; the run is recorded as start_failed."""

    code = "start_failed"


class WorktreeFailed(Infrastructure):
    """git, or a worktree's set-up command, did not do what was asked; its words are in the message."""

    code = "worktree_failed"


def error_facts(error: HeadcountError) -> Mapping[str, Any]:
    """Return the `{"error": ...}` object that all doors print."""
    return {"error": error.facts()}
