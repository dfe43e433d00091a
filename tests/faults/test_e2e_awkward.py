"""Agents that will not be ended: through the command line, nothing of them survives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import answer
from tests.support.fleets import alive, fleet, live_runs, new_task
from tests.support.placements import awkward, noted
from tests.support.waiting import until

MODES = (
    "ignores_term",
    "stops_itself",
    "daemonises",
    "runs_away",
    "grows_heads",
    "closes_stdio",
    "has_many",
    "has_a_stopped_child",
    "has_own_groups",
    "floods",
)


@pytest.mark.parametrize("how", ["stop", "kill", "halt"])
def test_nothing_of_a_fleet_of_awkward_agents_survives(how: str, home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made = {
            mode: opened.deploy(task, role=mode, harness="command", command=awkward(mode, tmp_path / mode))
            for mode in MODES
        }
        for mode in MODES:
            until((tmp_path / mode / "ready").exists, what=f"{mode} is in place", patience=40)
        ids = [each.agent_id for each in made.values()]
        words = {"stop": ("--task", task, "--grace", "0.5"), "kill": ids, "halt": ()}
        stopped = answer(how, *words[how])["stopped"]
        assert {each["agent_id"]: (each["outcome"], each["survivors"]) for each in stopped} == {
            each.agent_id: ("stopped", []) for each in made.values()
        }
        assert {mode: noted(tmp_path / mode) for mode in MODES} == {mode: set() for mode in MODES}
        assert not any(alive(each.pid) or alive(each.runner_pid) for each in made.values())
        assert live_runs(home) == []
        assert opened.registry_health_check().healthy
