"""The home cannot be written: every command says so and says what to do, and none shows a traceback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.support import daemons, disks
from tests.support.commands import Ran, answer, headcount


@dataclass(frozen=True)
class Ended:
    """A home with one agent that has ended; its names."""

    task: str
    agent: str


@pytest.fixture
def ended(home: Path, tmp_path: Path) -> Iterator[Ended]:
    """Nothing can be written below the home from now on."""
    task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    agent = answer("deploy", task, "--role", "builder", "--", "echo", "done")["agent_id"]
    answer("wait", agent)
    with disks.read_only(home):
        yield Ended(task, agent)


COMMANDS = (
    "task create more",
    "task list",
    "task show TASK",
    "task close TASK",
    "deploy TASK --role other -- true",
    "run -- true",
    "ps",
    "status TASK",
    "wait AGENT",
    "logs AGENT",
    "attach AGENT",
    "stop AGENT",
    "kill AGENT",
    "report working hello --agent AGENT",
    "finding issue hello --agent AGENT",
    "findings TASK",
    "events",
    "repair --apply",
    "gc",
    "gc --apply",
    "halt --release",
)


def quiet(ran: Ran) -> bool:
    words = ran.out + ran.err
    return "Traceback" not in words and "should not have happened" not in words


@pytest.mark.parametrize("part", range(3))
def test_every_command_says_that_the_home_cannot_be_written(part: int, home: Path, ended: Ended) -> None:
    for command in COMMANDS[part::3]:
        words = command.replace("TASK", ended.task).replace("AGENT", ended.agent).split()
        at = words.index("--") if "--" in words else len(words)
        ran = headcount(*words[:at], "--json", *words[at:])
        assert quiet(ran), (command, ran)
        assert ran.code == 5, (command, ran)
        assert str(home) in ran.error["message"], (command, ran)
        assert ran.error["hint"], (command, ran)


def test_doctor_says_what_is_wrong_and_halt_what_it_could_not_do(home: Path, ended: Ended) -> None:
    doctor = headcount("doctor", "--json")
    assert (doctor.code, doctor.facts["healthy"]) == (1, False)
    bad = {each["name"] for each in doctor.facts["checks"] if each["ok"] is False}
    assert "home" in bad
    halt = headcount("halt")
    assert quiet(halt), halt
    assert "new deploys are not refused" in halt.out
    up = headcount("up")
    assert (up.code, quiet(up)) == (5, True), up


def test_a_halt_that_cannot_be_lifted_says_so_and_stays(home: Path) -> None:
    assert headcount("halt").code == 0
    with disks.read_only(home):
        ran = headcount("halt", "--release", "--json")
        assert (ran.code, ran.error["code"]) == (5, "infrastructure"), ran
    assert "in force" in headcount("doctor").out
    assert headcount("halt", "--release").code == 0


def test_it_all_works_again_when_the_home_can_be_written(home: Path, tmp_path: Path) -> None:
    task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    with disks.read_only(home):
        ran = headcount("deploy", task, "--role", "builder", "--", "true", env={"HEADCOUNT_AUTOSTART": "1"})
        assert (ran.code, quiet(ran)) == (5, True), ran
    assert answer("ps", "--all")["agents"] == []
    assert headcount("run", "--", "true").code == 0


def test_the_bridge_says_that_no_daemon_can_be_started(home: Path) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_agents"}}
    with disks.read_only(home):
        bridge = subprocess.Popen(
            daemons.BRIDGE, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=daemons.environment(home)
        )
        assert bridge.stdin
        assert bridge.stderr
        bridge.stdin.write(json.dumps(call).encode() + b"\n")
        bridge.stdin.flush()
        assert b"the daemon cannot be started" in bridge.stderr.readline()
        bridge.kill()
        bridge.communicate(timeout=30)
