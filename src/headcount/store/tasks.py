"""Tasks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from headcount.domain.model import Isolation, Message, Task, TaskContext, TaskState
from headcount.store.codec import dump, load, load_object
from headcount.store.session import Session


class Tasks:
    """The task table inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, task: Task) -> None:
        """Insert a task whose id is new."""
        self._session.change(
            "tasks.add",
            task_id=task.task_id,
            description=task.description,
            priority=task.priority,
            project=task.project,
            state=task.state.value,
            context=dump(asdict(task.context)),
            max_live=task.max_live,
            max_agents=task.max_agents,
            max_depth=task.max_depth,
            spawn_rules=None if task.spawn_rules is None else dump(task.spawn_rules),
            created_at=task.created_at,
            closed_at=task.closed_at,
            isolation=task.isolation.value,
            setup=dump(task.setup),
            policy=dump(task.policy),
        )

    def get(self, task_id: str) -> Task | None:
        row = self._session.one("tasks.get", task_id=task_id)
        return None if row is None else _task(row)

    def page(self, state: TaskState | None = None, *, limit: int, before: str | None = None) -> list[Task]:
        """Return tasks, newest first; without a state, all but archived ones.

        `before` is the id of the last one of the page before.
        """
        if state is None:
            rows = self._session.all("tasks.page", before=before, limit=limit)
        else:
            rows = self._session.all("tasks.page_of_state", state=state.value, before=before, limit=limit)
        return [_task(row) for row in rows]

    def move(self, task_id: str, *, from_: Sequence[TaskState], to: TaskState, now: float) -> bool:
        """Compare-and-set; False if the task is in none of the states `from_`, or not there."""
        padded = [*(state.value for state in from_), *[None] * len(TaskState)][: len(TaskState)]
        sources = {f"from_{number}": value for number, value in enumerate(padded, start=1)}
        return self._session.change("tasks.move", task_id=task_id, to=to.value, now=now, **sources) == 1


def _task(row: sqlite3.Row) -> Task:
    rules = row["spawn_rules"]
    return Task(
        task_id=row["task_id"],
        description=row["description"],
        priority=row["priority"],
        project=row["project"],
        state=TaskState(row["state"]),
        context=_context(row["context"]),
        max_live=row["max_live"],
        max_agents=row["max_agents"],
        max_depth=row["max_depth"],
        spawn_rules=None
        if rules is None
        else {role: tuple(allowed) for role, allowed in load(rules).items()},
        created_at=row["created_at"],
        closed_at=row["closed_at"],
        isolation=Isolation(row["isolation"]),
        setup=tuple(load(row["setup"])),
        policy=load_object(row["policy"]) or {},
    )


def _context(text: str) -> TaskContext:
    found = load(text)
    conversation = tuple(Message(**message) for message in found.pop("conversation"))
    return TaskContext(
        background=found.pop("background"),
        conversation=conversation,
        **{name: tuple(lines) for name, lines in found.items()},
    )
