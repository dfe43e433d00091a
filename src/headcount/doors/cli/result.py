"""What an agent answered in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headcount.doors.cli.logs import Source

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.services.answers import AgentFacts

_COMPLAINT_LINES: Final = 20


def last_words(fleet: Headcount, agent: AgentFacts) -> str:
    """Return the harness's final answer, or where it knows none the readable end of the output."""
    text = (agent.result or {}).get("text")
    if isinstance(text, str) and text.strip():
        return text
    return Source(fleet, agent.agent_id).end()


def complaint(fleet: Headcount, agent: AgentFacts) -> str:
    """Return the last lines that an agent which did not complete wrote to its stderr."""
    if agent.outcome == "completed":
        return ""
    said = fleet.get_agent_output(agent.agent_id, stream="stderr", tail=_COMPLAINT_LINES)
    return said.text
