"""What the tool of a call is called in ACP, which has no field for it, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def has_arguments(update: Mapping[str, Any]) -> bool:
    """Say whether a line has a call's arguments. Some agents begin with a call without them, or with the
    directory alone (OpenCode)."""
    given = update.get("rawInput")
    return bool(given) and not (isinstance(given, dict) and set(given) == {"cwd"})


def tool_of(call: Mapping[str, Any]) -> str:
    """Return a tool's name: some agents say it beside the protocol, others in the call's id or its title."""
    beside = call.get("_meta")
    named = beside.get("toolName") if isinstance(beside, dict) else None
    if isinstance(named, str):
        return named
    name, joint, _ = str(call.get("toolCallId")).partition("__call_")  # Gemini CLI
    if joint:
        return name
    title = call.get("title")
    one_word = isinstance(title, str) and title and not any(map(str.isspace, title))
    return str(title if one_word else call.get("kind") or "other")
