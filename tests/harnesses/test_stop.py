"""What is known of a real agent CLI that was told to stop in the middle of its work."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.agent_processes import by_agent
from tests.support.daemons import Bridge
from tests.support.harness_deploys import deploy, door
from tests.support.model_server import ModelServer, Step
from tests.support.waiting import until

__all__ = ["agent_cli", "door", "model_server"]  # fixtures
pytestmark = [pytest.mark.harnesses, pytest.mark.timeout(240)]


@pytest.fixture
def cli(agent_cli: AgentClis) -> AgentCli:
    found = agent_cli("claude")
    return AgentCli(found.name, found.program, found.home, {**found.env, "IS_SANDBOX": "1"})


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


@pytest.mark.parametrize("steer", [False, True], ids=["plain", "steered"])
def test_a_stopped_claude_has_said_what_it_used(
    steer: bool, home: Path, door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    begun = work / "begun"
    steps: list[Step] = [
        {"bash": "true", "usage": {"input_tokens": 700, "output_tokens": 30}},
        {"bash": f"touch {begun}; exec sleep 302", "usage": {"input_tokens": 900, "output_tokens": 40}},
        {"text": "Never."},
    ]
    _, agent = deploy(door, cli, work, steps, {"permissions": "bypass", "steer": steer})
    until(begun.exists, what="its shell is at work", patience=120)
    stopped = door.call("stop_agent", agent_id=agent, grace=10)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
    assert by_agent(home) == {}
    until(lambda: account(door, agent), what="its account")
    found = account(door, agent)
    assert (found["input"], found["output"]) == (1600, 70), found
    assert found["cost_from"] == "program"
    assert found["cost_usd"] > 0


def account(door: Bridge, agent: str) -> Any:
    return door.call("get_agent", agent_id=agent)["runs"][-1].get("account")
