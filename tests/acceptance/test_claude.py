"""The narrow path with the real Claude Code: deployed by MCP, it reports, finds, spawns, edits, ends."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headcount.config import Home
from tests.support import daemons, needs
from tests.support.claude_cli import ClaudeCli, claude_cli, model_server
from tests.support.daemons import Bridge
from tests.support.model_server import ModelServer, Step, play
from tests.support.waiting import until

__all__ = ["claude_cli", "model_server"]  # fixtures
pytestmark = pytest.mark.harnesses

CHILD = [{"say": "I am the child"}, {"edit": {"path": "child.txt", "content": "made\n"}}]


def ours(tool: str, **arguments: object) -> Step:
    return {"mcp": {"server": "headcount", "tool": tool, "arguments": arguments}}


@pytest.fixture
def door(home: Path, claude_cli: ClaudeCli, tmp_path: Path) -> Iterator[Bridge]:
    """A client's `headcount mcp` with Claude Code in its PATH; it starts the daemon itself. With views."""
    needs.program("tmux", how="apt-get install tmux")
    try:
        with Bridge(home, env={**claude_cli.env, "HEADCOUNT_VIEWS": "1"}, cwd=tmp_path) as bridge:
            yield bridge
    finally:
        daemons.end(home)
        tmux(home, "kill-server")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    (made / "pyproject.toml").write_text("[project]\nname = 'x'\ndependencies = ['django']\n")
    return made


def deploy(door: Bridge, project: Path, steps: list[Step]) -> tuple[str, Mapping[str, Any]]:
    task = door.call("create_task", description="Import the orders", project=str(project))["task_id"]
    prompt = f"Do as the script says. {play(steps)}"
    agent = door.call(
        "deploy_headless_agent", task_id=task, agent_type="builder", prompt=prompt, model="sonnet"
    )
    return task, agent


def ended(door: Bridge, agent_id: str) -> Mapping[str, Any]:
    done = door.call("wait_for_agents", agent_ids=[agent_id], timeout=45, patience=60)
    assert done["done"], done
    found: Mapping[str, Any] = done["agents"][0]
    return found


def test_claude_works_for_a_task_and_everything_about_it_is_known(
    home: Path, door: Bridge, project: Path, model_server: ModelServer
) -> None:
    (home / "settings.toml").write_text("rights_shrink = false\n")  # a script is held to nothing
    steps: list[Step] = [
        ours("update_agent_progress", status="working", message="reading", progress=40),
        ours("report_agent_finding", finding_type="issue", severity="high", message="no mail is read"),
        ours("spawn_child_agent", agent_type="tester", harness="script", prompt=json.dumps(CHILD)),
        {"text": "I write it.", "write": {"path": str(project / "made.txt"), "content": "by claude\n"}},
        {"gate": True, "text": "All done."},
    ]
    task, agent = deploy(door, project, steps)
    until((project / "made.txt").exists, what="claude has written its file", patience=60)
    session = agent["tmux_session"]
    sessions = door.call("registry_health_check")["sessions"]
    assert {"name": session, "agent_id": agent["agent_id"], "known": True} in sessions
    until(lambda: "I write it." in screen(home, session), what="its view shows what it says")
    model_server.gate.set()
    facts = ended(door, agent["agent_id"])
    assert (facts["state"], facts["outcome"], facts["exit_code"]) == ("ended", "completed", 0)
    assert (facts["reported"], facts["progress"]) == ("working", 40)
    assert facts["result"]["text"] == "All done."
    assert facts["usage"]["cost_usd"] > 0
    (finding,) = door.call("get_findings", task_id=task)["findings"]
    assert (finding["agent_id"], finding["severity"]) == (agent["agent_id"], "high")
    child = next(
        each
        for each in door.call("list_agents", task_id=task, all=True)["agents"]
        if each["role"] == "tester"
    )
    assert (child["parent"], child["depth"]) == (agent["agent_id"], 2)
    assert ended(door, child["agent_id"])["outcome"] == "completed"
    assert (project / "child.txt").read_text() == "made\n"
    recent = door.call("get_agent_output", agent_id=agent["agent_id"], format="recent")["text"]
    assert "[ASST] I write it." in recent
    assert "[TOOL] mcp__headcount__report_agent_finding" in recent
    health = until(lambda: settled(door), what="the views of what has ended are gone")
    assert health is not None
    assert (health["live_rows"], health["sessions"]) == (0, [])


def settled(door: Bridge) -> Mapping[str, Any] | None:
    found = door.call("registry_health_check")
    return found if found["healthy"] and not found["sessions"] else None


def screen(home: Path, session: str) -> str:
    """Return what the view of an agent shows."""
    return tmux(home, "capture-pane", "-p", "-t", f"={session}:")


def tmux(home: Path, *command: str) -> str:
    argv = ["tmux", "-S", str(Home(home).tmux_socket), *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout


def test_claude_is_told_who_it_is_what_to_do_and_how_to_report(
    door: Bridge, project: Path, model_server: ModelServer
) -> None:
    task, agent = deploy(door, project, [{"text": "Done."}])
    ended(door, agent["agent_id"])
    prompt = json.dumps(model_server.asked[0].body["messages"])
    for words in (
        agent["agent_id"],
        task,
        "Import the orders",
        "Django",
        "update_agent_progress",
        "role builder",
    ):
        assert words in prompt


def test_a_claude_that_the_api_refuses_has_failed_and_says_why(
    door: Bridge, project: Path, model_server: ModelServer
) -> None:
    _, agent = deploy(door, project, [{"status": 401, "message": "no such key"}])
    facts = ended(door, agent["agent_id"])
    assert (facts["outcome"], facts["exit_code"]) == ("failed", 1)
    assert "no such key" in facts["reason"]


def test_a_claude_that_is_stopped_leaves_nothing(
    door: Bridge, project: Path, model_server: ModelServer
) -> None:
    _, agent = deploy(door, project, [{"bash": "sleep 300"}])
    until(lambda: model_server.asked, what="it is at work", patience=60)
    stopped = door.call("stop_agent", agent_id=agent["agent_id"], grace=2)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
