"""Beside 100,000 old runs, rows and directories, nothing takes longer than without them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.config import Home
from tests.support import disks
from tests.support.commands import headcount
from tests.support.fleets import fleet, new_task, sleeper
from tests.support.histories import fill

MANY = 100_000
ROUNDS = 12
SLACK = 0.010
"""Seconds that a busy machine may add to the quickest of some rounds; benchmarks/ has the exact ratios."""


def in_memory(home: Path) -> AbstractContextManager[object]:
    """As root, have the home in memory: so many directories take a minute to remove from a disk."""
    return disks.small(home, megabytes=600) if os.geteuid() == 0 else nullcontext()


def directories(home: Path, number: int) -> None:
    """Make run directories as so many runs leave them."""
    month = os.fspath(Home(home).runs / "2025-01")
    os.mkdir(month)
    for n in range(number):
        os.mkdir(f"{month}/old-{n:016}")
        os.mkdir(f"{month}/old-{n:016}/1")


def quickest(opened: Headcount, task: str) -> dict[str, float]:
    """Return the seconds that each call takes at best."""
    asks: dict[str, Callable[[], object]] = {
        "status": lambda: opened.get_task_status(task),
        "list": opened.list_agents,
        "health": opened.registry_health_check,
        "repair": lambda: opened.validate_and_repair_registry(dry_run=False),
        "events": lambda: opened.read_events(cursor=5, task_id=task, limit=20),
    }
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        began = time.perf_counter()
        made = sleeper(opened, task)
        best["deploy"] = min(best.get("deploy", 60.0), time.perf_counter() - began)
        for name, ask in asks.items():
            began = time.perf_counter()
            ask()
            best[name] = min(best.get(name, 60.0), time.perf_counter() - began)
        opened.kill_agent(made.agent_id)
    return best


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_call_grows_with_what_is_over(home: Path, tmp_path: Path) -> None:
    with in_memory(home), fleet(home, min_disk_mb=1) as opened:
        task = new_task(opened, tmp_path, max_agents=1000)
        young = quickest(opened, task)
        fill(opened, MANY)
        directories(home, MANY)
        old = quickest(opened, task)
        grown = {name: (young[name], old[name]) for name in young if old[name] > 1.5 * young[name] + SLACK}
        assert grown == {}
        assert opened.registry_health_check().healthy
        assert opened.get_task_status(task).counts["total"] == 2 * ROUNDS
        began = time.perf_counter()
        assert headcount("ps", "--json").facts["agents"] == []
        assert time.perf_counter() - began < 10
