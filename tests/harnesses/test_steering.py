"""Agents that are told, asked and cancelled in their work, with the real programs."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import agent_clis, daemons
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.daemons import Bridge
from tests.support.model_server import ModelServer, Step, play
from tests.support.waiting import until

__all__ = ["agent_cli", "model_server"]  # fixtures


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


class Fleet:
    """One task, for agents of one program."""

    def __init__(self, cli: AgentCli, door: Bridge, work: Path) -> None:
        self.door, self.harness = door, cli.name
        self.task = door.call("create_task", description="Import the orders", project=str(work))["task_id"]

    def deploy(self, steps: Sequence[Step], **options: Any) -> str:
        agent = self.door.call(
            "deploy_headless_agent",
            task_id=self.task,
            agent_type="builder",
            harness=self.harness,
            prompt=f"Do as the script says. {play(steps)}",
            options={"steer": True, **options},
        )
        return str(agent["agent_id"])

    def ended(self, agent_id: str) -> Mapping[str, Any]:
        done = self.door.call("wait_for_agents", agent_ids=[agent_id], timeout=45, patience=60)
        if not done["done"]:
            done = self.door.call("wait_for_agents", agent_ids=[agent_id], timeout=45, patience=60)
        assert done["done"], (done, self.output(agent_id))
        found: Mapping[str, Any] = done["agents"][0]
        return found

    def output(self, agent_id: str, format: str = "recent") -> str:
        page = self.door.call("get_agent_output", agent_id=agent_id, format=format, max_bytes=16000)
        return str(page["text"])


@pytest.fixture
def fleet_of(
    home: Path, tmp_path: Path, agent_cli: AgentClis, work: Path
) -> Iterator[Callable[[str], Fleet]]:
    """A client's `headcount mcp` with the program in its PATH; it starts the daemon itself."""
    opened: list[Bridge] = []

    def give(name: str) -> Fleet:
        cli = agent_cli(name)
        opened.append(Bridge(home, env={**cli.env, "IS_SANDBOX": "1"}, cwd=tmp_path))
        return Fleet(cli, opened[0], work)

    try:
        yield give
    finally:
        for each in opened:
            each.__exit__()
        daemons.end(home)


STEERED = agent_clis.every("claude", "codex", "pi", "gemini", "opencode", "qwen", "copilot")


CUT_SHORT = ("gemini", "copilot", "qwen")
"""The first two end a turn in which they are told something; the third refuses a command that sleeps."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", STEERED)
def test_it_is_told_in_the_middle_of_its_work(
    name: str, fleet_of: Callable[[str], Fleet], work: Path, model_server: ModelServer
) -> None:
    fleet = fleet_of(name)
    slow = f"while [ ! -e {work}/go ]; do sleep 0.1; done; echo ran > ran.txt"
    agent = fleet.deploy([{"bash": slow}, {"text": "First."}], permissions="bypass")
    until(lambda: "ran.txt" in fleet.output(agent), what="its shell runs", patience=60)
    sent = fleet.door.call("send_message", agent_id=agent, text=f"More: {play([{'text': 'Second.'}])}")
    assert sent["way"] == "steer"
    (work / "go").touch()
    facts = fleet.ended(agent)
    said = fleet.output(agent)
    answer = "First." if name == "claude" else "Second."  # Claude Code puts it beside a tool's result
    assert (facts["outcome"], facts["result"]["text"]) == ("completed", answer), said
    assert any("Second." in json.dumps(each.body) for each in model_server.asked)
    assert (work / "ran.txt").exists() or name in CUT_SHORT
    (message,) = fleet.door.call("list_messages", agent_id=agent)["messages"]
    assert message["state"] == "delivered"
    assert "was told: More:" in said
    until(lambda: fleet.door.call("get_agent", agent_id=agent)["runs"][0].get("account"), what="its account")
    account = fleet.door.call("get_agent", agent_id=agent)["runs"][0]["account"]
    assert (account["answer"], account["unknown"]) == (answer, 0), account


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", STEERED)
def test_its_turn_is_cancelled_and_its_conversation_goes_on(
    name: str, fleet_of: Callable[[str], Fleet], work: Path, model_server: ModelServer
) -> None:
    fleet = fleet_of(name)
    agent = fleet.deploy(
        [{"text": "First.", "bash": "echo a"}, {"gate": True, "text": "late"}], permissions="bypass"
    )
    until(lambda: len(model_server.asked) > 1, what="it is at work", patience=60)
    assert fleet.door.call("cancel_turn", agent_id=agent)["state"] in {"cancelled", "asked"}
    facts = fleet.ended(agent)
    assert (facts["outcome"], facts["ending"]) == ("stopped", "stopped"), fleet.output(agent)
    model_server.gate.set()
    if name == "gemini":  # it loses a conversation that is loaded over ACP
        return
    fleet.door.call("send_message", agent_id=agent, text=f"Again: {play([{'text': 'Third.'}])}")
    until(lambda: len(fleet.door.call("get_agent", agent_id=agent)["runs"]) == 2, what="it goes on")
    facts = fleet.ended(agent)
    assert (facts["outcome"], facts["result"]["text"]) == ("completed", "Third."), fleet.output(agent)
    assert "First." in json.dumps(model_server.asked[-1].body)


@pytest.mark.harnesses
@pytest.mark.timeout(240)
def test_claude_asks_a_person(
    fleet_of: Callable[[str], Fleet], work: Path, model_server: ModelServer
) -> None:
    fleet = fleet_of("claude")
    agent = fleet.deploy(
        [{"bash": "curl -s file:///dev/null; echo ran > ran.txt"}, {"text": "All done."}], permissions="ask"
    )
    until(lambda: fleet.door.call("list_approvals")["approvals"], what="it asks", patience=60)
    (asked,) = fleet.door.call("list_approvals")["approvals"]
    assert (asked["agent_id"], asked["kind"]) == (agent, "execute")
    fleet.door.call("answer_approval", approval_id=asked["id"], allow=True)
    assert fleet.ended(agent)["outcome"] == "completed"
    assert (work / "ran.txt").read_text() == "ran\n"
