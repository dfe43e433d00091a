"""One request: who sent it, what it may see, and whether it is a repetition."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from headcount.api import Headcount
from headcount.doors.mcp.tools import Who

REQUEST: Final[ContextVar[Any]] = ContextVar("request", default=None)
"""The HTTP request that is being served: the SDK hands it to tools, but not to static resources."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`fleet` acts as the caller. `key` names the call, over all of its repetitions; `since` is set on a
    repetition: the ISO 8601 time before which nothing of it can have happened."""

    fleet: Headcount
    key: str | None = None
    since: str | None = None

    @property
    def who(self) -> Who:
        return Who.PERSON if self.fleet.context.caller.agent_id is None else Who.AGENT
