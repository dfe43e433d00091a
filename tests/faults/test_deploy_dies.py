"""SIGKILL who deploys, resumes or sends, at every SQL statement, and before every start and file write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.services import messages
from tests.support.dying import Dying, dying
from tests.support.fleets import alive, fleet, new_task
from tests.support.waiting import until

DEPLOY = """
fleet.deploy(given[0], role="builder", harness="command", command=["/bin/sh", "-c", "exec sleep 600"],
             prompt="work")
"""
RESUME, SEND = "fleet.resume_agent(*given)", "fleet.send_message(*given)"


@pytest.fixture
def who(home: Path) -> Iterator[Dying]:
    with dying(home) as found:
        yield found


def steps(at: int) -> str:
    return json.dumps([{"say": str(at)}, {"sleep": 600}])


def agree(opened: Headcount) -> None:
    """Check that after one headcount the rows are the processes."""
    opened.validate_and_repair_registry(dry_run=False)
    health = opened.registry_health_check()
    assert health.healthy, health
    for agent in opened.list_agents(all=True).agents:
        live = agent.state in {"reserved", "running", "stopping"}
        assert live == alive(agent.runner_pid), agent
        assert not live or alive(agent.pid), agent


PARTS = 4


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_after_one_headcount_rows_are_processes_wherever_the_deployer_died(
    part: int, home: Path, tmp_path: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        total = who.boundaries(DEPLOY, new_task(opened, tmp_path))
        assert total > 40
        for at in range(part, total, PARTS):
            task = new_task(opened, tmp_path)
            if not who.died(at, DEPLOY, task):  # a later deploy finds more in place: it has fewer boundaries
                assert at > total - 10
                break
            # the runner may be between its start and its lock: that end is settled by whoever comes next
            until(lambda: _settled(opened), what=f"a settled registry after boundary {at}")
            agree(opened)
            for agent in opened.list_agents(task_id=task).agents:
                opened.kill_agent(agent.agent_id)


def _settled(opened: Headcount) -> bool:
    """A runner whose order was cut short holds its lock for a moment: until then the row waits for it."""
    opened.validate_and_repair_registry(dry_run=False)
    waiting = any(agent.state == "reserved" for agent in opened.list_agents().agents)
    return opened.registry_health_check().healthy and not waiting


def talker(opened: Headcount, project: Path) -> str:
    """Return an agent that is over and has a conversation."""
    task = new_task(opened, project)
    agent = opened.deploy(task, role="builder", harness="script", prompt='[{"say": "first"}]')
    assert opened.wait_for_agents([agent.agent_id], timeout=20).done
    return agent.agent_id


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_after_one_headcount_rows_are_processes_wherever_who_resumed_died(
    part: int, home: Path, tmp_path: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        total = who.boundaries(RESUME, talker(opened, tmp_path), steps(-1))
        assert total > 40
        agent_id = talker(opened, tmp_path)
        for at in range(part, total, PARTS):
            before = opened.get_agent(agent_id).run
            if not who.died(at, RESUME, agent_id, steps(at)):
                assert at > total - 10
                break
            until(lambda: _settled(opened), what=f"a settled registry after boundary {at}")
            agree(opened)
            assert opened.get_agent(agent_id).run in (before, before + 1)
            opened.kill_agent(agent_id)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_message_is_handed_over_once_wherever_its_sender_died(
    part: int, home: Path, tmp_path: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        total = who.boundaries(SEND, talker(opened, tmp_path), steps(-1))
        assert total > 40
        agent_id = talker(opened, tmp_path)
        for at in range(part, total, PARTS):
            known = {each.id for each in opened.list_messages(agent_id).messages}
            if not who.died(at, SEND, agent_id, steps(at)):
                assert at > total - 10
                break
            until(lambda: _settled(opened), what=f"a settled registry after boundary {at}")
            agree(opened)
            for each in opened.list_messages(agent_id).messages:
                if each.id not in known:
                    messages.bring(opened.context, each.id)  # as the daemon does
            agree(opened)
            for each in opened.list_messages(agent_id).messages:
                assert each.state == "delivered", each
            assert _told(opened, agent_id, at) == len(opened.list_messages(agent_id).messages) - len(known)
            opened.kill_agent(agent_id)


def _told(opened: Headcount, agent_id: str, at: int) -> int:
    """Return how many runs that began were told the message of this boundary."""
    begun = [Path(run.path) for run in opened.get_agent(agent_id).runs if run.started_at]
    return sum(f'"say": "{at}"' in (path / "steps.json").read_text() for path in begun)
