"""A long history: many ended runs, written in seconds."""

from __future__ import annotations

from contextlib import closing
from sqlite3 import Connection

from headcount import Headcount
from headcount.domain.model import RunKey
from headcount.store.connection import connect
from tests.support.registries import end, new_run, task


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
