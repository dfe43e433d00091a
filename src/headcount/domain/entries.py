"""What every agent program's output comes down to: one vocabulary of entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class EntryKind(StrEnum):
    """What an entry says. In brackets: the keys of its data, each left out where it is not known."""

    SESSION = "session"  # {session_id, model, cwd, mcp_servers}
    TEXT = "text"  # {delta: true if it goes on where a text right before it ended}
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"  # {id, tool, arguments}
    TOOL_RESULT = "tool_result"  # {id, is_error}
    FILE_CHANGE = "file_change"  # {path, change: add | edit | delete, id: of the call that may yet fail}
    # {input: tokens that the model read, cached: those of them that came from a cache, output: those that it
    # wrote, reasoning: those of them that it thought; cost_usd; model; scope: see `UsageScope`}
    USAGE = "usage"
    RATE_LIMITED = "rate_limited"  # {status, retry_after_s}
    PERMISSION_DENIED = "permission_denied"  # {tool}
    ERROR = "error"  # {status}
    RESULT = "result"  # {session_id, model, turns, text}; the last one counts
    UNKNOWN = "unknown"


class UsageScope(StrEnum):
    """What the numbers of a usage entry are for."""

    STEP = "step"  # one call of the model: they add up
    RUN = "run"  # all of this run so far: the last one counts
    SESSION = "session"  # the conversation with its earlier runs: the last one, less what those had


@dataclass(frozen=True, slots=True)
class Entry:
    """One parsed part of one line of output. `text` is what a person reads; `data` the facts."""

    kind: EntryKind
    text: str
    data: Mapping[str, object] = field(default_factory=dict)
