"""An agent that is over goes on with its conversation, or says why it cannot."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.errors import HeadcountError, InvalidInput, Refused
from tests.support.fleets import fleet, new_task, sleeper
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


def script(opened: Headcount, task: str, steps: str = DONE, role: str = "builder", **more: Any) -> str:
    return opened.deploy(task, role=role, harness="script", prompt=steps, **more).agent_id


def over(opened: Headcount, agent_id: str) -> None:
    assert opened.wait_for_agents([agent_id], timeout=20).done


def test_an_agent_goes_on_with_its_conversation_in_a_further_run(
    opened: Headcount, task: str, tmp_path: Path
) -> None:
    where = tmp_path / "below"
    where.mkdir()
    agent_id = script(opened, task, cwd=where)
    over(opened, agent_id)
    made = opened.resume_agent(agent_id, json.dumps([{"say": "again"}, {"run": "pwd; echo $HEADCOUNT_RUN"}]))
    assert (made.run, made.role, made.depth) == (2, "builder", 1)
    over(opened, agent_id)
    one, two = opened.get_agent(agent_id).runs
    assert one.session_id == two.session_id is not None
    assert (two.why, two.resumes, two.outcome) == ("resume", 1, "completed")
    assert two.path != one.path
    said = opened.get_agent_output(agent_id).text
    assert f"{where}\\n2" in said
    assert f'"session_id": "{one.session_id}"' in said
    kinds = [each.kind for each in opened.read_events(agent_id=agent_id).events]
    assert kinds == ["run_reserved", "run_started", "run_ended"] * 2


def test_a_resume_is_refused_with_its_reason(opened: Headcount, task: str) -> None:
    def refusal(agent_id: str) -> str:
        with pytest.raises(Refused) as error:
            opened.resume_agent(agent_id, DONE)
        return error.value.code

    live = script(opened, task, SLEEPS)
    assert refusal(live) == "agent_live"
    plain = sleeper(opened, task, role="tester").agent_id
    opened.kill_agent(plain)
    assert refusal(plain) == "cannot_resume"
    opened.kill_agent(live)
    other = script(opened, task, SLEEPS)  # which has the role now
    assert refusal(live) == "duplicate_role"
    opened.kill_agent(other)
    opened.halt()
    assert refusal(live) == "halted"
    opened.release_halt()
    with pytest.raises(InvalidInput):
        opened.resume_agent(live, "  ")
    opened.close_task(task)
    assert refusal(live) == "task_not_open"
    assert opened.get_task_status(task).refusals == {
        "duplicate_role": 1,
        "halted": 1,
        "agent_live": 1,
        "task_not_open": 1,
    }


def test_an_agent_that_never_ran_has_no_conversation(opened: Headcount, task: str, tmp_path: Path) -> None:
    with pytest.raises(HeadcountError):
        opened.deploy(task, role="builder", harness="script", command=[str(tmp_path / "gone")])
    (agent,) = opened.list_agents(all=True).agents
    with pytest.raises(Refused) as error:
        opened.resume_agent(agent.agent_id, DONE)
    assert error.value.code == "conversation_unknown"


def test_a_resume_counts_as_live_but_not_as_a_new_agent(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path, max_agents=2, max_live=1)
    first = script(opened, task, role="one")
    over(opened, first)
    second = script(opened, task, SLEEPS.replace("600", "0"), role="two")
    over(opened, second)
    opened.resume_agent(first, SLEEPS)
    with pytest.raises(Refused) as error:
        opened.resume_agent(second, DONE)
    assert error.value.code == "max_live"
    assert opened.get_task_status(task).counts["total"] == 2


def test_a_resume_with_the_same_key_is_done_once(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task)
    over(opened, agent_id)
    made = opened.resume_agent(agent_id, DONE, idempotency_key="k")
    over(opened, agent_id)
    again = opened.resume_agent(agent_id, DONE, idempotency_key="k")
    assert (made.run, again.run, again.repeated) == (2, 2, True)
    with pytest.raises(Refused, match="another"):
        opened.resume_agent(agent_id, SLEEPS, idempotency_key="k")


def test_a_token_of_an_earlier_run_is_worth_nothing(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, json.dumps([{"run": "echo token=$HEADCOUNT_TOKEN"}]))
    over(opened, agent_id)
    token = opened.get_agent_output(agent_id).text.rpartition("token=")[2].partition("\\n")[0]
    opened.resume_agent(agent_id, SLEEPS)
    from headcount.services import rights

    with pytest.raises(Refused, match="replaced"):
        rights.identify(opened.context, token)


def test_an_agent_that_was_lost_goes_on(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, SLEEPS)
    runner = opened.get_agent(agent_id).runner_pid
    assert runner is not None
    os.kill(runner, signal.SIGKILL)

    def lost() -> bool:
        opened.validate_and_repair_registry(dry_run=False)
        return opened.get_agent(agent_id).state == "lost"

    until(lost, what="a lost run")
    assert opened.resume_agent(agent_id, SLEEPS).run == 2


def test_a_rebuilt_registry_knows_what_a_run_goes_on_with(home: Path, opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, resume_on_crash=3)
    over(opened, agent_id)
    opened.resume_agent(agent_id, SLEEPS)
    before = opened.get_agent(agent_id)
    opened.context.registry.quarantine("a test")
    opened.rebuild_registry()
    after = opened.get_agent(agent_id)
    assert (after.prompt, after.cwd, after.resume_on_crash) == (before.prompt, before.cwd, 3)
    assert [(run.run, run.why, run.resumes, run.session_id) for run in after.runs] == [
        (run.run, run.why, run.resumes, run.session_id) for run in before.runs
    ]
