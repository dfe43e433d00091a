"""Fleets for tests: real runners and processes, no daemon and no views unless a test is about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headcount import Headcount, bootstrap
from headcount.services.answers import Deployed

SLEEPER = ("/bin/sh", "-c", "exec sleep 600")


def traced(home: Path, on_statement: Callable[[str], None], **settings: Any) -> Headcount:
    """Open a fleet whose SQL statements are shown to `on_statement`."""
    given: dict[str, Any] = {"views": False, "autostart": False, "grace": 2.0, "min_memory_mb": 1, **settings}
    return Headcount.of(bootstrap.context(home, given, on_statement=on_statement))


@contextmanager
def fleet(home: Path, **settings: Any) -> Iterator[Headcount]:
    """Open a fleet; at the end, end every agent of it, and the view server."""
    given: dict[str, Any] = {"views": False, "autostart": False, "grace": 2.0, "min_memory_mb": 1, **settings}
    opened = Headcount(home, **given)
    try:
        yield opened
    finally:
        clear(opened)
        if given["views"]:
            opened.context.views.shut()
        opened.close()


def clear(opened: Headcount) -> None:
    """End everything, by the registry and by what is marked live."""
    opened.validate_and_repair_registry(dry_run=False)
    for agent in opened.list_agents(limit=1000).agents:
        opened.kill_agent(agent.agent_id)
    opened.validate_and_repair_registry(dry_run=False)


def new_task(opened: Headcount, project: Path, **limits: Any) -> str:
    """Create a task over `project` and return its id."""
    return opened.create_task("a piece of work", project=project, **limits).task_id


def sleeper(opened: Headcount, task_id: str, role: str = "builder", **more: Any) -> Deployed:
    """Deploy an agent that only sleeps."""
    return opened.deploy(task_id, role=role, harness="command", command=SLEEPER, **more)


def alive(pid: int | None) -> bool:
    """Say whether a process is there and not a zombie."""
    if pid is None:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def live_runs(home: Path) -> list[str]:
    """Return the names that stand in `live/`."""
    return sorted(os.listdir(home / "live"))
