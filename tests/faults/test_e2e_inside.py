"""What runs within an agent's tree acts as that agent, starts nothing there, and evades no limit."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount.config import Home
from headcount.daemon import start
from tests.support import daemons
from tests.support.commands import answer, headcount
from tests.support.fleets import SLEEPER, alive
from tests.support.inside import Shell
from tests.support.waiting import until

SOON = 8.0
"""Seconds for an answer that takes about one, on a machine that does much else."""


@pytest.fixture
def task(home: Path, tmp_path: Path) -> Iterator[str]:
    yield answer("task", "create", "work", "--project", str(tmp_path), "--max-depth", "2")["task_id"]
    headcount("halt")


@pytest.fixture
def daemon(home: Path, task: str) -> Iterator[None]:
    with daemons.daemon(home, HEADCOUNT_SPAWN_RATE="3", HEADCOUNT_SPAWN_WINDOW="600"):
        yield
        headcount("halt")


def agents() -> dict[str, Any]:
    return {each["role"]: each for each in answer("ps", "--all")["agents"]}


def end_by(how: str, parent: Shell) -> None:
    match how:
        case "killed runner":
            os.kill(parent.facts["runner_pid"], signal.SIGKILL)
            until(lambda: not alive(parent.facts["runner_pid"]), what="the end of the runner")
            answer("repair", "--apply")
        case command:
            assert headcount(command, parent.agent_id).code == 0
    until(lambda: not alive(parent.facts["pid"]), what="the end of the parent")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("how", ["stop", "kill", "killed runner"])
def test_a_child_outlives_its_parent(how: str, task: str, tmp_path: Path) -> None:
    parent = Shell(task, "lead", tmp_path)
    child = parent.headcount("spawn", "builder", "--", *SLEEPER).facts
    assert (child["parent"], child["depth"]) == (parent.agent_id, 2)
    end_by(how, parent)
    assert agents()["lead"]["state"] in {"ended", "lost"}
    assert answer("repair", "--apply")["done"] == []
    found = agents()["builder"]
    assert (found["state"], found["pid"]) == ("running", child["pid"])
    assert alive(child["pid"])
    assert alive(child["runner_pid"])
    (stopped,) = answer("stop", child["agent_id"])["stopped"]
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
    assert not alive(child["pid"])


LIBRARY = """
import sys
from headcount import Headcount
from headcount.domain.errors import HeadcountError
task, stranger, role = sys.argv[1:]
try:
    with Headcount() as fleet:
        made = fleet.deploy(task, role=role, harness="command", command=["sleep", "600"], parent=stranger)
        print(made.parent, made.depth)
except HeadcountError as error:
    print(error.code)
"""


@pytest.mark.usefixtures("daemon")
def test_the_command_and_the_library_deploy_children_of_the_agent(task: str, tmp_path: Path) -> None:
    stranger = answer("deploy", task, "--role", "stranger", "--", *SLEEPER)["agent_id"]
    lead = Shell(task, "lead", tmp_path)
    one = lead.headcount("deploy", task, "--role", "one", "--parent", stranger, "--", *SLEEPER).facts
    assert (one["parent"], one["depth"]) == (lead.agent_id, 2)
    two = lead.run(sys.executable, "-c", LIBRARY, task, stranger, "two")
    assert two.out == f"{lead.agent_id} 2\n", two
    three = Shell(task, "three", tmp_path, "--parent", lead.agent_id)
    for role in ("lead", "four"):
        ran = three.headcount("spawn", role, "--", *SLEEPER)
        assert (ran.code, ran.error["code"], ran.error["value"]) == (3, "max_depth", 2), ran
    assert three.run(sys.executable, "-c", LIBRARY, task, stranger, "four").out == "max_depth\n"
    ran = lead.headcount("spawn", "stranger", "--", *SLEEPER)
    assert (ran.code, ran.error["code"], ran.error["holders"]) == (3, "duplicate_role", [stranger]), ran
    ran = lead.headcount("spawn", "late", "--", *SLEEPER)  # a fourth child within the window
    assert (ran.code, ran.error["code"], ran.error["value"]) == (3, "spawn_rate", 3), ran
    assert answer("doctor")["strays"] == []


FORBIDDEN = (
    "task create x",
    "task close TASK",
    "stop STRANGER",
    "kill STRANGER",
    "halt",
    "halt --release",
    "gc --apply",
    "repair --apply",
    "repair --rebuild",
    "up",
    "down",
    "run -- true",
    "report done hello --agent STRANGER",
    "finding issue hello --agent STRANGER",
)


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("token", ["its own", "none", "invented"])
def test_an_agent_is_nobody_but_itself(token: str, task: str, home: Path, tmp_path: Path) -> None:
    stranger = answer("deploy", task, "--role", "stranger", "--", *SLEEPER)
    shell = Shell(task, "lead", tmp_path)
    more = {
        "its own": (),
        "none": ("env", "-u", "HEADCOUNT_TOKEN"),
        "invented": ("env", "HEADCOUNT_TOKEN=x"),
    }[token]
    for command in FORBIDDEN[:: 1 if token == "its own" else 3]:
        words = command.replace("TASK", task).replace("STRANGER", stranger["agent_id"]).split()
        at = words.index("--") if "--" in words else len(words)
        ran = shell.run(*more, "headcount", *words[:at], "--json", *words[at:])
        assert (ran.code, ran.error["code"]) == (3, "not_allowed"), (command, ran)
    assert alive(stranger["pid"])
    assert sorted(agents()) == ["lead", "stranger"]
    assert not Home(home).tmux_socket.exists()
    assert not Home(home).halted.exists()
    assert start.holder(Home(home)) is not None


def test_without_a_daemon_a_spawn_starts_one_that_outlives_the_agent(
    task: str, home: Path, tmp_path: Path
) -> None:
    (home / "settings.toml").write_text("views = false\n")
    shell = Shell(task, "lead", tmp_path)
    try:
        child = shell.headcount("spawn", "builder", "--", *SLEEPER).facts
        assert (child["parent"], child["depth"]) == (shell.agent_id, 2)
        pid = start.holder(Home(home))
        assert pid is not None
        assert f"{shell.agent_id}.1" not in Path(f"/proc/{pid}/cgroup").read_text()
        (stopped,) = answer("kill", shell.agent_id)["stopped"]
        assert stopped["survivors"] == []
        until(lambda: not alive(shell.facts["runner_pid"]), what="the end of the runner")
        assert start.holder(Home(home)) == pid
        assert alive(child["pid"])
    finally:
        daemons.end(home)


@pytest.mark.parametrize("why", ["a sandbox", "a setting"])
def test_where_none_may_be_started_the_agent_is_told_soon(
    why: str, task: str, home: Path, tmp_path: Path
) -> None:
    shell = Shell(task, "lead", tmp_path)
    within = ("setpriv", "--no-new-privs") if why == "a sandbox" else ()
    if why == "a setting":
        (home / "settings.toml").write_text("autostart = false\n")
    began = time.monotonic()
    ran = shell.run(*within, "headcount", "spawn", "builder", "--json", "--", *SLEEPER)
    assert time.monotonic() - began < SOON
    assert (ran.code, ran.error["code"]) == (5, "infrastructure"), ran
    assert "headcount up" in ran.error["hint"]
    assert shell.headcount("up").code == 3
    assert shell.headcount("ps").facts["agents"][0]["agent_id"] == shell.agent_id
    assert shell.headcount("report", "working", "on my own").code == 0
    assert sorted(agents()) == ["lead"]
    assert start.holder(Home(home)) is None
    assert not Home(home).daemon_socket.exists()
    assert not Home(home).tmux_socket.exists()
