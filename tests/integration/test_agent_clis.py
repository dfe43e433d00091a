"""Each real agent CLI by itself against the scripted model: the ground that the harness tests stand on."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import agent_clis, agent_runs, leftovers
from tests.support.agent_clis import AgentClis, AgentEnv, agent_cli, agent_env, model_server
from tests.support.model_server import ModelServer, Step, play

__all__ = ["agent_cli", "agent_env", "model_server"]  # fixtures


@pytest.mark.parametrize("name", agent_clis.every())
def test_it_runs_a_command_writes_a_file_and_says_so(
    name: str, agent_cli: AgentClis, model_server: ModelServer, tmp_path: Path
) -> None:
    cli, work = agent_cli(name), tmp_path / "work"
    work.mkdir()
    made = work / "made.txt"
    steps: list[Step] = [
        {"text": "I look.", "bash": "echo ran > ran.txt"},
        {"write": {"path": str(made), "content": "by an agent\n"}},
        {"text": "All is done."},
    ]
    process = agent_runs.start(cli, work, f"Do as the script says. {play(steps)}")
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err.decode()
    assert (work / "ran.txt").read_text() == "ran\n"
    assert made.read_text() == "by an agent\n"
    played = [asked for asked in model_server.asked if asked.step is not None]
    assert [asked.step for asked in played] == [0, 1, 2]
    assert {asked.key for asked in played} == {agent_clis.KEY}


@pytest.mark.parametrize("name", agent_clis.every(*(name for name in agent_clis.NAMES if name != "pi")))
def test_it_finds_and_calls_a_tool_of_an_mcp_server(
    name: str, agent_cli: AgentClis, model_server: ModelServer, tmp_path: Path
) -> None:
    given = {"server": agent_runs.SERVER, "tool": "update_agent_progress", "arguments": {"status": "at work"}}
    steps: list[Step] = [
        {"mcp": given},
        {"bash": "echo '${0:arguments.status}' > heard.txt"},
        {"text": "Done."},
    ]
    process = agent_runs.start(agent_cli(name), tmp_path, play(steps), mcp=True)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err.decode()
    assert (tmp_path / "heard.txt").read_text() == "at work\n"


@pytest.mark.parametrize("name", agent_clis.every_acp())
def test_it_answers_a_client_that_speaks_acp(name: str, agent_cli: AgentClis, tmp_path: Path) -> None:
    argv, env = agent_clis.acp(agent_cli(name))
    hello = {"protocolVersion": 1, "clientCapabilities": {}}
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    with subprocess.Popen(
        argv, cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{request}\n".encode())
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        leftovers.end_all(tmp_path)  # not all of them end with their input
    assert answer["result"]["protocolVersion"] == 1


@pytest.mark.harnesses
def test_two_of_them_can_share_the_home_and_variables_of_a_user(agent_env: AgentEnv, tmp_path: Path) -> None:
    env = agent_env("claude", "codex")
    for name in ("claude", "codex"):
        said = subprocess.run(
            [name, "--version"], env=env, capture_output=True, text=True, timeout=60, check=True
        )
        assert re.search(r"\d+\.\d+\.\d+", said.stdout)
