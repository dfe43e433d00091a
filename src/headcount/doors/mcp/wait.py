"""A wait, on the loop: short looks from a thread, so that hundreds of waits hold up nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from headcount.api import Headcount
from headcount.doors.mcp.crew import Crew
from headcount.doors.mcp.shape import Page, page
from headcount.services.answers import Waited

LOOK_EVERY: Final = 0.1
"""Seconds between looks into the journal, which costs a fraction of a millisecond."""
LOOK_ANYWAY: Final = 2.0
"""Seconds after which the processes are looked at, whatever the journal says."""
PULSE: Final = 5.0
"""Seconds between progress notes: some clients take longer silence for a hang."""

Progress = Callable[[float, float | None, str | None], Awaitable[None]]


async def follow(crew: Crew, fleet: Headcount, arguments: Mapping[str, Any], progress: Progress) -> Page:
    """Wait as `wait_for_agents` is asked to; tell the client every few seconds, if it wants to know."""
    loop = asyncio.get_running_loop()
    began = looked = loop.time()
    limit = float(arguments["timeout"])
    wish = {name: arguments[name] for name in ("task_id", "any", "until")}
    agents, cursor, told = arguments["agent_ids"] or (), arguments["cursor"], 0.0
    read = 0

    def look() -> Waited:
        return fleet.wait_for_agents(agents, **wish, timeout=0.0, cursor=cursor)

    def news() -> bool:
        nonlocal read
        page = fleet.read_events(cursor=read, limit=1000)
        read = page.next_cursor
        return bool(page.events)

    answer = await crew.do(look)
    read = int(answer.cursor or 0)
    while not answer.done and (spent := loop.time() - began) < limit:
        cursor = cursor or answer.cursor
        if spent - told >= PULSE:
            told = spent
            await progress(spent, limit, f"waiting for {', '.join(answer.pending[:5])}")
        await asyncio.sleep(min(LOOK_EVERY, limit - spent))
        if loop.time() - looked >= LOOK_ANYWAY or await crew.do(news):
            answer, looked = await crew.do(look), loop.time()
    return page(replace(answer, waited_s=round(loop.time() - began, 3)), more="list_agents pages through all")
