"""Resources: what a person mentions in a client, and what an answer points to. Read-only.

A body is a page, as a tool's answer is: it says how to get what it leaves out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from headcount.api import Headcount
from headcount.domain.errors import HeadcountError, InvalidInput, NotFound
from headcount.doors.mcp.asked import REQUEST
from headcount.doors.mcp.shape import PAGE_CHARS, compact, page, paged, rows_that_fit
from headcount.services import rights

if TYPE_CHECKING:
    from headcount.doors.mcp.app import Door
    from headcount.services.answers import EventFacts

JSON: Final = "application/json"
TASK_ROWS: Final = 100
TIMELINE_ROWS: Final = 200
JOURNAL_PAGE: Final = 1000
OUTPUT_LINES: Final = 200
HEAD_CHARS: Final = 400
"""What the lines that say what is left out of an output take at most."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource. `look` takes the fleet as the caller sees it, and the id that stands in the URI."""

    uri: str
    name: str
    title: str
    description: str
    look: Callable[..., str]
    mime_type: str = JSON


def tasks(fleet: Headcount) -> str:
    """Return the newest tasks."""
    shown = paged(
        lambda rows: fleet.list_tasks(limit=rows),
        "tasks",
        limit=TASK_ROWS,
        more="list_tasks(cursor=next_cursor) goes on; 'headcount task list' has all",
    )
    return compact(shown.facts)


def status(fleet: Headcount, task_id: str) -> str:
    """Return where a task stands."""
    more = "list_agents, get_findings and read_events page through all; 'headcount status' shows it"
    return compact(page(fleet.get_task_status(task_id), more=more).facts)


def progress(fleet: Headcount, task_id: str) -> str:
    """Return the end of a task's journal, oldest first, and how much came before it."""
    fleet.get_task_status(task_id)  # a task that does not exist has no empty timeline
    newest: deque[EventFacts] = deque(maxlen=TIMELINE_ROWS)
    cursor, number, more = 0, 0, True
    while more:
        read = fleet.read_events(cursor=cursor, task_id=task_id, limit=JOURNAL_PAGE)
        newest.extend(read.events)
        cursor, number, more = read.next_cursor, number + len(read.events), read.more
    rest = f"read_events(task_id={task_id!r}) and 'headcount events --task {task_id}' page through all"

    def end(rows: int) -> dict[str, object]:
        """Return the newest rows, newest first: a page is cut at its end."""
        shown = list(newest)[::-1][:rows]
        left_out = number - len(shown)
        pointer = {"next": rest} if left_out else {}
        return {"events": shown, "left_out": left_out, "next_cursor": cursor, **pointer}

    fits = rows_that_fit(end(len(newest)), "events")
    facts = page(end(len(newest) if fits is None else fits), more=rest).facts
    return compact({**facts, "events": facts["events"][::-1]})


def output(fleet: Headcount, agent_id: str) -> str:
    """Return the end of what an agent wrote, below a line that says what came before it, if anything did."""
    room = PAGE_CHARS - HEAD_CHARS
    shown = fleet.get_agent_output(agent_id, tail=OUTPUT_LINES, max_bytes=room)
    cut = [
        f"{shown.bytes_before} bytes came before" if shown.bytes_before else "",
        f"{shown.lines_left_out} lines had no room" if shown.lines_left_out else "",
        f"{shown.lines_shortened} lines are shortened" if shown.lines_shortened else "",
    ]
    if not any(cut):
        return shown.text
    how = f"get_agent_output(agent_id={agent_id!r}, cursor=0) pages through all"
    return f"[{', '.join(filter(None, cut))}; {how}; so does 'headcount logs {agent_id}']\n{shown.text}"


RESOURCES: Final = (
    Resource("tasks://list", "tasks", "Tasks", "All tasks, newest first", tasks),
    Resource(
        "task://{task_id}/status",
        "task-status",
        "Status of a task",
        "Agents, counts, refusals, latest reports and findings",
        status,
    ),
    Resource(
        "task://{task_id}/progress-timeline",
        "task-progress-timeline",
        "Progress of a task over time",
        "The end of its journal: deploys, reports, findings and ends, oldest first",
        progress,
    ),
    Resource(
        "agent://{agent_id}/output",
        "agent-output",
        "Output of an agent",
        "The end of what it wrote, readable",
        output,
        "text/plain",
    ),
)


def mount(server: MCPServer[Any], door: Door) -> None:
    """Put the resources on the server."""
    for each in RESOURCES:
        named = server.resource(
            each.uri,
            name=each.name,
            title=each.title,
            description=each.description,
            mime_type=each.mime_type,
        )
        named(_bound(each, door))


def _bound(resource: Resource, door: Door) -> Callable[..., Awaitable[str]]:
    """Return what the SDK calls: a function whose arguments are named as in the URI."""

    async def read(*ids: str) -> str:
        request = REQUEST.get()

        def look() -> str:
            fleet = door.asked(request).fleet
            rights.check_live(fleet.context)
            return resource.look(fleet, *ids)

        try:
            return await door.crew.do(look)
        except (NotFound, InvalidInput) as error:
            raise ResourceNotFoundError(f"{error.code}: {error.message}") from error
        except HeadcountError as error:
            raise ResourceError(f"{error.code}: {error.message}") from error

    async def of_all() -> str:
        return await read()

    async def of_task(task_id: str) -> str:
        return await read(task_id)

    async def of_agent(agent_id: str) -> str:
        return await read(agent_id)

    if "{task_id}" in resource.uri:
        return of_task
    return of_agent if "{agent_id}" in resource.uri else of_all
