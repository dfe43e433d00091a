"""What an agent answered in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.services.answers import AgentFacts

_MOST: Final = 64_000
"""Bytes of an answer; the whole output is a 'headcount logs' away."""


def last_words(fleet: Headcount, agent: AgentFacts) -> str:
    """Return the harness's final answer, or where it knows none the end of the output."""
    text = (agent.result or {}).get("text")
    if isinstance(text, str) and text.strip():
        return text
    return fleet.get_agent_output(agent.agent_id, format="text", max_bytes=_MOST).text
