"""Reading: what an agent wrote, what it found and what happened, by every filter and cursor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.output import OutputPage
from tests.support.commands import headcount
from tests.support.fleets import fleet, new_task, sleeper
from tests.support.waiting import until

LINES, LONG = 500, 300_000
WRITER = f"""
seq -f 'line %g' {LINES}
head -c {LONG} /dev/zero | tr '\\0' y
echo; echo last
read go < "$PWD/go"
echo after
"""


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as made:
        yield made


def counted(page: OutputPage) -> int:
    assert page.lines_before is not None
    assert page.lines_after is not None
    shown = page.lines + page.lines_filtered + page.lines_left_out
    return page.lines_before + shown + page.lines_after


def test_output_is_read_during_the_run_and_after_it_and_every_line_is_shown_or_counted(
    opened: Headcount, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    argv = ["/bin/sh", "-c", WRITER]
    task = new_task(opened, tmp_path)
    agent = opened.deploy(task, role="writer", harness="command", command=argv).agent_id
    until(lambda: opened.get_agent_output(agent, tail=1).text == "last\n", what="all is written", patience=30)

    tail = opened.get_agent_output(agent, tail=3, max_bytes=1000)
    first, long, last = tail.text.splitlines()
    assert (first, last) == (f"line {LINES}", "last")
    assert long.startswith("yyy")
    assert (tail.lines, tail.lines_shortened) == (3, 1)
    assert tail.bytes_shortened > LONG - 1000
    assert counted(tail) == LINES + 2

    cursor, text = 0, ""
    while (page := opened.get_agent_output(agent, cursor=cursor, max_bytes=70_000)).more:
        cursor, text = page.next_cursor, text + page.text
    text += page.text
    assert len(text.encode()) == page.total_bytes
    assert text.endswith("y\nlast\n")

    (tmp_path / "go").write_text("go\n")
    assert opened.wait_for_agents([agent], timeout=30).done
    assert opened.get_agent_output(agent, cursor=page.next_cursor).text == "after\n"
    found = opened.get_agent_output(agent, filter=r"^line 1\d\d$", max_bytes=200)
    assert found.text.endswith("line 198\nline 199\n")
    assert counted(found) == LINES + 3
    assert opened.get_agent_output(agent, filter="(y+y+)+z", tail=1).lines == 0, "and it took no time"


def test_findings_are_had_by_severity_type_agent_time_and_cursor(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    one, two = (sleeper(opened, task, role).agent_id for role in ("builder", "tester"))
    for agent, kind, severity in ((one, "bug", "high"), (one, "risk", "low"), (two, "bug", "low")):
        opened.report_agent_finding(kind, f"{kind} of {agent}", severity=severity, agent_id=agent)
    every = opened.get_findings(task)
    assert (dict(every.by_severity), dict(every.by_type)) == ({"high": 1, "low": 2}, {"bug": 2, "risk": 1})
    ids = [each.id for each in every.findings]

    def found(**wish: str | int) -> list[int]:
        return [each.id for each in opened.get_findings(task, **wish).findings]  # type: ignore[arg-type]  # by name

    assert found(severity="low") == ids[1:]
    assert found(type="bug") == [ids[0], ids[2]]
    assert found(agent_id=two) == [ids[2]]
    assert found(severity="low", type="bug") == [ids[2]]
    assert found(since=every.findings[2].at) == [ids[2]]
    assert found(since="2001-01-01") == ids
    page = opened.get_findings(task, limit=2)
    assert ([each.id for each in page.findings], page.more) == (ids[:2], True)
    assert found(cursor=page.next_cursor) == ids[2:]


def test_the_journal_is_the_same_whole_or_page_by_page(opened: Headcount, tmp_path: Path) -> None:
    task, other = new_task(opened, tmp_path), new_task(opened, tmp_path)
    agent = sleeper(opened, task).agent_id
    sleeper(opened, other)
    opened.update_agent_progress("working", "at it", agent_id=agent)
    whole = [each.seq for each in opened.read_events().events]
    pages, cursor, more = [], 0, True
    while more:
        page = opened.read_events(cursor=cursor, limit=2)
        pages += [each.seq for each in page.events]
        cursor, more = page.next_cursor, page.more
    assert pages == whole == sorted(whole)
    assert {each.task_id for each in opened.read_events(task_id=task).events} == {task}
    kinds = [each.kind for each in opened.read_events(agent_id=agent).events]
    assert kinds == ["run_reserved", "run_started", "reported"]
    assert opened.read_events(cursor=cursor).next_cursor == cursor


def test_a_tasks_timeline_is_the_end_of_its_journal(opened: Headcount, tmp_path: Path) -> None:
    from headcount.doors.mcp.resources import progress

    task = new_task(opened, tmp_path)
    agent = sleeper(opened, task).agent_id
    for percent in range(100):
        for half in ("first", "second"):
            opened.update_agent_progress("working", half, progress=percent, agent_id=agent)
    shown = json.loads(progress(opened, task))
    assert len(shown["events"]) > 20
    assert len(shown["events"]) + shown["left_out"] == 203  # a task, a deploy and its start stand before
    assert {each["kind"] for each in shown["events"]} == {"reported"}
    assert shown["events"][-1]["seq"] == shown["next_cursor"]


def test_where_the_cap_cut_no_line_is_made_of_two(home: Path, tmp_path: Path) -> None:
    with fleet(home, output_cap=100) as opened:
        task = new_task(opened, tmp_path)
        made = opened.deploy(task, role="a", harness="command", command=["seq", "1", "100"])
        assert opened.wait_for_agents([made.agent_id], timeout=30).done
        page = opened.get_agent_output(made.agent_id, tail=60)
        assert page.bytes_lost == page.total_bytes - (len(page.text) - 1)  # the line feed behind 20 is ours
        assert "\n20\n7\n88\n" in page.text  # 87 was cut in its middle
        shown = headcount("logs", made.agent_id).out
        assert f"\n[{page.bytes_lost} bytes were cut here by the output cap]\n" in shown
