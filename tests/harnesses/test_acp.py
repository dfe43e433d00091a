"""The acp harness with real agents that speak the Agent Client Protocol."""

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

SPEAKERS = agent_clis.every("gemini", "opencode", "qwen", "copilot")
REPORTERS = agent_clis.every("gemini", "opencode", "qwen")  # Copilot uses no MCP server that it gets over ACP
SLEEPERS = agent_clis.every("gemini", "opencode", "copilot")  # Qwen refuses a command that only waits
Doors = Callable[[AgentCli], Bridge]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


@pytest.fixture
def door(home: Path, tmp_path: Path) -> Iterator[Doors]:
    """A client's `headcount mcp` with the program in its PATH; it starts the daemon itself."""
    opened: list[Bridge] = []

    def give(cli: AgentCli) -> Bridge:
        opened.append(Bridge(home, env=cli.env, cwd=tmp_path))
        return opened[0]

    try:
        yield give
    finally:
        for each in opened:
            each.__exit__()
        daemons.end(home)


class Fleet:
    """One task, for agents of one program."""

    def __init__(self, cli: AgentCli, door: Bridge, work: Path) -> None:
        self.door = door
        self.command, _ = agent_clis.acp(cli)
        # what is here of its user's variables goes to the agent, as `--env` says
        self.env = [name for name in cli.env if name not in ("PATH", "HOME")]
        self.task = door.call("create_task", description="Import the orders", project=str(work))["task_id"]

    def deploy(self, steps: Sequence[Step], **options: Any) -> str:
        agent = self.door.call(
            "deploy_headless_agent",
            task_id=self.task,
            agent_type="builder",
            harness="acp",
            prompt=f"Do as the script says. {play(steps)}",
            command=list(self.command),
            env=self.env,
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
def fleet_of(agent_cli: AgentClis, door: Doors, work: Path) -> Callable[[str], Fleet]:
    def give(name: str) -> Fleet:
        cli = agent_cli(name)
        return Fleet(cli, door(cli), work)

    return give


def report(status: str = "working") -> Step:
    arguments = {"status": status, "message": "reading", "progress": 40}
    return {"mcp": {"server": "headcount", "tool": "update_agent_progress", "arguments": arguments}}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", REPORTERS)
def test_it_works_for_a_task_and_everything_about_it_is_known(
    name: str, fleet_of: Callable[[str], Fleet], work: Path, model_server: ModelServer
) -> None:
    fleet = fleet_of(name)
    steps: list[Step] = [
        report(),
        {"think": "Hm.", "bash": "echo ran > ran.txt"},
        {"text": "I write.", "write": {"path": str(work / "made.txt"), "content": "made\n"}},
        {"text": "All done."},
    ]
    agent = fleet.deploy(steps, allowed_tools=["shell"])
    facts = fleet.ended(agent)
    said = fleet.output(agent)
    assert (facts["outcome"], facts["result"]["text"]) == ("completed", "All done."), said
    assert (facts["reported"], facts["progress"]) == ("working", 40), said
    assert (work / "ran.txt").read_text() == "ran\n"
    assert (work / "made.txt").read_text() == "made\n"
    (run,) = fleet.door.call("get_agent", agent_id=agent)["runs"]
    until(
        lambda: fleet.door.call("get_agent", agent_id=agent)["runs"][0]["account"], what="its account is made"
    )
    (run,) = fleet.door.call("get_agent", agent_id=agent)["runs"]
    account = run["account"]
    assert (account["tool_calls"] >= 3, account["failed_calls"], account["unknown"]) == (True, 0, 0), account
    assert account["files"] == [str(work / "made.txt")], account
    assert account["session_id"] == run["session_id"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SPEAKERS)
def test_what_it_may_not_do_is_denied_or_asked(
    name: str, fleet_of: Callable[[str], Fleet], work: Path, model_server: ModelServer
) -> None:
    fleet = fleet_of(name)
    if name == "opencode":  # asks only where its user's settings say so
        settings = next(work.parent.glob("opencode-home/.config/opencode/opencode.json"))
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "permission": {"bash": "ask"}}))
    agent = fleet.deploy([{"bash": "echo ran > ran.txt"}, {"text": "All done."}], permissions="ask")
    until(lambda: fleet.door.call("list_approvals")["approvals"], what="it asks", patience=60)
    (asked,) = fleet.door.call("list_approvals")["approvals"]
    assert (asked["agent_id"], asked["kind"]) == (agent, "execute")
    assert "echo ran" in asked["title"] + asked.get("arguments", "")
    fleet.door.call("answer_approval", approval_id=asked["id"], allow=True)
    assert fleet.ended(agent)["outcome"] == "completed"
    assert (work / "ran.txt").read_text() == "ran\n"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SPEAKERS)
def test_it_is_told_in_its_work_and_resumed(
    name: str, fleet_of: Callable[[str], Fleet], work: Path, model_server: ModelServer
) -> None:
    fleet = fleet_of(name)
    agent = fleet.deploy(
        [{"text": "First.", "bash": "echo a >> a.txt"}, {"gate": True, "text": "late"}],
        allowed_tools=["shell"],
    )
    until(lambda: len(model_server.asked) > 1, what="it is at work", patience=60)
    sent = fleet.door.call("send_message", agent_id=agent, text=f"More: {play([{'text': 'Second.'}])}")
    assert sent["way"] == "steer"
    model_server.gate.set()
    facts = fleet.ended(agent)
    assert (facts["outcome"], facts["result"]["text"]) == ("completed", "Second."), fleet.output(agent)
    (message,) = fleet.door.call("list_messages", agent_id=agent)["messages"]
    assert message["state"] == "delivered"

    again = f"Again: {play([{'text': 'Third.'}])}"
    fleet.door.call("resume_agent", agent_id=agent, prompt=again, env=fleet.env)
    facts = fleet.ended(agent)
    if name == "gemini" and facts["outcome"] == "failed":
        # 0.61.0 overwrites most conversations before it looks for them; then it says so, and begins none
        assert "session/load failed" in facts["reason"]
        return
    assert (facts["outcome"], facts.get("result", facts).get("text")) == ("completed", "Third."), (
        facts.get("reason"),
        fleet.output(agent),
    )
    assert "First." not in fleet.output(agent)
    said = json.dumps(model_server.asked[-1].body)
    assert "First." in said


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SLEEPERS)
def test_its_turn_is_cancelled(
    name: str, fleet_of: Callable[[str], Fleet], work: Path, model_server: ModelServer
) -> None:
    fleet = fleet_of(name)
    agent = fleet.deploy(
        [{"bash": "sleep 100 # intentional-sleep: a test"}, {"text": "late"}], allowed_tools=["shell"]
    )
    until(lambda: "sleep 100" in fleet.output(agent, "text"), what="it sleeps", patience=60)
    fleet.door.call("cancel_turn", agent_id=agent)
    facts = fleet.ended(agent)
    assert (facts["outcome"], facts["ending"]) == ("stopped", "stopped"), fleet.output(agent)
