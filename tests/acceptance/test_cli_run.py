"""`headcount run`: one task, one or more agents, the result and the exit code of the fleet."""

from __future__ import annotations

import fcntl
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import answer, headcount, on_a_terminal, started
from tests.support.fleets import alive
from tests.support.waiting import until

STUBBORN = ("--", "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")


@pytest.fixture(autouse=True)
def _nothing_left(home: Path) -> Iterator[None]:
    yield
    headcount("halt")


def agents(*args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer("ps", *args)["agents"]
    return found


def output(agent: dict[str, Any]) -> str:
    return headcount("logs", agent["agent_id"]).out


def test_the_answer_of_one_agent_is_all_that_is_on_stdout() -> None:
    ran = headcount("run", "say hello", "--", "cat")
    assert (ran.code, ran.out) == (0, "say hello\n")
    assert "completed: exit code 0" in ran.err
    assert "\x1b[" not in ran.err


def test_a_program_needs_no_prompt_and_works_here(tmp_path: Path) -> None:
    ran = headcount("run", "--", "pwd", cwd=tmp_path)
    assert (ran.code, ran.out) == (0, f"{tmp_path.resolve()}\n")
    (task,) = answer("task", "list")["tasks"]
    assert (task["description"], task["project"]) == ("pwd", str(tmp_path.resolve()))


def test_several_agents_answer_under_their_names() -> None:
    ran = headcount("run", "same", "--agents", "3", "--role", "voter", "--", "cat")
    assert (ran.code, ran.out.count("same\n"), ran.out.count("== voter-")) == (0, 3, 3)


def test_the_fleet_fails_if_one_agent_does() -> None:
    ran = headcount("run", "--agents", "2", "--json", "--", "sh", "-c", 'mkdir "$HEADCOUNT_HOME/first"')
    assert (ran.code, ran.facts["exit_code"], ran.err) == (1, 1, "")
    assert sorted(each["outcome"] for each in ran.facts["agents"]) == ["completed", "failed"]
    assert ran.facts["answers"].keys() == {each["agent_id"] for each in ran.facts["agents"]}


def test_what_a_failed_agent_complained_of_is_shown() -> None:
    ran = headcount("run", "--", "sh", "-c", "echo some; echo no such luck >&2; exit 3")
    assert (ran.code, ran.out) == (1, "some\n")
    assert "no such luck\n" in ran.err
    assert "failed: exit code 3" in ran.err


def test_a_stream_for_programs_is_shown_for_people() -> None:
    ran = headcount("run", '[{"say": "hello"}, {"run": "echo ran"}]', "--harness", "script")
    assert ran.code == 0
    assert ran.out.splitlines()[1:] == ["hello", '> run "echo ran"', "< ran", "= exit code 0, 0 failed"]
    (agent,) = agents("--all")
    assert output(agent) == ran.out
    assert headcount("logs", agent["agent_id"], "--raw").out.startswith('{"type": "session"')
    assert headcount("logs", agent["agent_id"], "--tail", "1").out == "= exit code 0, 0 failed\n"
    assert "last text: hello" in headcount("logs", agent["agent_id"], "--format", "summary").out


def test_time_that_runs_out_stops_the_agents() -> None:
    ran = headcount("run", "--timeout", "300ms", "--", "sleep", "600")
    assert ran.code == 6
    assert agents() == []
    assert agents("--all")[0]["outcome"] == "stopped"


def test_detached_agents_go_on() -> None:
    facts = answer("run", "--detach", "--", "sleep", "600")
    assert [each["agent_id"] for each in agents()] == [facts["agents"][0]["agent_id"]]


def test_the_task_of_a_run_is_closed_with_it_and_one_without_an_agent_is_not_listed() -> None:
    done = answer("run", "--", "true")["task_id"]
    assert headcount("run", "--", "/no/such/program").code == 5
    left = answer("run", "--detach", "--", "sleep", "600")["task_id"]
    tasks = {each["task_id"]: each["state"] for each in answer("task", "list")["tasks"]}
    assert tasks == {done: "closed", left: "open"}
    given = answer("task", "create", "mine")["task_id"]
    assert headcount("run", "--task", given, "--", "true").code == 0
    assert answer("task", "show", given)["state"] == "open"


def test_a_refused_agent_stops_those_before_it() -> None:
    task = answer("task", "create", "x", "--max-live", "2")["task_id"]
    ran = headcount("run", "--task", task, "--agents", "3", "--json", "--", "sleep", "600")
    assert (ran.code, ran.error["code"]) == (3, "max_live")
    assert agents() == []


def test_a_harness_that_is_not_there_is_told(tmp_path: Path) -> None:
    ran = headcount("run", "hello", "--json", env={"PATH": str(tmp_path)})
    assert ran.code in {2, 5}
    assert "claude" in ran.error["message"]


def run(*args: str) -> Any:
    return started("run", *args)


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> None:
    process.send_signal(number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_stops_the_agents(number: int, code: int) -> None:
    with run("--agents", "2", "--", "sleep", "600") as process:
        until(lambda: len(agents()) == 2, what="both agents run")
        pids = [each["pid"] for each in agents()]
        interrupt(process, number)
        assert process.wait(timeout=30) == code
    assert agents() == []
    assert not any(map(alive, pids))
    assert {each["outcome"] for each in agents("--all")} == {"stopped"}


def test_a_second_interrupt_kills() -> None:
    with started("run", *STUBBORN, env={"HEADCOUNT_GRACE": "60"}) as process:
        until(lambda: [each for each in agents() if "ready" in output(each)], what="the agent is ready")
        interrupt(process)
        until(lambda: agents()[0]["state"] == "stopping", what="the agent is asked to stop")
        interrupt(process)
        assert process.wait(timeout=30) == 130
    assert agents() == []


def test_a_stop_that_fails_is_told(home: Path) -> None:
    with started("run", "--", "sleep", "600", env={"HEADCOUNT_REGISTRY_WAIT": "0.5"}) as process:
        until(agents, what="the agent runs")
        with (home / "registry.lock").open("r+b") as writers:
            fcntl.flock(writers, fcntl.LOCK_EX)
            interrupt(process)
            assert process.wait(timeout=30) == 5
        assert process.stderr is not None
        assert "registry" in process.stderr.read()
    assert [each["state"] for each in agents()] == ["running"]


def test_an_interrupt_leaves_what_is_not_ours() -> None:
    other = answer("run", "--detach", "--", "sleep", "600")["task_id"]
    with run("--task", other, "--role", "mine", "--", "sleep", "600") as process:
        until(lambda: len(agents()) == 2, what="both agents run")
        interrupt(process)
        assert process.wait(timeout=30) == 130
    assert [each["role"] for each in agents()] == ["worker"]


def test_a_killed_run_leaves_its_agents() -> None:
    with run("--", "sleep", "600") as process:
        until(agents, what="the agent runs")
        process.kill()
        process.wait(timeout=30)
    assert [each["state"] for each in agents()] == ["running"]


def test_a_terminal_shows_the_tree() -> None:
    ran = on_a_terminal("run", "--", "sh", "-c", "headcount report working halfway --progress 50; sleep 1")
    assert ran.code == 0
    assert "running" in ran.out
    assert "50%" in ran.out
    assert "halfway" in ran.out
    assert "1 live" in ran.out
