"""Show, resume, send, messages and cancel: at the command line, and within an agent's tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import daemons
from tests.support.commands import answer, headcount
from tests.support.inside import Shell

SLEEPS = json.dumps([{"sleep": 600}])


def says(text: str) -> str:
    return json.dumps([{"say": text}])


@pytest.fixture
def task(home: Path, tmp_path: Path) -> Iterator[str]:
    yield answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    headcount("halt")
    headcount("down")


@pytest.fixture
def lead(home: Path, tmp_path: Path) -> Iterator[Shell]:
    with daemons.daemon(home):
        made = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
        yield Shell(made, "lead", tmp_path)
        headcount("halt")


def deployed(task: str, steps: str, role: str = "builder", *more: str) -> str:
    made = answer("deploy", task, "--role", role, "--harness", "script", "--prompt", steps, *more)
    return str(made["agent_id"])


def test_an_agent_is_resumed_told_and_shown(task: str) -> None:
    agent = deployed(task, says("one"))
    assert headcount("wait", agent).code == 0
    ran = headcount("resume", agent, "--prompt", says("two"))
    assert (ran.code, "run 2" in ran.out) == (0, True), ran
    assert headcount("wait", agent).code == 0
    ran = headcount("send", agent, says("three"))
    assert ran.code == 0, ran
    assert "delivered by a further run" in ran.out
    assert headcount("wait", agent).code == 0
    ran = headcount("show", agent)
    assert ran.code == 0, ran
    for word in ("run 1", "run 2", "goes on with run 1", "run 3", "message", "completed", "three", "session"):
        assert word in ran.out, word
    assert [each["run"] for each in answer("messages", agent)["messages"]] == [3]
    assert "three" in headcount("messages", agent).out
    assert headcount("status", task).code == 0


def test_what_cannot_be_done_is_refused_in_words(task: str) -> None:
    agent = deployed(task, SLEEPS)
    ran = headcount("resume", agent, "--prompt", says("two"))
    assert (ran.code, "is running" in ran.err) == (3, True), ran
    assert headcount("resume", agent).code == 2
    assert headcount("cancel", agent).code == 3
    assert headcount("send", agent, "  ").code == 2
    ran = headcount("messages", agent)
    assert (ran.code, ran.out.strip()) == (0, "no messages")


def test_a_steered_agent_is_told_and_its_turn_is_cancelled(task: str) -> None:
    agent = deployed(task, SLEEPS, "builder", "--steer")
    ran = headcount("send", agent, "mind the tabs")
    assert "delivered in the middle of its work" in ran.out, ran
    ran = headcount("cancel", agent)
    assert (ran.code, "cancelled" in ran.out) == (0, True), ran


def test_a_parent_resumes_its_child_and_tells_it_things(lead: Shell) -> None:
    child = lead.headcount("spawn", "builder", "--harness", "script", "--prompt", says("one")).facts[
        "agent_id"
    ]
    assert headcount("wait", child).code == 0
    made = lead.headcount("resume", child, "--prompt", says("two"))
    assert made.code == 0, made
    assert (made.facts["run"], made.facts["parent"]) == (2, lead.agent_id)
    assert headcount("wait", child).code == 0
    sent = lead.headcount("send", child, says("three"))
    assert (sent.code, sent.facts["way"], sent.facts["run"]) == (0, "resume", 3), sent
    (message,) = answer("messages", child)["messages"]
    assert message["sender"] == lead.agent_id


def test_an_agent_is_told_with_its_own_report(lead: Shell) -> None:
    assert headcount("send", lead.agent_id, "mind the tabs").code == 0
    said = lead.run("headcount", "report", "working", "half")
    assert "mind the tabs" in said.out, said
    said = lead.run("headcount", "report", "working", "more")
    assert "mind the tabs" not in said.out, said
