"""Scratch homes to measure in: fleets, daemons and a long history, all gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from headcount import Headcount
from headcount.domain.model import RunKey
from headcount.services.answers import Deployed
from headcount.store.connection import connect
from tests.support import daemons, leftovers
from tests.support.fleets import alive
from tests.support.registries import end, new_run, task

SLEEP = ("/bin/sleep", "600")
MANY = 100_000
LIMITS = {"machine_max_live": 3000, "task_max_live": 3000, "task_max_agents": 1_000_000, "min_memory_mb": 1}
ROOT = os.environ.get("HEADCOUNT_BENCH_ROOT", "/tmp")  # short: socket paths are
_OURS = ("HEADCOUNT_", "TMUX", "PYTHONDONTWRITEBYTECODE")


@contextmanager
def ground() -> Iterator[Path]:
    """Yield an empty directory with a short path; end every process that names it, and remove it."""
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        del os.environ[name]
    place = Path(tempfile.mkdtemp(prefix="hcb-", dir=ROOT))
    (place / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(place / "run")
    os.environ["PYTHONPYCACHEPREFIX"] = f"{place}/bytecode"  # an installed package has its bytecode
    try:
        yield place
    finally:
        leftovers.end_all(place)
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def fleet(home: Path, *, views: bool = False, **settings: Any) -> Iterator[Headcount]:
    """Open a fleet; at the end, end every agent and the view server."""
    opened = Headcount(home, views=views, autostart=False, **{**LIMITS, **settings})
    try:
        yield opened
    finally:
        opened.context.views.shut()
        _sweep(opened)
        opened.close()


def _sweep(opened: Headcount) -> None:
    """Kill a thousand runs in a second or two: their agents end with them, nobody asks for their rows."""
    left = opened.context.placement.look()
    for seen in left:
        if seen.runner_pid:
            os.kill(seen.runner_pid, signal.SIGKILL)
    for seen in left:
        until(lambda seen=seen: not (seen.start and alive(seen.start.process.pid)))  # type: ignore[misc]
        opened.context.placement.unmark(seen.key)  # its cgroup goes with it


@contextmanager
def daemon(home: Path, *, views: bool = True) -> Iterator[int]:
    """Run a daemon as in daily use; yield its pid."""
    more = {f"HEADCOUNT_{name.upper()}": str(value) for name, value in LIMITS.items()}
    with daemons.daemon(
        home, HEADCOUNT_VIEWS=str(int(views)), HEADCOUNT_HEADCOUNT_EVERY="15", **more
    ) as process:
        yield process.pid


class Deployer:
    """Deploys into one task and ends what it deployed, outside of what is timed."""

    def __init__(self, opened: Headcount, project: Path) -> None:
        self.fleet = opened
        self.task = opened.create_task("a piece of work", project=project).task_id
        self._live: list[Deployed] = []

    def deploy(self, *command: str) -> Deployed:
        made = self.fleet.deploy(
            self.task, role="builder", harness="command", command=command or SLEEP, allow_duplicate_role=True
        )
        self._live.append(made)
        return made

    def clear(self) -> None:
        """End what was deployed since the last time, and wait until nothing of it runs."""
        for each in self._live:
            self.fleet.kill_agent(each.agent_id)
            until(lambda each=each: not alive(each.runner_pid))  # type: ignore[misc]
        self._live.clear()


def until(condition: Callable[[], object], patience: float = 60.0, pause: float = 0.005) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what is measured did not happen")
        time.sleep(pause)


def fill(opened: Headcount, number: int) -> None:
    """Write the history of `number` ended runs, of other tasks with a hundred agents each.

    One is written as the services would, the others are copies of its rows, made inside SQLite.
    """
    model, of_model = "old-0000000000000000", "task-history"
    with opened.context.registry.write("history") as tx:
        tx.tasks.add(task(of_model))
        tx.runs.add(new_run(model, task_id=of_model, token_hash="none"))
        end(tx, RunKey(model, 1))
        for kind in ("run_reserved", "run_started", "run_ended"):
            tx.events.add(kind, now=1.0, task_id=of_model, agent_id=model, run=1)
    with closing(connect(opened.context.home.registry, mode="rw", wait=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table in ("task", "agent", "run", "event"):
            connection.execute(_copies(connection, table, number), [of_model])
        connection.execute("COMMIT")
    opened.context.registry.checkpoint()


_CHANGED = {
    "task_id": "printf('task-history%06d', i / 100)",
    "agent_id": "printf('old-%016d', i)",
    "token_hash": "'history' || i",
    "ended_at": "ended_at + i / 1000.0",
}


def _copies(connection: Connection, table: str, number: int) -> str:
    """Return the statement that multiplies the rows of a task; SQLite numbers them itself."""
    columns = [
        row["name"] for row in connection.execute(f"PRAGMA table_info({table})") if row["name"] != "seq"
    ]
    values = ", ".join(_CHANGED.get(column, column) for column in columns)
    chosen = "WHERE i % 100 = 0 OR i = 1" if table == "task" else ""
    return f"""
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number - 1})
        INSERT OR IGNORE INTO {table} ({", ".join(columns)})
        SELECT {values} FROM n JOIN (SELECT * FROM {table} WHERE task_id = ?) {chosen} ORDER BY i
    """
