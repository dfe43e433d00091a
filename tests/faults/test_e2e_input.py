"""Hostile and mistaken input through the library and the command line: refused clearly, nothing is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.errors import HeadcountError, InvalidInput, NotAllowed
from headcount.domain.model import Caller, RunKey
from headcount.services.answers import Deployed
from tests.support.commands import answer, headcount
from tests.support.fleets import SLEEPER, alive, fleet, new_task, sleeper
from tests.support.registries import new_run

NAN = float("nan")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as opened:
        yield opened


WRONG: dict[str, list[dict[str, Any]]] = {
    "list_agents": [{"limit": "x"}, {"limit": 0}, {"cursor": 5}, {"task_id": 5}, {"task_id": "../x"}],
    "list_tasks": [{"state": "x"}, {"limit": 10**30}],
    "get_agent_output": [
        {"format": 5},
        {"format": "html"},
        {"stream": "x"},
        {"tail": 0},
        {"tail": "x"},
        {"filter": 5},
        {"filter": "["},
        {"filter": r"(a)\1"},
        {"max_bytes": 0},
        {"max_bytes": 10**12},
        {"cursor": -1},
        {"cursor": "x"},
        {"run": 10**30},
    ],
    "wait_for_agents": [
        {"timeout": -1},
        {"timeout": NAN},
        {"timeout": 10**30},
        {"timeout": "x"},
        {"until": "x"},
        {"until": 5},
        {"cursor": "x"},
        {"cursor": "9" * 5000},
    ],
    "update_agent_progress": [
        {"status": "happy"},
        {"status": 5},
        {"message": " "},
        {"message": 5},
        {"message": "x" * 30_000},
        {"message": "\ud800"},
        {"progress": 101},
        {"progress": 1.5},
        {"progress": "x"},
        {"agent_id": "../x"},
        {"agent_id": 5},
    ],
    "report_agent_finding": [
        {"type": "A B"},
        {"type": 5},
        {"severity": "dire"},
        {"severity": 5},
        {"message": 5},
        {"data": [1]},
        {"data": {"x": object()}},
        {"data": {"x": NAN}},
        {"data": {"x": "y" * 200_000}},
    ],
    "get_findings": [
        {"severity": "dire"},
        {"since": "x"},
        {"since": 5},
        {"cursor": "x"},
        {"agent_id": "../x"},
    ],
    "read_events": [{"cursor": "x"}, {"cursor": 10**30}, {"limit": 0}, {"task_id": "../x"}, {"agent_id": 5}],
    "stop_agent": [{"grace": -1}, {"grace": NAN}, {"grace": 10**30}, {"grace": "x"}, {"reason": 5}],
    "gc": [{"older_than": -1}, {"older_than": NAN}, {"older_than": "x"}, {"keep_bytes": -1}],
}
RIGHT: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "get_agent_output": lambda agent, _: {"agent_id": agent},
    "wait_for_agents": lambda agent, _: {"agent_ids": [agent], "timeout": 0.0},
    "update_agent_progress": lambda agent, _: {"status": "working", "message": "x", "agent_id": agent},
    "report_agent_finding": lambda agent, _: {"type": "issue", "message": "x", "agent_id": agent},
    "get_findings": lambda _, task: {"task_id": task},
    "stop_agent": lambda agent, _: {"agent_id": agent},
}


def test_what_cannot_be_meant_is_refused_and_leaves_nothing(opened: Headcount, place: Path) -> None:
    task = new_task(opened, place)
    made = sleeper(opened, task)
    before = opened.read_events().next_cursor
    for method, wrongs in WRONG.items():
        right = RIGHT[method](made.agent_id, task) if method in RIGHT else {}
        for wrong in wrongs:
            with pytest.raises(InvalidInput) as refused:
                getattr(opened, method)(**{**right, **wrong})
            assert len(refused.value.message) < 300, (method, wrong)
    assert opened.read_events(cursor=before).events == ()
    assert opened.get_agent(made.agent_id).state == "running"


def test_a_grace_that_nobody_can_wait_for_does_not_end_the_runner(
    home: Path, opened: Headcount, place: Path
) -> None:
    made = sleeper(opened, new_task(opened, place))
    run = os.fspath((home / "live" / f"{made.agent_id}.1").resolve())
    for words in (b"stop " + b"9" * 400, b"stop 99999999999999", b"stop -1", b"stop 1 2", b"\xff" * 100):
        fd = os.open(f"{run}/control", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, words + b"\n")
        os.close(fd)
    stopped = opened.stop_agent(made.agent_id, grace=0.2)
    assert (stopped.outcome, stopped.survivors) == ("stopped", ())


ROLES = ("a'b", 'a"b', "a.b", "a/b", "a:b", "a;b", "$(id)", "#{pid}", "а", "../x", "", "x" * 33, "-x", "a\nb")
IDS = ("../../etc/passwd", "a/../b", "task-0000000000000000/..", "$(id)", "a\nb", "builder-ZZZZ;", "-x")


def test_the_command_line_refuses_every_hostile_name(home: Path, place: Path) -> None:
    task = answer("task", "create", "work", "--project", str(place))["task_id"]
    for role in ROLES[::2]:
        ran = headcount("deploy", task, f"--role={role}", "--json", "--", "true")
        assert (ran.code, ran.error["code"]) == (2, "invalid_input"), (role, ran)
    for number, name in enumerate(IDS):
        command = (("status", "--"), ("stop", "--"), ("logs", "--"))[number % 3]
        ran = headcount(command[0], "--json", *command[1:], name)
        assert (ran.code, ran.error["code"]) == (2, "invalid_input"), (name, ran)
    assert answer("ps", "--all")["agents"] == []
    assert list((home / "runs").iterdir()) == []
    assert not (Path.cwd() / "id").exists()


@pytest.mark.parametrize(("text", "words"), [(" \n\t", "blank"), ("x" * 10_000_000, "the limit is 1000000")])
def test_a_prompt_that_is_none_or_too_long_is_refused(
    text: str, words: str, place: Path, tmp_path: Path
) -> None:
    task = answer("task", "create", "work", "--project", str(place))["task_id"]
    (tmp_path / "prompt").write_text(text)
    given = ("deploy", task, "--role", "builder", "--prompt-file", str(tmp_path / "prompt"))
    ran = headcount(*given, "--json", "--", "cat")
    assert (ran.code, ran.error["code"]) == (2, "invalid_input")
    assert words in ran.error["message"]
    assert answer("ps", "--all")["agents"] == []


def test_a_pattern_that_would_run_for_ever_is_answered_in_time(opened: Headcount, place: Path) -> None:
    code = "head -c 300000 /dev/zero | tr '\\0' a; echo; exec sleep 600"
    made = opened.deploy(
        new_task(opened, place), role="builder", harness="command", command=["sh", "-c", code]
    )
    for pattern in ("(a+)+$", "(a|aa)+$", "(.*a){25}$", "^(a?){100}a{100}$"):
        began = time.monotonic()
        with suppress(InvalidInput):
            opened.get_agent_output(made.agent_id, filter=pattern, tail=5)
        assert time.monotonic() - began < 6, pattern


def as_agent(opened: Headcount, made: Deployed, run: int = 1) -> Headcount:
    return opened.acting_as(Caller(cwd="/", env={}, agent_id=made.agent_id, run=run))


def test_reports_are_for_oneself_and_late_ones_change_no_state(opened: Headcount, place: Path) -> None:
    task = new_task(opened, place)
    one, other = sleeper(opened, task, "one"), sleeper(opened, task, "other")
    agent = as_agent(opened, one)
    with pytest.raises(NotAllowed):
        agent.update_agent_progress("done", "x", agent_id=other.agent_id)
    with pytest.raises(NotAllowed):
        agent.report_agent_finding("issue", "x", agent_id=other.agent_id)
    assert agent.update_agent_progress("done", "x").late is False
    opened.stop_agent(one.agent_id)
    before = opened.get_agent(one.agent_id)
    said = agent.update_agent_progress("done", "after the end", progress=100)
    found = agent.report_agent_finding("issue", "after the end")
    assert (said.late, found.late) == (True, True)
    assert "late" in said.note
    after = opened.get_agent(one.agent_id)
    assert (after.state, after.outcome, after.ended_at) == (before.state, before.outcome, before.ended_at)
    status = opened.get_task_status(task)
    assert [each.late for each in status.recent_reports if each.message == "after the end"] == [True]
    assert [each.late for each in status.recent_findings if each.message == "after the end"] == [True]


def test_a_run_that_a_newer_one_has_replaced_may_say_no_more(opened: Headcount, place: Path) -> None:
    task = new_task(opened, place)
    made = opened.deploy(
        task,
        role="builder",
        harness="command",
        command=["sh", "-c", 'echo "$HEADCOUNT_TOKEN"; exec sleep 600'],
    )
    while not (token := opened.get_agent_output(made.agent_id).text.strip()):
        assert alive(made.pid)
    opened.kill_agent(made.agent_id)
    inside = {"HEADCOUNT_AGENT_ID": made.agent_id, "HEADCOUNT_RUN": "1", "HEADCOUNT_TOKEN": token}
    assert "late" in headcount("report", "done", "first", env=inside).out
    with opened.context.registry.write("a second run") as tx:
        second = new_run(made.agent_id, 2, task_id=task, role="builder", path=str(place / "2"))
        tx.runs.add(second)
    ran = headcount("report", "done", "second", "--json", env=inside)
    assert (ran.code, ran.error["code"]) == (3, "not_allowed"), ran
    assert "replaced by run 2" in ran.error["message"]
    with opened.context.registry.write("it never began") as tx:
        tx.runs.lost(RunKey(made.agent_id, 2), reason="test", survivors=(), now=1.0)


def test_a_program_that_cannot_start_says_why_in_under_a_second(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    plain = tmp_path / "plain"
    plain.write_text("no program")
    (tmp_path / "gone").mkdir()
    for wrong in (
        {"command": ["/does/not/exist"]},
        {"command": [str(plain)]},
        {"command": [str(tmp_path)]},
        {"command": list(SLEEPER), "cwd": str(plain)},
        {"command": list(SLEEPER), "cwd": str(tmp_path / "nowhere")},
    ):
        began = time.monotonic()
        with pytest.raises(HeadcountError) as refused:
            opened.deploy(task, role="builder", harness="command", **wrong)
        assert time.monotonic() - began < 1, wrong
        assert refused.value.message
    assert opened.registry_health_check().healthy
    assert opened.list_agents().agents == ()
