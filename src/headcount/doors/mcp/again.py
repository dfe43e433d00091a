"""A call that the bridge repeats because the daemon died under it is applied once.

Deploys carry a key that the registry keeps. What an agent says and a new task have no key there; for
them the repetition looks whether the same caller has just said the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from headcount.api import Headcount
from headcount.doors.mcp.asked import Asked
from headcount.doors.mcp.shape import Page, page
from headcount.doors.mcp.tools import Tool
from headcount.services.answers import Reported


def keyed(arguments: Mapping[str, Any], key: str | None) -> Mapping[str, Any]:
    """Give a deploy the key of its call, unless the client has one of its own."""
    if key is None or arguments.get("idempotency_key", ...) is not None:
        return arguments
    return {**arguments, "idempotency_key": key}


def done_before(tool: Tool, arguments: Mapping[str, Any], asked: Asked) -> Page | None:
    """Return the answer of the first attempt at a repeated call, or None if it did nothing."""
    look = _LOOKS.get(tool.name)
    return None if asked.since is None or look is None else look(asked.fleet, arguments, asked.since)


def _task(fleet: Headcount, arguments: Mapping[str, Any], since: str) -> Page | None:
    for task in fleet.list_tasks(limit=20).tasks:
        if task.created_at >= since and task.description == arguments["description"]:
            return page(task)
    return None


def _report(fleet: Headcount, arguments: Mapping[str, Any], since: str) -> Page | None:
    own = fleet.context.caller.agent_id
    if own is None:
        return None
    said = (arguments["status"], arguments["message"], arguments["progress"])
    for report in fleet.get_task_status(fleet.get_agent(own).task_id).recent_reports:
        if (report.agent_id, report.status, report.message, report.progress) == (
            own,
            *said,
        ) and report.at >= since:
            return _reported(report.id, own, report.run, late=report.late)
    return None


def _finding(fleet: Headcount, arguments: Mapping[str, Any], since: str) -> Page | None:
    own = fleet.context.caller.agent_id
    if own is None:
        return None
    found = fleet.get_findings(fleet.get_agent(own).task_id, agent_id=own, since=since)
    for each in found.findings:
        if (each.type, each.message) == (arguments["finding_type"], arguments["message"]):
            return _reported(each.id, own, each.run, late=each.late)
    return None


def _reported(number: int, agent_id: str, run: int, *, late: bool) -> Page:
    return page(Reported(number, agent_id, run, late, "recorded, by the first attempt"))


_LOOKS: Final[Mapping[str, Callable[[Headcount, Mapping[str, Any], str], Page | None]]] = {
    "create_task": _task,
    "update_agent_progress": _report,
    "report_agent_finding": _finding,
}

ONCE: Final = frozenset({*_LOOKS, "deploy_headless_agent", "spawn_child_agent"})
"""Tools that change something and may still be sent again."""
