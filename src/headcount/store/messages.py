"""What agents were told after their deploy."""

from __future__ import annotations

import sqlite3
from typing import Final

from headcount.domain.model import AgentMessage, MessageState, RunKey, Way
from headcount.store.session import Session

QUEUED_MOST: Final = 100
"""Messages that are handed over at once; the others with the next occasion."""


class Messages:
    """The message table inside one transaction. Each change says whether it happened."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self, task_id: str, agent_id: str, *, sender: str | None, text: str, way: Way | None, now: float
    ) -> int:
        """Record a message and return its number."""
        values = {"sender": sender, "text": text, "way": way.value if way else None, "now": now}
        return self._session.number("messages.add", task_id=task_id, agent_id=agent_id, **values)

    def get(self, number: int) -> AgentMessage | None:
        row = self._session.one("messages.get", id=number)
        return None if row is None else _message(row)

    def queued(self, agent_id: str, limit: int = QUEUED_MOST) -> list[AgentMessage]:
        """Return what waits for an agent, the earliest first."""
        return [_message(row) for row in self._session.all("messages.queued", agent_id=agent_id, limit=limit)]

    def waiting(self) -> list[str]:
        """Return the agents for which something waits that somebody has to bring them."""
        return [row["agent_id"] for row in self._session.all("messages.waiting")]

    def of_agent(self, agent_id: str, *, limit: int, before: int) -> list[AgentMessage]:
        """Return the messages for an agent, the latest first."""
        values = {"limit": limit, "before": before}
        return [_message(row) for row in self._session.all("messages.of_agent", agent_id=agent_id, **values)]

    def route(self, number: int, way: Way | None, *, run: int | None) -> bool:
        """Say how a waiting message is to go, and to which run."""
        values = {"way": way.value if way else None, "run": run}
        return self._session.change("messages.route", id=number, **values) == 1

    def deliver(self, number: int, way: Way, *, run: int, now: float) -> bool:
        """Record that a message has reached its agent. False: it is not waiting any more."""
        values = {"way": way.value, "run": run, "now": now}
        return self._session.change("messages.deliver", id=number, **values) == 1

    def begun(self, key: RunKey, *, now: float) -> list[int]:
        """Record as delivered what was in the prompt of a run that is known to run; return the numbers."""
        rows = self._session.all("messages.begun", agent_id=key.agent_id, run=key.n, now=now)
        return [row["id"] for row in rows]

    def release(self, key: RunKey, *, stopped: bool) -> None:
        """Let what was in the prompt of a run that never began wait for another one."""
        self._session.change("messages.release", agent_id=key.agent_id, run=key.n, stopped=int(stopped))

    def fail(self, number: int, reason: str) -> bool:
        """Record that a message will not reach its agent. False: it is not waiting any more."""
        return self._session.change("messages.fail", id=number, reason=reason) == 1


def _message(row: sqlite3.Row) -> AgentMessage:
    return AgentMessage(
        id=row["id"],
        task_id=row["task_id"],
        agent_id=row["agent_id"],
        sender=row["sender"],
        text=row["text"],
        state=MessageState(row["state"]),
        way=None if row["way"] is None else Way(row["way"]),
        run=row["run"],
        reason=row["reason"],
        at=row["at"],
        delivered_at=row["delivered_at"],
    )
