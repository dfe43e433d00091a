"""Resources: what a person mentions in a client, and what an answer points to. Read-only."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from headcount.api import Headcount
from headcount.domain.errors import HeadcountError, InvalidInput, NotFound
from headcount.doors.mcp.asked import REQUEST
from headcount.doors.mcp.shape import plain

if TYPE_CHECKING:
    from headcount.doors.mcp.app import Door
    from headcount.services.answers import EventFacts

JSON: Final = "application/json"
TIMELINE_ROWS: Final = 200
JOURNAL_PAGE: Final = 1000
OUTPUT_BYTES: Final = 16_000


def mount(server: MCPServer[Any], door: Door) -> None:
    """Put the resources on the server."""

    async def read(look: Callable[[Headcount], str]) -> str:
        request = REQUEST.get()
        try:
            return await door.crew.do(lambda: look(door.asked(request).fleet))
        except (NotFound, InvalidInput) as error:
            raise ResourceNotFoundError(f"{error.code}: {error.message}") from error
        except HeadcountError as error:
            raise ResourceError(f"{error.code}: {error.message}") from error

    @server.resource(
        "tasks://list", name="tasks", title="Tasks", description="All tasks, newest first", mime_type=JSON
    )
    async def tasks() -> str:
        return await read(lambda fleet: _json(fleet.list_tasks(limit=100)))

    @server.resource(
        "task://{task_id}/status",
        name="task-status",
        title="Status of a task",
        description="Agents, counts, refusals, latest reports and findings",
        mime_type=JSON,
    )
    async def task_status(task_id: str) -> str:
        return await read(lambda fleet: _json(fleet.get_task_status(task_id)))

    @server.resource(
        "task://{task_id}/progress-timeline",
        name="task-progress-timeline",
        title="Progress of a task over time",
        description="The end of its journal: deploys, reports, findings and ends, oldest first",
        mime_type=JSON,
    )
    async def timeline(task_id: str) -> str:
        return await read(lambda fleet: progress(fleet, task_id))

    @server.resource(
        "agent://{agent_id}/output",
        name="agent-output",
        title="Output of an agent",
        description="The end of what it wrote, readable",
        mime_type="text/plain",
    )
    async def output(agent_id: str) -> str:
        return await read(lambda fleet: _output(fleet, agent_id))


def progress(fleet: Headcount, task_id: str) -> str:
    """Return the end of a task's journal, oldest first, and how much came before it."""
    fleet.get_task_status(task_id)  # a task that does not exist has no empty timeline
    newest: deque[EventFacts] = deque(maxlen=TIMELINE_ROWS)
    cursor, number, more = 0, 0, True
    while more:
        page = fleet.read_events(cursor=cursor, task_id=task_id, limit=JOURNAL_PAGE)
        newest.extend(page.events)
        cursor, number, more = page.next_cursor, number + len(page.events), page.more
    return _json({"events": list(newest), "left_out": number - len(newest), "next_cursor": cursor})


def _output(fleet: Headcount, agent_id: str) -> str:
    shown: str = fleet.get_agent_output(agent_id, tail=200, max_bytes=OUTPUT_BYTES).text
    return shown


def _json(answer: object) -> str:
    return json.dumps(plain(answer), ensure_ascii=False, indent=1)
