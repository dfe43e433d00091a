"""What the watchdog has seen and done."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headcount.domain.model import Run, RunKey
from headcount.domain.policy import Act
from headcount.domain.watchdog import Signal
from headcount.store.codec import dump, load
from headcount.store.runs import run_of
from headcount.store.session import Session


@dataclass(frozen=True, slots=True)
class Watched:
    """A run that is looked at, and the layers of what it is held to: its task's and its own."""

    run: Run
    policies: tuple[Mapping[str, Any], Mapping[str, Any]]
    reserved_boottime: float


@dataclass(frozen=True, slots=True)
class Flag:
    """What was seen on a run. `done_at` without a `reason`: what was to be done is done."""

    id: int
    key: RunKey
    task_id: str
    live: bool  # its run is
    kind: Signal
    evidence: Mapping[str, Any]
    raised_at: float
    cleared_at: float | None
    action: Act
    acted_at: float | None
    done_at: float | None
    reason: str | None


class Flags:
    """The flag table inside one transaction. Each change says whether it happened."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def watched(self) -> list[Watched]:
        """Return the runs that are to be looked at, oldest agent first."""
        return [
            Watched(run_of(row), _policies(row), row["reserved_boottime"])
            for row in self._session.all("flags.watched")
        ]

    def policies(self, agent_id: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return what an agent's task and the agent were given."""
        row = self._session.one("flags.policies", agent_id=agent_id)
        return ({}, {}) if row is None else _policies(row)

    def put(
        self, key: RunKey, kind: Signal, *, evidence: Mapping[str, Any], action: Act, now: float
    ) -> int | None:
        """Raise a flag and return its number; None: it is raised already."""
        row = self._session.one(
            "flags.raise",
            agent_id=key.agent_id,
            run=key.n,
            kind=kind.value,
            evidence=dump(evidence),
            action=action.value,
            now=now,
        )
        return None if row is None else int(row["id"])

    def clear(self, number: int, *, now: float) -> bool:
        return self._session.change("flags.clear", id=number, now=now) == 1

    def open(self, agent_id: str | None = None) -> list[Flag]:
        """Return the open flags, the oldest first: of an agent, or of all."""
        return [_flag(row) for row in self._session.all("flags.open", agent_id=agent_id)]

    def of_agent(self, agent_id: str, *, limit: int) -> list[Flag]:
        """Return the flags of an agent, the latest first."""
        return [_flag(row) for row in self._session.all("flags.of_agent", agent_id=agent_id, limit=limit)]

    def act(self, number: int, *, now: float) -> bool:
        """Record that a flag is acted on. False: somebody else does, or it is no longer true."""
        return self._session.change("flags.act", id=number, now=now) == 1

    def finish(self, number: int, *, now: float, reason: str | None = None) -> bool:
        """Record that an act is through, or with a reason that it is left undone."""
        return self._session.change("flags.finish", id=number, now=now, reason=reason) == 1

    def owed(self) -> list[Flag]:
        """Return the restarts that were begun and are not through, the oldest first."""
        return [_flag(row) for row in self._session.all("flags.owed")]

    def restarted(self, agent_id: str, *, since: float) -> Sequence[float]:
        """Return when an agent was restarted since a moment."""
        rows = self._session.all("flags.restarted", agent_id=agent_id, since=since)
        return [row["done_at"] for row in rows]

    def forgo(self, agent_id: str | None, *, reason: str, now: float) -> int:
        """Record that the restarts owed to an agent (None: to all) are not made; return how many."""
        return self._session.change("flags.forgo", agent_id=agent_id, reason=reason, now=now)


def _policies(row: sqlite3.Row) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return load(row["task_policy"]), load(row["agent_policy"])


def _flag(row: sqlite3.Row) -> Flag:
    return Flag(
        id=row["id"],
        key=RunKey(row["agent_id"], row["run"]),
        task_id=row["task_id"],
        live=bool(row["live"]),
        kind=Signal(row["kind"]),
        evidence=load(row["evidence"]),
        raised_at=row["raised_at"],
        cleared_at=row["cleared_at"],
        action=Act(row["action"]),
        acted_at=row["acted_at"],
        done_at=row["done_at"],
        reason=row["reason"],
    )
