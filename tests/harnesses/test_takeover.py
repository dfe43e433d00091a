"""A person takes a real agent over in the middle of its work, talks to it, and hands it back."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount, bootstrap
from tests.support import agent_clis, daemons, fleets
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.model_server import ModelServer, play
from tests.support.waiting import until

__all__ = ["agent_cli", "model_server"]  # fixtures
pytestmark = [pytest.mark.harnesses, pytest.mark.usefixtures("require_tmux")]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture(params=agent_clis.every("claude", "codex", "opencode", "qwen"))
def cli(request: pytest.FixtureRequest, agent_cli: AgentClis, work: Path) -> AgentCli:
    """The program of a user who has used it before, in this directory."""
    found = agent_cli(request.param)
    if found.name == "claude":
        known = {
            "hasCompletedOnboarding": True,
            "customApiKeyResponses": {"approved": ["dummy"], "rejected": []},
            "projects": {os.path.realpath(work): {"hasTrustDialogAccepted": True}},
        }
        (found.home / ".claude.json").write_text(json.dumps(known))
    elif found.name == "codex":
        with (found.home / ".codex" / "config.toml").open("a") as config:
            config.write(f'[projects."{os.path.realpath(work)}"]\ntrust_level = "trusted"\n')
    return AgentCli(found.name, found.program, found.home, {**found.env, "IS_SANDBOX": "1"})


@pytest.fixture
def fleet(home: Path, cli: AgentCli) -> Iterator[Headcount]:
    settings = {"autostart": False, "min_memory_mb": 1}
    opened = Headcount.of(bootstrap.context(home, settings, environ=cli.env))
    yield opened
    fleets.clear(opened)
    daemons.end(home)  # that a program's MCP bridge has started
    opened.context.views.shut()
    opened.close()


def tmux(fleet: Headcount, *command: str) -> str:
    argv = ["tmux", "-u", "-N", "-S", str(fleet.context.home.tmux_socket), *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout


def shows(fleet: Headcount, agent_id: str, words: str) -> None:
    def there() -> bool:
        return words in tmux(fleet, "capture-pane", "-p", "-t", f"={agent_id}:")

    until(there, what=f"the session shows {words!r}", patience=60)


def declined(fleet: Headcount, agent_id: str) -> bool:
    """Press Escape, which it does not take before it has drawn all; say whether it did."""
    tmux(fleet, "send-keys", "-t", f"={agent_id}:", "Escape")
    return "Use existing model" not in tmux(fleet, "capture-pane", "-p", "-t", f"={agent_id}:")


def says(fleet: Headcount, agent_id: str, words: str) -> None:
    """Wait until a line of the session has these words alone, but for its frame."""

    def there() -> bool:
        shown = tmux(fleet, "capture-pane", "-p", "-t", f"={agent_id}:")
        return any(re.sub(r"^\W+", "", line).rstrip() == words for line in shown.splitlines())

    until(there, what=f"the session says {words!r}", patience=60)


def test_it_is_taken_over_at_work_and_goes_on_headless_afterwards(
    fleet: Headcount, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    task = fleets.new_task(fleet, work)
    made_file = {"path": str(work / "made.txt"), "content": "made\n"}
    script = play([{"text": "The word is BLUE.", "write": made_file}, {"hang": True, "text": "late"}])
    agent_id = fleet.deploy(task, role="builder", harness=cli.name, prompt=f"Begin. {script}").agent_id
    until(lambda: "BLUE" in fleet.get_agent_output(agent_id).text, what="its first words", patience=60)

    made = fleet.take_over(agent_id)
    assert (made.run, made.state) == (2, "running")
    if cli.name == "codex":  # which first of all offers a newer model
        shows(fleet, agent_id, "Use existing model")
        until(lambda: declined(fleet, agent_id), what="it keeps its model", patience=60)
    shows(fleet, agent_id, "The word is BLUE.")
    typed = f"Go on. {play([{'text': 'I am with you.'}])}"
    tmux(fleet, "send-keys", "-t", f"={agent_id}:", "-l", typed)
    shows(fleet, agent_id, "I am with you")
    tmux(fleet, "send-keys", "-t", f"={agent_id}:", "Enter")
    says(fleet, agent_id, "I am with you.")
    assert fleet.registry_health_check().healthy

    fleet.hand_back(agent_id, f"Now alone. {play([{'text': 'Done alone.'}])}")
    assert fleet.wait_for_agents([agent_id], timeout=60).done
    one, two, three = fleet.get_agent(agent_id).runs
    assert (one.outcome, one.reason) == ("stopped", "takeover")
    assert (two.form, two.outcome, two.reason) == ("interactive", "stopped", "handback")
    assert three.outcome == "completed"
    assert one.session_id == two.session_id == three.session_id
    assert three.result is not None
    assert three.result["text"] == "Done alone."
    told = json.dumps(model_server.asked[-1].body)
    assert "The word is BLUE." in told
    assert "I am with you." in told
