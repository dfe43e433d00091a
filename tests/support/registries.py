"""Registries of a test's own, and rows to put into them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headcount.config import Home
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord, Process, RunKey, Task, TaskContext, TaskState
from headcount.store.registry import Registry, Tx
from headcount.store.runs import NewRun

BOOT = "7b6e1c52-0000-4000-8000-000000000001"
DEPLOYER = Process(101, 1001, BOOT)
RUNNER = Process(102, 1002, BOOT)
AGENT = Process(103, 1003, BOOT)
TASK = "task-01jx5e2k9pab12cd"


def registry(
    home: Path, *, wait: float = 10.0, on_statement: Callable[[str], None] | None = None
) -> Registry:
    """Return the registry of a home, as the composition root makes it; nothing is opened yet."""
    place = Home(home)
    return Registry(
        place.registry,
        place.registry_lock,
        quarantine=place.quarantine,
        backups=place.backups,
        wait=wait,
        clock=time.time,
        on_statement=on_statement,
    )


def task(task_id: str = TASK, **given: Any) -> Task:
    facts: dict[str, Any] = {
        "task_id": task_id,
        "description": "a piece of work",
        "priority": "normal",
        "project": "/srv/project",
        "state": TaskState.OPEN,
        "context": TaskContext(),
        "max_live": 20,
        "max_agents": 45,
        "max_depth": 5,
        "spawn_rules": None,
        "created_at": 1000.0,
    }
    return Task(**{**facts, **given})


def new_run(agent_id: str, n: int = 1, **given: Any) -> NewRun:
    """Return a run that takes no slot but its agent's; the role is the front of the id."""
    facts: dict[str, Any] = {
        "key": RunKey(agent_id, n),
        "task_id": TASK,
        "role": agent_id.partition("-")[0],
        "parent": None,
        "depth": 1,
        "harness": "command",
        "model": None,
        "effort": None,
        "prompt": None,
        "work_hash": None,
        "takes_role": False,
        "takes_work": False,
        "command": ("sleep", "600"),
        "cwd": "/srv/project",
        "path": f"/srv/home/runs/2026-11/{agent_id}/{n}",
        "deployer": DEPLOYER,
        "pidns": "4026531836",
        "reserved_at": 1000.0,
        "reserved_boottime": 50.0,
        "token_hash": None,
        "first": n == 1,
    }
    return NewRun(**{**facts, **given})


def confirm(tx: Tx, key: RunKey, **given: Any) -> bool:
    facts: dict[str, Any] = {"runner": RUNNER, "process": AGENT, "started_at": 1001.0, "now": 1001.0}
    return tx.runs.confirm(key, **{**facts, **given})


def end(tx: Tx, key: RunKey, **given: Any) -> bool:
    facts: dict[str, Any] = {
        "outcome": Outcome.COMPLETED,
        "exit": exit_record(),
        "reason": None,
        "result": None,
        "usage": None,
        "survivors": (),
        "now": 1010.0,
    }
    return tx.runs.end(key, **{**facts, **given})


def exit_record(**given: Any) -> ExitRecord:
    facts: dict[str, Any] = {
        "code": 0,
        "signal": None,
        "error": None,
        "stopped": False,
        "started_at": 1001.0,
        "ended_at": 1009.0,
        "max_rss_kb": 2000,
        "cpu_ms": 10,
        "output_bytes": 5,
        "output_cut": 0,
        "stderr_bytes": 0,
        "stderr_cut": 0,
    }
    return ExitRecord(**{**facts, **given})


def with_task(home: Path, **given: Any) -> Registry:
    """Return a registry that holds one open task, `TASK`."""
    opened = registry(home, **given)
    with opened.write("test") as tx:
        tx.tasks.add(task())
    return opened
