"""Many processes deploy at once: exactly the allowed number start, and the count is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headcount import Headcount
from tests.support.crowd import at_once, given
from tests.support.fleets import alive, fleet, new_task

DEPLOY = """
try:
    made = fleet.deploy(given["task"], role=given["role"] or f"role{me}", harness="command",
                        command=["/bin/sh", "-c", "exec sleep 600"])
    say(["made", made.agent_id, made.pid])
except HeadcountError as error:
    say(["refused", error.code, error.exit_code])
"""


def deploy_at_once(home: Path, task: str, number: int, role: str | None) -> tuple[list[str], list[str]]:
    """Return the ids that were made, and the codes of the refusals."""
    answers = [json.loads(lines[-1]) for lines in at_once(DEPLOY, number, given(home, task=task, role=role))]
    return [each[1] for each in answers if each[0] == "made"], [
        each[1] for each in answers if each[0] == "refused"
    ]


def count_is_right(opened: Headcount, expected: int) -> None:
    """Check that rows, processes and answers agree, with 0 ghosts and 0 strays."""
    health = opened.registry_health_check()
    assert health.healthy, health
    assert (health.live_rows, health.live_runs) == (expected, expected)
    agents = opened.list_agents(limit=1000).agents
    assert len({each.pid for each in agents}) == expected
    assert all(alive(each.pid) and alive(each.runner_pid) for each in agents)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [10, 30, 100])
def test_no_more_than_the_limit_start_however_many_ask(number: int, home: Path, tmp_path: Path) -> None:
    with fleet(home, machine_max_live=200) as opened:
        task = new_task(opened, tmp_path, max_live=20)
        made, refused = deploy_at_once(home, task, number, None)
        assert len(made) == min(20, number)
        assert refused == ["max_live"] * (number - len(made))
        count_is_right(opened, len(made))
        refusals = opened.get_task_status(task).refusals
        assert refusals == ({"max_live": len(refused)} if refused else {})


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [10, 30, 100])
def test_one_of_a_role_starts_however_many_ask(number: int, home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made, refused = deploy_at_once(home, task, number, "builder")
        assert len(made) == 1
        assert set(refused) == {"duplicate_role"}
        count_is_right(opened, 1)
