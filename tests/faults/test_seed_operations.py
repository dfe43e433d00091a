"""Each named operation of the predecessor, done by 30 processes at once (docs/seed-operations.md)."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from tests.support.crowd import at_once, given
from tests.support.fleets import alive, fleet, live_runs, new_task, sleeper
from tests.support.waiting import until

CROWD = 30

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home, machine_max_live=100) as made:
        yield made


def crowd(opened: Headcount, code: str, **more: object) -> list[list[Any]]:
    """Run `code` in 30 processes at once and return the JSON lines that each said."""
    told = given(opened.context.home.root, settings={"machine_max_live": 100}, **more)
    return [[json.loads(line) for line in lines] for lines in at_once(code, CROWD, told)]


SAFE_DEPLOY = """
try:
    made = fleet.deploy(given["task"], role=given.get("role") or f"role{me}", harness="command",
                        command=["/bin/sh", "-c", given.get("do", "exec sleep 600")],
                        allow_duplicate_role=given.get("double", False))
    say([made.agent_id, made.pid])
except HeadcountError as error:
    say([None, error.code])
"""


def test_locked_registry_file(opened: Headcount, tmp_path: Path) -> None:
    """Every write of 30 processes is kept, in one order that all see."""
    task = new_task(opened, tmp_path)
    agent = sleeper(opened, task)
    code = """
for n in range(20):
    say(fleet.update_agent_progress("working", f"{me}.{n}", agent_id=given["agent"]).id)
"""
    said = crowd(opened, code, agent=agent.agent_id)
    numbers = [number for lines in said for number in lines]
    assert len(set(numbers)) == CROWD * 20
    assert all(lines == sorted(lines) for lines in said)
    with opened.context.registry.read() as tx:
        reports = tx.reports.page(task_id=task, after=0, limit=10_000)
    assert len(reports) == CROWD * 20
    assert Counter(each.message for each in reports) == Counter(
        f"{m}.{n}" for m in range(CROWD) for n in range(20)
    )


def test_atomic_add_agent(opened: Headcount, tmp_path: Path) -> None:
    """30 deploys at once leave 30 rows and 30 processes."""
    task = new_task(opened, tmp_path, max_live=40)
    made = [lines[-1] for lines in crowd(opened, SAFE_DEPLOY, task=task)]
    assert all(agent for agent, _ in made)
    rows = {each.agent_id: each.pid for each in opened.list_agents(task_id=task).agents}
    assert rows == dict(made)
    assert all(alive(pid) for pid in rows.values())


def test_atomic_update_agent_status(opened: Headcount, tmp_path: Path) -> None:
    """30 who stop one agent: one change of state, one end, and all are told the same."""
    task = new_task(opened, tmp_path)
    agent = sleeper(opened, task)
    said = crowd(
        opened, 'x = fleet.stop_agent(given["agent"]); say([x.state, x.outcome])', agent=agent.agent_id
    )
    assert {tuple(lines[-1]) for lines in said} == {("ended", "stopped")}
    kinds = Counter(event.kind for event in opened.read_events(agent_id=agent.agent_id).events)
    assert kinds == {"run_reserved": 1, "run_started": 1, "stop_asked": 1, "run_ended": 1}


def test_atomic_counts_follow_from_rows(opened: Headcount, tmp_path: Path) -> None:
    """atomic_increment_counts, atomic_decrement_active_count: while 30 deploy and end, counts equal rows."""
    task = new_task(opened, tmp_path, max_live=40)
    code = (
        SAFE_DEPLOY
        + """
if me % 2:
    fleet.stop_agent(made.agent_id)
status = fleet.get_task_status(given["task"])
say([status.counts["live"], sum(a.state in ("reserved", "running", "stopping") for a in status.agents)])
"""
    )
    for lines in crowd(opened, code, task=task):
        counted, listed = lines[-1]
        assert counted == listed
    counts = opened.get_task_status(task).counts
    assert (counts["total"], counts["live"], counts["stopped"]) == (CROWD, CROWD // 2, CROWD // 2)


def test_atomic_mark_agents_completed(opened: Headcount, tmp_path: Path) -> None:
    """30 who look at 20 agents that have ended: each end is recorded once, as what it was."""
    task = new_task(opened, tmp_path)
    for n in range(20):
        opened.deploy(task, role=f"r{n}", harness="command", command=["/bin/sh", "-c", f"exit {n % 3}"])
    until(lambda: all(not alive(pid) for pid in _runners(opened)), what="the ends of 20 runs")
    said = crowd(opened, 'say(fleet.get_task_status(given["task"]).counts)', task=task)
    for lines in said:
        counts = lines[-1]
        assert (counts["live"], counts["completed"], counts["failed"]) == (0, 7, 13)
    kinds = Counter(event.kind for event in opened.read_events(task_id=task, limit=1000).events)
    assert kinds["run_ended"] == 20


def _runners(opened: Headcount) -> list[int]:
    with opened.context.registry.read() as tx:
        return [row.runner.pid for row in tx.runs.live() if row.runner]


def test_find_existing_agent(opened: Headcount, tmp_path: Path) -> None:
    """30 who ask for one role: one gets it, 29 are told who has it."""
    task = new_task(opened, tmp_path)
    made = [lines[-1] for lines in crowd(opened, SAFE_DEPLOY, task=task, role="builder")]
    assert sum(1 for agent, _ in made if agent) == 1
    assert [code for agent, code in made if not agent] == ["duplicate_role"] * (CROWD - 1)


def test_verify_agent_id_unique_and_generate_unique_agent_id(opened: Headcount, tmp_path: Path) -> None:
    """30 of one role in the same instant have 30 ids, which sort by time and are constraints, not luck."""
    task = new_task(opened, tmp_path, max_live=40)
    made = [lines[-1][0] for lines in crowd(opened, SAFE_DEPLOY, task=task, role="builder", double=True)]
    assert len({each for each in made if each}) == CROWD


def test_list_all_tmux_sessions(home: Path, tmp_path: Path, require_tmux: str) -> None:
    """30 who list the sessions see each live agent's, and change none."""
    with fleet(home, views=True, machine_max_live=100) as opened:
        task = new_task(opened, tmp_path)
        agents = {sleeper(opened, task, f"role{n}").agent_id for n in range(5)}
        until(
            lambda: {each.name for each in opened.registry_health_check().sessions} == agents,
            what="5 sessions",
        )
        code = "say(sorted(s.name for s in fleet.registry_health_check().sessions if s.known))"
        said = at_once(code, CROWD, given(home, settings={"views": True, "machine_max_live": 100}))
        assert all(json.loads(lines[-1]) == sorted(agents) for lines in said)


def test_registry_health_check(opened: Headcount, tmp_path: Path) -> None:
    """30 checks at once beside ghosts agree, and none writes."""
    task = new_task(opened, tmp_path)
    runners = [sleeper(opened, task, f"role{n}").runner_pid for n in range(6)]
    for runner in runners[::2]:  # after the last deploy, which would have settled them
        assert runner
        os.kill(runner, 9)
    until(lambda: not any(alive(runner) for runner in runners[::2]), what="three dead runners")
    last = opened.read_events().next_cursor
    said = crowd(opened, "h = fleet.registry_health_check(); say([h.healthy, len(h.ghosts), h.live_rows])")
    assert {tuple(lines[-1]) for lines in said} == {(False, 3, 6)}
    assert opened.read_events().next_cursor == last


def test_validate_and_repair_registry(opened: Headcount, tmp_path: Path) -> None:
    """30 repairs at once beside ghosts end each once, and touch no healthy agent."""
    task = new_task(opened, tmp_path)
    made = [sleeper(opened, task, f"role{n}") for n in range(8)]
    for each in made[:4]:
        assert each.runner_pid is not None
        os.kill(each.runner_pid, 9)
    crowd(opened, "fleet.validate_and_repair_registry(dry_run=False)")
    assert opened.registry_health_check().healthy
    kinds = Counter(event.kind for event in opened.read_events(task_id=task, limit=1000).events)
    assert kinds["run_lost"] == 4
    assert [alive(each.pid) for each in made] == [False] * 4 + [True] * 4


def test_cleanup_agent_resources(opened: Headcount, tmp_path: Path, home: Path) -> None:
    """30 who each deploy and stop leave no process, no mark and no slot; outputs stay readable."""
    task = new_task(opened, tmp_path, max_live=40)
    do = "echo out; trap '' TERM; sleep 600 & sleep 600"
    code = SAFE_DEPLOY + "fleet.stop_agent(made.agent_id, grace=0.2)\n"
    made = [lines[0] for lines in crowd(opened, code, task=task, do=do)]
    assert live_runs(home) == []
    assert opened.registry_health_check().healthy
    for agent_id, pid in made:
        assert not alive(pid)
        assert opened.get_agent_output(agent_id).text == "out\n"
    shutil.rmtree(tmp_path, ignore_errors=True)
