"""Each real agent CLI by itself against the scripted model: the ground that the harness tests stand on."""

from pathlib import Path

import pytest

from tests.support import agent_clis, agent_runs
from tests.support.agent_clis import AgentClis, agent_cli, model_server
from tests.support.model_server import ModelServer, Step, play

__all__ = ["agent_cli", "model_server"]  # fixtures


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
