"""Somebody deletes a run directory under a live fleet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.waiting import until


def test_a_run_without_a_directory_is_live_while_its_runner_lives_and_then_lost(
    home: Path, tmp_path: Path
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made = sleeper(opened, task)
        assert made.runner_pid
        (directory,) = (home / "runs").glob(f"*/{made.agent_id}/1")
        shutil.rmtree(directory)
        opened.validate_and_repair_registry(dry_run=False)
        assert opened.get_agent(made.agent_id).state == "running"
        assert alive(made.pid)
        os.kill(made.runner_pid, 9)
        until(lambda: not alive(made.pid), what="the agent's end, with its runner's")
        opened.validate_and_repair_registry(dry_run=False)
        assert opened.get_agent(made.agent_id).state == "lost"
        assert os.listdir(home / "live") == []
        assert opened.registry_health_check().healthy
        sleeper(opened, task)
