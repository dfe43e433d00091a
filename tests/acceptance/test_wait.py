"""Waiting for agents: any or all, until they end, report, are done, are blocked or find something."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.errors import InvalidInput
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import RunKey
from tests.support.fleets import fleet, new_task, sleeper
from tests.support.registries import end, new_run


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as made:
        yield made


@pytest.fixture
def pair(opened: Headcount, tmp_path: Path) -> tuple[str, str, str]:
    """Return a task and its two agents, which only sleep."""
    task = new_task(opened, tmp_path)
    return task, sleeper(opened, task, "builder").agent_id, sleeper(opened, task, "tester").agent_id


def test_any_is_done_with_the_first_and_names_it(opened: Headcount, pair: tuple[str, str, str]) -> None:
    task, builder, tester = pair
    opened.kill_agent(tester)
    waited = opened.wait_for_agents(task_id=task, any=True, timeout=10)
    assert (waited.done, waited.pending) == (True, (builder,))
    assert [each.agent_id for each in waited.agents] == [tester]


def test_any_goes_on_with_the_next_one_behind_its_cursor(
    opened: Headcount, pair: tuple[str, str, str]
) -> None:
    task, builder, tester = pair
    opened.kill_agent(tester)
    first = opened.wait_for_agents(task_id=task, any=True, timeout=10)
    again = opened.wait_for_agents(task_id=task, any=True, timeout=0, cursor=first.cursor)
    assert not again.done
    opened.kill_agent(builder)
    then = opened.wait_for_agents(task_id=task, any=True, timeout=10, cursor=again.cursor)
    assert [each.agent_id for each in then.agents] == [builder]


def test_any_behind_a_cursor_is_done_when_nobody_is_left(
    opened: Headcount, pair: tuple[str, str, str]
) -> None:
    task, builder, tester = pair
    for each in (builder, tester):
        opened.kill_agent(each)
    first = opened.wait_for_agents(task_id=task, any=True, timeout=10)
    for whom in ({"task_id": task}, {"agent_ids": [builder, tester]}):
        none = opened.wait_for_agents(**whom, any=True, timeout=10, cursor=first.cursor)
        assert (none.done, none.agents, none.pending, none.ended) == (True, (), (), 0)


@pytest.fixture
def crowd(opened: Headcount, pair: tuple[str, str, str]) -> str:
    """Let the pair's task have 1,200 agents after the pair that are over, the oldest of them failed."""
    task, *_ = pair
    with opened.context.registry.write("test") as tx:
        for number in range(1200):
            key = RunKey(f"worker-{number:016}", 1)
            tx.runs.add(new_run(key.agent_id, task_id=task))
            end(tx, key, outcome=Outcome.COMPLETED if number else Outcome.FAILED)
            tx.events.add("run_ended", task_id=task, agent_id=key.agent_id, run=1, now=1.0)
    return task


def test_a_task_with_more_agents_than_an_answer_shows_is_waited_for_to_the_last(
    opened: Headcount, crowd: str, pair: tuple[str, str, str]
) -> None:
    _, builder, tester = pair
    waited = opened.wait_for_agents(task_id=crowd, timeout=0)
    assert (waited.done, set(waited.pending)) == (False, {builder, tester})
    assert {builder, tester} < {each.agent_id for each in waited.agents}
    opened.kill_agent(builder)
    opened.kill_agent(tester)
    waited = opened.wait_for_agents(task_id=crowd, timeout=10)
    assert (waited.done, waited.ended, waited.failed) == (True, 1202, 3)


def test_any_names_all_that_have_ended_in_as_many_answers_as_that_takes(
    opened: Headcount, crowd: str, pair: tuple[str, str, str]
) -> None:
    cursor, named = "0", []
    while (waited := opened.wait_for_agents(task_id=crowd, any=True, timeout=0, cursor=cursor)).done:
        named += [each.agent_id for each in waited.agents]
        cursor = waited.cursor or ""
    assert sorted(named) == [f"worker-{number:016}" for number in range(1200)]


def test_all_is_done_with_the_last_one(opened: Headcount, pair: tuple[str, str, str]) -> None:
    _, builder, tester = pair
    opened.kill_agent(tester)
    waited = opened.wait_for_agents([builder, tester], timeout=0.05)
    assert (waited.done, waited.pending) == (False, (builder,))
    assert waited.hint
    opened.kill_agent(builder)
    assert opened.wait_for_agents([builder, tester], timeout=10, cursor=waited.cursor).done


@pytest.mark.parametrize("until", ["reported", "finding"])
def test_what_an_agent_said_in_an_earlier_part_of_the_wait_counts(
    opened: Headcount, pair: tuple[str, str, str], until: str
) -> None:
    task, builder, tester = pair

    def says(agent: str) -> None:
        opened.report_agent_finding("bug", "there is one", agent_id=agent)

    part = opened.wait_for_agents(task_id=task, until=until, timeout=0)
    says(builder)
    part = opened.wait_for_agents(task_id=task, until=until, timeout=0, cursor=part.cursor)
    assert (part.done, part.pending) == (False, (tester,))
    says(tester)
    whole = opened.wait_for_agents(task_id=task, until=until, timeout=0, cursor=part.cursor)
    assert whole.done
    behind = opened.wait_for_agents(task_id=task, until=until, timeout=0, cursor=whole.cursor)
    assert set(behind.pending) == {builder, tester}, "a wait that is done begins anew behind its cursor"


@pytest.mark.parametrize("status", ["done", "blocked"])
def test_a_condition_is_what_the_last_report_says(
    opened: Headcount, pair: tuple[str, str, str], status: str
) -> None:
    _, builder, tester = pair
    opened.update_agent_progress("working", "at it", agent_id=builder)
    assert not opened.wait_for_agents([builder, tester], any=True, until=status, timeout=0).done
    opened.update_agent_progress(status, "so it is", agent_id=builder)
    waited = opened.wait_for_agents([builder, tester], any=True, until=status, timeout=10)
    assert [each.agent_id for each in waited.agents] == [builder]


def test_it_answers_when_it_happens(opened: Headcount, pair: tuple[str, str, str]) -> None:
    _, builder, _ = pair
    later = threading.Timer(0.3, opened.kill_agent, [builder])
    later.start()
    waited = opened.wait_for_agents([builder], timeout=45)
    later.join()
    assert waited.done
    assert 0.2 < waited.waited_s < 10


def test_an_agent_that_is_over_has_nothing_more_to_say(opened: Headcount, pair: tuple[str, str, str]) -> None:
    _, builder, _ = pair
    opened.kill_agent(builder)
    assert opened.wait_for_agents([builder], until="blocked", timeout=10).done


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"task_id": None, "agent_ids": ["../x"]},
        {"until": "tea"},
        {"timeout": -1},
        {"cursor": "yesterday"},
    ],
    ids=["nobody", "id", "condition", "time", "cursor"],
)
def test_what_cannot_be_waited_for_is_refused(
    opened: Headcount, pair: tuple[str, str, str], wish: dict[str, object]
) -> None:
    whom = {"task_id": pair[0]} if wish else {}
    with pytest.raises(InvalidInput):
        opened.wait_for_agents(**{**whom, **wish})  # type: ignore[arg-type]  # wrong on purpose
