"""The command line with all that it works with: the daemon, and tmux views."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import answer, headcount, on_a_terminal
from tests.support.fleets import alive
from tests.support.waiting import until

VIEWS = {"HEADCOUNT_VIEWS": "1"}


@pytest.fixture
def task(home: Path) -> Iterator[str]:
    yield answer("task", "create", "a piece of work")["task_id"]
    headcount("halt")
    headcount("down")
    facts = headcount("doctor", "--json", env=VIEWS).facts
    subprocess.run(
        ["tmux", "-S", facts["tmux_socket"], "kill-server"], capture_output=True, timeout=30, check=False
    )


@pytest.fixture
def daemon(task: str) -> Any:
    return answer("up")


def agents(*args: str) -> dict[str, Any]:
    return {each["role"]: each for each in answer("ps", *args)["agents"]}


def test_the_daemon_is_started_once_and_stopped_alone(task: str, daemon: Any) -> None:
    answer("deploy", task, "--role", "builder", "--", "sleep", "600")
    assert (daemon["started"], alive(daemon["pid"])) == (True, True)
    assert answer("up") == {**daemon, "started": False}
    assert str(daemon["pid"]) in headcount("up").out
    ran = headcount("down")
    assert ran.code == 0
    assert f"the daemon, pid {daemon['pid']}, has ended; live agents, which go on: 1" in ran.out
    assert not alive(daemon["pid"])
    assert agents()["builder"]["state"] == "running"
    assert answer("down")["stopped_pid"] is None


@pytest.mark.usefixtures("daemon")
def test_a_shell_agent_spawns_a_child_that_outlives_it(task: str) -> None:
    script = "headcount spawn builder --prompt 'build it' --json -- sh -c 'cat; exec sleep 600'"
    lead = answer("deploy", task, "--role", "lead", "--", "sh", "-c", script)["agent_id"]
    assert headcount("wait", lead).code == 0, headcount("logs", lead, "--stderr")
    spawned = json.loads(headcount("logs", lead).out)
    child = agents()["builder"]
    assert (child["agent_id"], child["parent"], child["depth"]) == (spawned["agent_id"], lead, 2)
    assert alive(child["pid"])
    until(lambda: headcount("logs", "builder").out == "build it", what="the child has its prompt")


@pytest.mark.usefixtures("daemon")
def test_a_child_beyond_the_depth_is_refused_to_the_shell(home: Path) -> None:
    flat = answer("task", "create", "flat", "--max-depth", "1")["task_id"]
    script = "exec headcount spawn builder -- true"
    agent = answer("deploy", flat, "--role", "lead", "--", "sh", "-c", script)["agent_id"]
    headcount("wait", agent)
    assert agents("--all")["lead"]["exit_code"] == 3, headcount("logs", agent, "--stderr")


def test_the_bridge_answers_at_once_without_a_daemon(home: Path) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    said = headcount("mcp", stdin=json.dumps(asked) + "\n").out
    names = {each["name"] for each in json.loads(said.splitlines()[0])["result"]["tools"]}
    assert {"create_task", "deploy_headless_agent", "list_agents"} <= names


@pytest.mark.usefixtures("require_tmux")
def test_attach_shows_the_agent_and_leaves_it_alone(task: str) -> None:
    script = "echo in the view; exec sleep 600"
    made = answer("deploy", task, "--role", "builder", "--", "sh", "-c", script, env=VIEWS)
    assert made["tmux_session"] == made["agent_id"]
    argv = answer("attach", "builder", env=VIEWS)["command"]
    assert argv[-1] == f"={made['agent_id']}"
    until(lambda: _there(argv), what="the session is there")
    ran = on_a_terminal("attach", "builder", env=VIEWS, typing={"in the view": "\x02d"})
    assert (ran.code, "detached" in ran.out) == (0, True)
    assert agents()["builder"]["state"] == "running"


def _there(argv: list[str]) -> bool:
    asked = [*argv[: argv.index("attach-session")], "has-session", "-t", argv[-1]]
    return subprocess.run(asked, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.usefixtures("require_tmux")
def test_a_session_that_is_lost_is_named_with_its_remedy(task: str) -> None:
    answer("deploy", task, "--role", "builder", "--", "sleep", "600", env=VIEWS)
    argv = answer("attach", "builder", env=VIEWS)["command"]
    until(lambda: _there(argv), what="the session is there")
    tmux = argv[: argv.index("attach-session")]
    subprocess.run([*tmux, "kill-session", "-t", argv[-1]], timeout=30, check=True)
    ran = on_a_terminal("attach", "builder", env=VIEWS)
    assert ran.code == 5
    assert "headcount repair --apply" in ran.out
    # a session is missed only once its run is a second old
    until(lambda: headcount("doctor", "--json", env=VIEWS).facts["views_missing"], what="it is missed")
    done = headcount("repair", "--apply", "--json", env=VIEWS).facts["done"]
    assert [each["action"] for each in done] == ["show_view"]
    until(lambda: _there(argv), what="the session is back")
    assert "Registry: 1, Running: 1, Tmux: 1, Diff: 0" in headcount("doctor", env=VIEWS).out
