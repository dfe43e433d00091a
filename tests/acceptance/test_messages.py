"""What an agent is told after its deploy reaches it once: in its work, with a report, or by a further run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.errors import InvalidInput, NotAllowed, Refused
from headcount.services import messages
from headcount.services.answers import MessageFacts
from tests.support import daemons
from tests.support.fleets import fleet, new_task, sleeper
from tests.support.waiting import until

SLEEPS = json.dumps([{"sleep": 600}])


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


@pytest.fixture
def task(opened: Headcount, tmp_path: Path) -> str:
    return new_task(opened, tmp_path)


def script(opened: Headcount, task: str, steps: str = SLEEPS, **more: Any) -> str:
    return opened.deploy(task, role="builder", harness="script", prompt=steps, **more).agent_id


def only(opened: Headcount, agent_id: str) -> MessageFacts:
    (message,) = opened.list_messages(agent_id).messages
    return message


def as_agent(opened: Headcount, agent_id: str) -> Headcount:
    run = opened.get_agent(agent_id).run
    return opened.acting_as(replace(opened.context.caller, agent_id=agent_id, run=run))


def test_an_agent_that_can_be_steered_is_told_in_its_work(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, steer=True)
    sent = opened.send_message(agent_id, "mind the tabs")
    assert (sent.state, sent.way, sent.run) == ("delivered", "steer", 1)
    assert "told by a person: mind the tabs" in opened.get_agent_output(agent_id).text
    assert only(opened, agent_id).state == "delivered"
    kinds = [each.kind for each in opened.read_events(agent_id=agent_id).events]
    assert kinds[-2:] == ["message_sent", "message_delivered"]


def test_a_turn_is_cancelled_and_the_agent_goes_on(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, json.dumps([{"sleep": 600}, {"say": "next"}]), steer=True)
    assert opened.cancel_turn(agent_id).state == "cancelled"
    assert opened.wait_for_agents([agent_id], timeout=20).done
    assert '"text": "next"' in opened.get_agent_output(agent_id).text
    with pytest.raises(Refused) as error:
        opened.cancel_turn(agent_id)
    assert error.value.code == "not_running"
    with pytest.raises(Refused) as error:
        opened.cancel_turn(sleeper(opened, task).agent_id)
    assert error.value.code == "cannot_cancel"


def test_another_live_agent_is_told_with_the_answer_to_its_next_report(opened: Headcount, task: str) -> None:
    agent_id = sleeper(opened, task).agent_id
    sent = opened.send_message(agent_id, "mind the tabs")
    assert (sent.state, sent.way) == ("queued", "report")
    acting = as_agent(opened, agent_id)
    assert opened.update_agent_progress("working", "for it", agent_id=agent_id).messages == ()
    (told,) = acting.update_agent_progress("working", "half").messages
    assert (told.text, told.sender) == ("mind the tabs", None)
    assert acting.report_agent_finding("bug", "here").messages == ()
    assert (only(opened, agent_id).state, only(opened, agent_id).run) == ("delivered", 1)


def test_what_is_on_its_way_into_the_work_does_not_come_with_a_report_too(
    opened: Headcount, task: str
) -> None:
    agent_id = script(opened, task, steer=True)
    pid = opened.get_agent(agent_id).pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    sent = opened.send_message(agent_id, "mind the tabs")
    assert (sent.state, sent.way, sent.run) == ("queued", "steer", 1)
    assert as_agent(opened, agent_id).update_agent_progress("working", "half").messages == ()
    os.kill(pid, signal.SIGCONT)
    until(lambda: "mind the tabs" in opened.get_agent_output(agent_id).text, what="it is told")
    messages.collect(opened.context, agent_id)  # as the daemon does
    assert (only(opened, agent_id).state, only(opened, agent_id).way) == ("delivered", "steer")


def test_a_report_whose_answer_was_lost_is_answered_with_the_same_messages(
    opened: Headcount, task: str
) -> None:
    agent_id = sleeper(opened, task).agent_id
    opened.send_message(agent_id, "one")
    acting = as_agent(opened, agent_id)
    call = acting.acting_as(acting.context.caller, call="a key")
    first = call.update_agent_progress("working", "half")
    opened.send_message(agent_id, "two")
    assert call.update_agent_progress("working", "half") == first
    assert [each.text for each in acting.update_agent_progress("working", "more").messages] == ["two"]


def test_an_agent_that_is_over_goes_on_with_the_message(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, json.dumps([{"say": "done"}]))
    assert opened.wait_for_agents([agent_id], timeout=20).done
    sent = opened.send_message(agent_id, json.dumps([{"say": "one more"}]))
    assert (sent.state, sent.way, sent.run) == ("delivered", "resume", 2)
    assert opened.wait_for_agents([agent_id], timeout=20).done
    assert [run.why for run in opened.get_agent(agent_id).runs] == ["deploy", "message"]
    assert "one more" in opened.get_agent_output(agent_id).text


def test_a_message_waits_for_the_resume_where_it_must_not_be_one(opened: Headcount, task: str) -> None:
    agent_id = sleeper(opened, task).agent_id
    opened.kill_agent(agent_id)
    sent = opened.send_message(agent_id, "mind the tabs")
    assert (sent.state, sent.way) == ("queued", None)
    assert "no conversations" in sent.note
    other = script(opened, task)
    opened.kill_agent(other)
    sent = opened.send_message(other, "mind the tabs", resume=False)
    assert (sent.state, sent.way) == ("queued", None)
    assert "as asked" in sent.note


def test_a_message_that_a_limit_keeps_back_waits_and_the_daemon_brings_it(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path, max_live=1)
    agent_id = script(opened, task, json.dumps([{"say": "done"}]))
    assert opened.wait_for_agents([agent_id], timeout=20).done
    other = sleeper(opened, task, role="tester").agent_id
    sent = opened.send_message(agent_id, json.dumps([{"say": "one more"}]))
    assert (sent.state, sent.way) == ("queued", "resume")
    assert "limit is 1" in sent.note
    opened.kill_agent(other)
    with daemons.daemon(home):
        until(lambda: only(opened, agent_id).state == "delivered", what="the message", patience=30)
        assert opened.wait_for_agents([agent_id], timeout=20).done
    assert [run.run for run in opened.get_agent(agent_id).runs] == [1, 2]


def test_a_message_that_cannot_be_a_prompt_says_so(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, json.dumps([{"say": "done"}]))
    assert opened.wait_for_agents([agent_id], timeout=20).done
    sent = opened.send_message(agent_id, "no steps")
    assert sent.state == "failed"
    assert "JSON" in sent.note
    assert only(opened, agent_id).reason == sent.note


def test_what_a_steered_run_was_not_told_waits_for_the_next(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, json.dumps([{"run": "sleep 600"}]), steer=True)  # it does not look
    sent = opened.send_message(agent_id, json.dumps([{"say": "late"}]))
    assert (sent.state, sent.way) == ("queued", "steer")
    opened.kill_agent(agent_id)
    assert (only(opened, agent_id).state, only(opened, agent_id).way) == ("queued", None)


def test_who_may_send(opened: Headcount, task: str, tmp_path: Path) -> None:
    agent_id = sleeper(opened, task).agent_id
    other = sleeper(opened, task, role="tester").agent_id
    stranger = sleeper(opened, new_task(opened, tmp_path)).agent_id
    assert as_agent(opened, other).send_message(agent_id, "hello").state == "queued"
    assert only(opened, agent_id).sender == other
    for who in (stranger, agent_id):
        with pytest.raises(NotAllowed):
            as_agent(opened, who).send_message(agent_id, "hello")
    for bad in ("  ", "x" * 4001):
        with pytest.raises(InvalidInput):
            opened.send_message(agent_id, bad)


def test_a_peer_does_not_resume_whom_it_did_not_deploy(opened: Headcount, task: str) -> None:
    agent_id = script(opened, task, json.dumps([{"say": "done"}]))
    assert opened.wait_for_agents([agent_id], timeout=20).done
    other = sleeper(opened, task, role="tester").agent_id
    sent = as_agent(opened, other).send_message(agent_id, "hello")
    assert (sent.state, sent.way) == ("queued", None)
    assert opened.get_agent(agent_id).run == 1
