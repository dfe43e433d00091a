"""SIGKILL of whoever stops, halts, repairs or collects, at every boundary: the next one does the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.services.answers import Deployed
from tests.support.dying import Dying, dying
from tests.support.fleets import alive, fleet, live_runs, new_task, sleeper
from tests.support.waiting import until

PARTS = 2
MANY = 500
"""More boundaries than anything here has."""


def agree(opened: Headcount) -> None:
    """Check that after one headcount the rows are the processes, once what was told to end has ended."""
    until(lambda: settled(opened), what="rows and processes agree")


def settled(opened: Headcount) -> bool:
    opened.validate_and_repair_registry(dry_run=False)
    return opened.registry_health_check().healthy and all(
        (each.state in {"reserved", "running", "stopping"}) == alive(each.runner_pid) == alive(each.pid)
        for each in opened.list_agents(all=True).agents
    )


@pytest.fixture
def who(home: Path) -> Iterator[Dying]:
    with dying(home) as found:
        yield found


def died(who: Dying, at: int, code: str, *given: str) -> bool:
    """Run `code`; return whether it died at boundary `at`, and did not get to its end before."""
    dead = who.died(at, code, *given)
    assert dead or at > 10, "fewer boundaries than it must have"
    return dead


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(PARTS))
def test_wherever_a_stop_dies_the_agent_lives_and_may_be_stopped_or_has_ended(
    part: int, home: Path, tmp_path: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, max_agents=MANY)
        for at in range(part, MANY, PARTS):
            made = sleeper(opened, task)
            if not died(who, at, "fleet.stop_agent(given[0])", made.agent_id):
                break
            agree(opened)
            asked = any(
                each.kind == "stop_asked" for each in opened.read_events(agent_id=made.agent_id).events
            )
            found = opened.get_agent(made.agent_id)
            assert found.state == ("ended" if asked else "running"), at
            assert opened.stop_agent(made.agent_id).outcome == "stopped"
            assert not alive(made.pid)
        assert live_runs(home) == []


@pytest.mark.timeout(240)
def test_wherever_a_halt_dies_another_one_ends_all(home: Path, tmp_path: Path, who: Dying) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, max_agents=MANY)
        for at in range(0, MANY, 4):
            made = [sleeper(opened, task, "one"), sleeper(opened, task, "two")]
            if not died(who, at, "fleet.halt()"):
                break
            agree(opened)
            opened.halt()
            assert not any(alive(each.pid) for each in made), at
            assert live_runs(home) == []
            opened.release_halt()


def with_a_ghost_and_a_stray(opened: Headcount, task: str) -> tuple[Deployed, Deployed]:
    """Return an agent whose runner was killed, the process is left, and one that is well."""
    ghost, well = sleeper(opened, task, "ghost"), sleeper(opened, task, "well")
    assert ghost.runner_pid
    os.kill(ghost.runner_pid, signal.SIGKILL)
    until(lambda: not alive(ghost.runner_pid), what="the end of the runner")
    return ghost, well


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(PARTS))
def test_wherever_a_repair_dies_the_next_one_does_the_rest(
    part: int, home: Path, tmp_path: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, max_agents=MANY)
        for at in range(part, MANY, PARTS):
            ghost, well = with_a_ghost_and_a_stray(opened, task)
            if not died(who, at, "fleet.validate_and_repair_registry(dry_run=False)"):
                break
            agree(opened)
            assert opened.get_agent(ghost.agent_id).state == "lost"
            assert opened.get_agent(well.agent_id).pid == well.pid
            assert alive(well.pid)
            assert not alive(ghost.pid)
            opened.kill_agent(well.agent_id)


@pytest.mark.timeout(240)
def test_wherever_a_collection_dies_the_next_one_finishes_it(home: Path, tmp_path: Path, who: Dying) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, max_agents=MANY)
        stays = sleeper(opened, task, "stays")
        for at in range(0, MANY, 2):
            goes = opened.deploy(task, role="goes", harness="command", command=["true"])
            opened.wait_for_agents([goes.agent_id])
            if not died(who, at, "fleet.gc(dry_run=False, older_than=0.0)"):
                break
            opened.gc(dry_run=False, older_than=0.0)
            assert [each.agent_id for each in opened.list_agents(all=True).agents] == [stays.agent_id], at
            assert [path.parent.name for path in home.glob("runs/*/*/*")] == [stays.agent_id], at
            assert goes.agent_id in {path.name.rpartition(".")[0] for path in home.glob("trash/*/*")}, at
            assert opened.registry_health_check().healthy
        assert alive(stays.pid)
