"""How long a deploy takes until its agent is confirmed to run and that is durable.

    python benchmarks/deploy_time.py [--slack 2] [--smoke] [--json]

Through the warm library, with the daemon and the views as in daily use and without both; beside 100,000
ended runs; and through MCP with its bridge and daemon warm. Each deploy is taken in turn with a bare Python,
and its agent is ended before the next.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from figures import BARE_NAME, Figure, bare, in_turn, main, median, times, within
from grounds import MANY, SLEEP, Deployer, daemon, fleet, ground

from tests.support.daemons import Bridge
from tests.support.histories import fill

RATIO = 3.0
GROWTH = 1.2
MCP_MORE_MS = 5.0


def figures(*, smoke: bool) -> Iterator[Figure]:
    rounds, many = (2, 500) if smoke else (40, MANY)
    with ground() as place:
        yield from by_library(place, rounds, many)
    with ground() as place:
        yield from by_mcp(place, rounds)


def by_library(place: Path, rounds: int, many: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        plain = Deployer(stack.enter_context(fleet(place / "plain")), place)
        daily = Deployer(stack.enter_context(fleet(place / "daily", views=True)), place)
        grown = Deployer(stack.enter_context(fleet(place / "grown")), place)
        fill(grown.fleet, many)
        stack.enter_context(daemon(place / "daily"))

        def clear() -> None:
            for each in (plain, daily, grown):
                each.clear()

        raw, first, second, third = in_turn(
            (bare, plain.deploy, daily.deploy, grown.deploy), rounds, between=clear
        )
    yield times("deploy, with daemon and views", second, raw, RATIO, raw_name=BARE_NAME)
    yield times("deploy, without both", first, raw, RATIO, raw_name=BARE_NAME)
    yield times(f"deploy beside {many:,} ended runs", third, first, GROWTH, raw_name="the same beside none")


def by_mcp(place: Path, rounds: int) -> Iterator[Figure]:
    with fleet(place / "h") as opened, daemon(place / "h", views=False), Bridge(place / "h") as bridge:
        deployer = Deployer(opened, place)
        asked: dict[str, Any] = {"harness": "command", "command": list(SLEEP), "allow_duplicate_role": True}

        def by_tool() -> None:
            made = bridge.call("deploy_headless_agent", task_id=deployer.task, agent_type="builder", **asked)
            agents.append(made["agent_id"])

        def clear() -> None:
            deployer.clear()
            while agents:
                opened.kill_agent(agents.pop())

        agents: list[str] = []
        library, mcp = in_turn((deployer.deploy, by_tool), rounds, between=clear)
    more = median(mcp) - median(library)
    yield within(
        "deploy through MCP, more than by library",
        mcp,
        MCP_MORE_MS,
        raw=library,
        raw_name="by library",
        found=more,
    )


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
