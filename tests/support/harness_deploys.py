"""A real agent program deployed by the MCP door, as a client does it.

A test module that imports `door` has a client's `headcount mcp`; its own fixture `cli` says which program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import daemons
from tests.support.agent_clis import AgentCli
from tests.support.daemons import Bridge
from tests.support.model_server import Step, play


@pytest.fixture
def door(home: Path, cli: AgentCli, tmp_path: Path) -> Iterator[Bridge]:
    """A client's `headcount mcp` with the program in its PATH; it starts the daemon itself."""
    try:
        with Bridge(home, env=cli.env, cwd=tmp_path) as bridge:
            yield bridge
    finally:
        daemons.end(home)


def ours(tool: str, **arguments: object) -> Step:
    """Return a step that calls a tool of Headcount's own."""
    return {"mcp": {"server": "headcount", "tool": tool, "arguments": arguments}}


def deploy(
    door: Bridge, cli: AgentCli, work: Path, steps: Sequence[Step], options: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    """Deploy it to play `steps`; return the task and the agent."""
    task: str = door.call("create_task", description="Import the orders", project=str(work))["task_id"]
    agent = door.call(
        "deploy_headless_agent",
        task_id=task,
        agent_type="builder",
        harness=cli.name,
        prompt=f"Do as the script says. {play(list(steps))}",
        options=dict(options or {}),
    )
    return task, agent["agent_id"]


def ended(door: Bridge, agent_id: str) -> Mapping[str, Any]:
    """Wait for the end of an agent and return its facts."""
    done: Mapping[str, Any] = {"done": False}
    for _ in range(3):  # a call waits no longer than its door does
        if not done["done"]:
            done = door.call("wait_for_agents", agent_ids=[agent_id], timeout=45, patience=60)
    assert done["done"], done
    found: Mapping[str, Any] = done["agents"][0]
    return found
