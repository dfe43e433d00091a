"""One request: who sent it, and what it may see."""

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
    """`fleet` acts as the caller, in this call."""

    fleet: Headcount

    @property
    def who(self) -> Who:
        return Who.PERSON if self.fleet.context.caller.agent_id is None else Who.AGENT
