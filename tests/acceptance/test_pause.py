"""A paused task begins no run, whoever asks, until a person resumes it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.errors import HeadcountError, NotAllowed, NotFound, Refused
from headcount.domain.model import Caller
from tests.support import daemons
from tests.support.commands import headcount
from tests.support.crowd import at_once, given
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.waiting import until

DONE = json.dumps([{"say": "done"}])
SLEEPS = json.dumps([{"sleep": 600}])


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


@pytest.fixture
def task(opened: Headcount, tmp_path: Path) -> str:
    return new_task(opened, tmp_path)


def script(opened: Headcount, task: str, steps: str = DONE, role: str = "builder", crashes: int = 0) -> str:
    made = opened.deploy(task, role=role, harness="script", prompt=steps, resume_on_crash=crashes)
    return made.agent_id


def over(opened: Headcount, agent_id: str) -> None:
    assert opened.wait_for_agents([agent_id], timeout=20).done


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as error:
        call()
    assert error.value.hint
    return error.value.code


def test_a_paused_task_refuses_deploys_and_resumes_until_it_goes_on(opened: Headcount, task: str) -> None:
    agent = script(opened, task)
    over(opened, agent)
    paused = opened.pause_task(task, reason="the model is overloaded")
    assert (paused.task.state, paused.live, paused.stopped) == ("paused", (), ())
    assert refusal(lambda: sleeper(opened, task, role="tester")) == "task_paused"
    assert refusal(lambda: opened.resume_agent(agent, DONE)) == "task_paused"
    assert opened.resume_task(task).task.state == "open"
    assert opened.resume_agent(agent, DONE).run == 2
    over(opened, agent)
    kinds = [(each.kind, each.reason) for each in opened.read_events(task_id=task).events]
    assert [each for each in kinds if each[0] in ("task_paused", "task_resumed")] == [
        ("task_paused", "the model is overloaded"),
        ("task_resumed", None),
    ]


def test_what_lives_goes_on_to_its_own_end_and_hears_what_it_is_told(opened: Headcount, task: str) -> None:
    agent = sleeper(opened, task)
    assert opened.pause_task(task).live == (agent.agent_id,)
    assert alive(agent.pid)
    opened.update_agent_progress("working", "still here", agent_id=agent.agent_id)
    assert "next report" in opened.send_message(agent.agent_id, "hold on").note


def test_with_stop_its_agents_end_and_those_that_can_go_on_when_it_does(
    opened: Headcount, task: str, tmp_path: Path
) -> None:
    can, cannot = script(opened, task, SLEEPS), sleeper(opened, task, role="tester")
    by_hand = script(opened, task, json.dumps([{"sleep": 601}]), role="reviewer")
    opened.kill_agent(by_hand)
    elsewhere = sleeper(opened, new_task(opened, tmp_path))
    paused = opened.pause_task(task, stop=True, grace=0)
    assert {each.agent_id: each.outcome for each in paused.stopped} == {
        can: "stopped",
        cannot.agent_id: "stopped",
    }
    assert paused.live == ()
    assert not alive(cannot.pid)
    assert alive(elsewhere.pid)
    known = opened.resume_task(task).agents
    assert [(each.agent_id, each.state) for each in known] == [
        (can, "can_resume"),
        (cannot.agent_id, "cannot_resume"),
    ]
    assert "no conversations" in known[1].why
    assert opened.get_agent(can).state == "ended"
    resumed = opened.resume_task(task, agents=True).agents
    assert [(each.state, each.run) for each in resumed] == [("resumed", 2), ("cannot_resume", 1)]
    assert opened.get_agent(can).state == "running"
    assert opened.get_agent(by_hand).run == 1
    assert [each.agent_id for each in opened.resume_task(task, agents=True).agents] == [cannot.agent_id]


def test_a_pause_twice_is_one_and_stops_what_the_first_let_live(opened: Headcount, task: str) -> None:
    agent = sleeper(opened, task)
    opened.pause_task(task)
    assert [each.agent_id for each in opened.pause_task(task, stop=True, grace=0).stopped] == [agent.agent_id]
    kinds = [each.kind for each in opened.read_events(task_id=task).events]
    assert kinds.count("task_paused") == 1


def test_only_a_task_that_is_open_or_paused_can_be_paused_or_resumed(opened: Headcount, task: str) -> None:
    opened.pause_task(task)
    opened.close_task(task)
    assert refusal(lambda: opened.pause_task(task)) == "task_not_open"
    assert refusal(lambda: opened.resume_task(task)) == "task_not_open"
    with pytest.raises(NotFound):
        opened.pause_task("task-0000000000000000")


def test_an_agent_pauses_and_resumes_nothing(opened: Headcount, task: str) -> None:
    agent = sleeper(opened, task)
    inside = opened.acting_as(Caller(agent.agent_id, agent.run))
    for call in (inside.pause_task, inside.resume_task):
        with pytest.raises(NotAllowed):
            call(task)
    opened.pause_task(task)
    with pytest.raises(HeadcountError) as refused:
        inside.deploy(task, role="child", harness="command", command=["true"])
    assert refused.value.code == "task_paused"


def test_a_crash_and_a_message_wait_for_the_end_of_a_pause_over_a_new_daemon(
    home: Path, opened: Headcount, task: str
) -> None:
    crashes, told = script(opened, task, SLEEPS, crashes=3), script(opened, task, role="tester")
    probe = script(opened, new_task(opened, Path("/")), SLEEPS, crashes=3)
    over(opened, told)
    opened.pause_task(task)
    assert "is paused" in opened.send_message(told, DONE).note
    with daemons.daemon(home):
        for agent in (
            crashes,
            probe,
        ):  # the probe's crash is later, and answered: so that of the other was seen
            pid = opened.get_agent(agent).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not alive(pid), what="its end")  # type: ignore[misc]
        until(lambda: opened.get_agent(probe).run == 2, what="the probe goes on", patience=30)
        assert (opened.get_agent(crashes).run, opened.get_agent(told).run) == (1, 1)
    with daemons.daemon(home):
        until(lambda: opened.get_agent(crashes).state == "ended", what="its end is on record")
        assert (opened.get_agent(crashes).run, opened.get_agent(told).run) == (1, 1)
        assert opened.get_task_status(task).refusals == {"task_paused": 1}  # of the message, when it was sent
        opened.resume_task(task)
        until(lambda: opened.get_agent(crashes).run == 2, what="it goes on", patience=30)
        until(lambda: opened.get_agent(told).run == 2, what="it is told", patience=30)


RACE = """
task = given["task"]
if me == 0:
    say(["paused", fleet.pause_task(task, stop=True, grace=0).live])
else:
    try:
        while True:
            made = fleet.deploy(task, role=f"role{me}", allow_duplicate_role=True, harness="command",
                                command=["/bin/sh", "-c", "exec sleep 600"])
    except HeadcountError as error:
        say([error.code])
"""


@pytest.mark.parametrize("attempt", range(3))
def test_no_deploy_is_admitted_once_a_pause_has_answered(home: Path, tmp_path: Path, attempt: int) -> None:
    with fleet(home, machine_max_live=500) as opened:
        task = new_task(opened, tmp_path, max_live=500, max_agents=500)
        told = given(home, task=task, settings={"machine_max_live": 500})
        answers = [[json.loads(line) for line in lines] for lines in at_once(RACE, 9, told)]
        assert answers[0] == [["paused", []]]
        assert {line[0] for lines in answers[1:] for line in lines} <= {"task_paused", "stopped_meanwhile"}
        kinds = [each.kind for each in opened.read_events(task_id=task, limit=1000).events]
        behind = kinds[kinds.index("task_paused") :]
        assert "run_reserved" not in behind
        health = opened.registry_health_check()
        assert (health.live_rows, health.live_runs, health.healthy) == (0, 0, True)


def test_the_command_line_says_what_was_stopped_and_what_goes_on(
    home: Path, opened: Headcount, task: str
) -> None:
    agent = script(opened, task, SLEEPS)
    done = headcount("task", "pause", task, "--stop", "--grace", "0s", "--reason", "lunch")
    assert done.code == 0, done.err
    assert f"{task} is paused" in done.out
    assert f"{agent} stopped" in done.out
    assert headcount("deploy", task, "--role", "x", "--harness", "command", "--", "true").code == 3
    done = headcount("task", "resume", task)
    assert f"{agent} can go on" in done.out
    done = headcount("task", "resume", task, "--agents", "--json")
    assert done.facts["agents"][0]["state"] == "resumed"
    other = sleeper(opened, task, role="tester").agent_id
    headcount("task", "pause", task, "--stop", "--grace", "0s")
    done = headcount("task", "resume", task, "--agents")
    assert done.code == 1
    assert f"{other} cannot go on" in done.out
