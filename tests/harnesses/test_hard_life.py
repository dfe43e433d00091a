"""What goes wrong around a real agent CLI while it works for a task, and what is left when it is killed."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from headcount.domain.options import Ability
from headcount.harnesses.catalogue import find
from tests.support import agent_clis, agent_processes, daemons
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.daemons import Bridge
from tests.support.harness_deploys import deploy, door, ended, ours
from tests.support.model_server import ModelServer, Step
from tests.support.waiting import until

__all__ = ["agent_cli", "door", "model_server"]  # fixtures
pytestmark = [pytest.mark.harnesses, pytest.mark.timeout(240)]

MODELS: Final = {"gemini": {"model": "gemini-2.5-pro"}}
LINES: Final = 200_000
ENDS: Final = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "KILL": signal.SIGKILL, "stop": None}


@pytest.fixture(params=agent_clis.every())
def cli(request: pytest.FixtureRequest, agent_cli: AgentClis) -> AgentCli:
    found = agent_cli(request.param)
    return AgentCli(found.name, found.program, found.home, {**found.env, "IS_SANDBOX": "1"})


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


def reporting(cli: AgentCli, message: str, progress: int) -> Step:
    if Ability.MCP_STDIO in find(cli.name).abilities:
        return ours("update_agent_progress", status="working", message=message, progress=progress)
    return {"bash": f"headcount report working {message} --progress {progress}"}


def failing(cli: AgentCli) -> Step:
    if Ability.MCP_STDIO in find(cli.name).abilities:
        return ours("report_agent_finding", finding_type="note", severity="unheard-of", message="x")
    return {"bash": "headcount finding note x --severity unheard-of"}


def test_it_gets_over_a_failing_tool_a_flood_a_refusal_and_a_daemon_that_is_killed(
    home: Path, door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    forbidden = Path("/var/tmp") / f"headcount-{os.getpid()}-{cli.name}"
    steps: list[Step] = [
        failing(cli),
        {"bash": f"seq {LINES}"},
        {"bash": f"touch {forbidden}"},
        reporting(cli, "before", 30),
        {"gate": True, **reporting(cli, "after", 70)},
        {"text": "All done."},
    ]
    rules = Ability.TOOL_RULES in find(cli.name).abilities
    options = {"allowed_tools": ["shell(headcount)", "shell(seq)"]} if rules else {}
    _, agent = deploy(door, cli, work, steps, {**options, **MODELS.get(cli.name, {})})
    until(lambda: progress(door, agent) == 30, what="it has got so far", patience=120)
    daemons.kill(home)
    assert progress(door, agent) == 30  # a new daemon answers, and counts it
    (row,) = door.call("list_agents")["agents"]
    assert (row["agent_id"], row["state"]) == (agent, "running")
    model_server.gate.set()

    facts = ended(door, agent)
    assert (facts["outcome"], facts["progress"], facts["message"]) == ("completed", 70, "after"), facts
    assert facts["result"]["text"] == "All done."
    assert not forbidden.exists()
    until(lambda: door.call("get_agent", agent_id=agent)["runs"][-1].get("account"), what="its account")
    account = door.call("get_agent", agent_id=agent)["runs"][-1]["account"]
    # What Codex's sandbox refuses at once has no event in its stream: only the model is told.
    told = 1 if cli.name == "codex" else 2
    assert account["failed_calls"] + len(account["denied"]) >= told
    assert (account["torn"], account["unknown"]) == (0, 0)
    assert door.call("registry_health_check")["healthy"]


def progress(door: Bridge, agent: str) -> object:
    return door.call("get_agent", agent_id=agent).get("progress")


@pytest.mark.parametrize("how", ENDS)
def test_however_it_is_ended_nothing_of_it_survives(
    how: str, home: Path, door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    begun = work / "begun"
    steps: list[Step] = [{"bash": f"setsid sleep 301 & touch {begun}; exec sleep 302"}, {"text": "Never."}]
    options = {"permissions": "bypass", **MODELS.get(cli.name, {})}
    _, agent = deploy(door, cli, work, steps, options)
    until(begun.exists, what="its shell is at work", patience=120)
    assert len(agent_processes.by_agent(home)[agent]) > 1
    number = ENDS[how]
    if number is None:
        stopped = door.call("stop_agent", agent_id=agent, grace=2)
        assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
    else:
        os.kill(door.call("get_agent", agent_id=agent)["pid"], number)
        assert ended(door, agent)["outcome"] == "failed"
    assert agent_processes.by_agent(home) == {}
    assert door.call("list_agents")["agents"] == []


def test_a_model_that_never_answers_holds_up_its_agent_alone_and_no_stop(
    home: Path, door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    _, agent = deploy(door, cli, work, [{"hang": True, "text": "never"}], MODELS.get(cli.name, {}))
    until(lambda: any(each.step == 0 for each in model_server.asked), what="its model is asked", patience=120)
    assert door.call("list_agents")["agents"][0]["state"] == "running"
    stopped = door.call("stop_agent", agent_id=agent, grace=2)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
    assert agent_processes.by_agent(home) == {}
    assert door.call("registry_health_check")["healthy"]
