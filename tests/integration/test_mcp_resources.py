"""A resource's body is no longer than a tool's answer, and says how to get the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.doors.mcp import resources
from headcount.doors.mcp.resources import HEAD_CHARS
from headcount.doors.mcp.shape import PAGE_CHARS
from tests.support.fleets import fleet, new_task, sleeper


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as made:
        yield made


def test_the_list_of_tasks_goes_on_where_it_ends(opened: Headcount, tmp_path: Path) -> None:
    for _ in range(40):
        opened.create_task("d" * 300, project=str(tmp_path))
    made = [each.task_id for each in opened.list_tasks().tasks]
    text = resources.tasks(opened)
    assert len(text) <= PAGE_CHARS
    found = json.loads(text)
    assert [each["task_id"] for each in found["tasks"]] == made[: len(found["tasks"])]
    assert 5 < len(found["tasks"]) < 40
    rest = opened.list_tasks(cursor=found["next_cursor"]).tasks
    assert [each.task_id for each in rest] == made[len(found["tasks"]) :]


def test_a_status_says_where_the_rest_is(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    made = sleeper(opened, task)
    for _ in range(10):
        opened.report_agent_finding("bug", "f" * 19_000, agent_id=made.agent_id)
    text = resources.status(opened, task)
    assert len(text) <= PAGE_CHARS
    found = json.loads(text)
    assert found["truncated"] is True
    assert "get_findings" in found["next"]
    assert found["task"]["task_id"] == task


def test_a_timeline_keeps_the_newest_and_counts_what_came_before(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    made = sleeper(opened, task)
    short = json.loads(resources.progress(opened, task))
    assert [each["kind"] for each in short["events"]] == ["task_created", "run_reserved", "run_started"]
    assert (short["left_out"], "next" in short) == (0, False)
    for number in range(150):
        opened.update_agent_progress("working", "on", progress=number % 100, agent_id=made.agent_id)
    text = resources.progress(opened, task)
    assert len(text) <= PAGE_CHARS
    found = json.loads(text)
    whole = opened.read_events(task_id=task, limit=1000).events
    assert found["left_out"] + len(found["events"]) == len(whole)
    assert [each["seq"] for each in found["events"]] == [each.seq for each in whole[found["left_out"] :]]
    assert len(found["events"]) > 20
    assert "read_events" in found["next"]


@pytest.mark.parametrize(
    "script", ["seq 100000", "head -c 50000 /dev/zero | tr '\\0' x", "yes '\"\\\\' | head -5000"]
)
def test_an_output_says_what_came_before_its_end(opened: Headcount, tmp_path: Path, script: str) -> None:
    task = new_task(opened, tmp_path)
    made = opened.deploy(task, role="writer", harness="command", command=["/bin/sh", "-c", script])
    opened.wait_for_agents([made.agent_id])
    text = resources.output(opened, made.agent_id)
    assert 500 < len(text) <= PAGE_CHARS
    first, _, shown = text.partition("\n")
    assert "get_agent_output" in first
    last = opened.get_agent_output(made.agent_id, tail=1, max_bytes=PAGE_CHARS - HEAD_CHARS).text
    assert shown.endswith(last[-20:])


def test_a_short_output_is_just_that(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    made = opened.deploy(task, role="writer", harness="command", command=["echo", "all of it"])
    opened.wait_for_agents([made.agent_id])
    assert resources.output(opened, made.agent_id) == "all of it\n"
