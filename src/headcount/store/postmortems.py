"""What is kept of runs that are over, and what the registry knows for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from headcount.domain.model import ExitRecord, Run, RunKey
from headcount.store.codec import dump, load
from headcount.store.session import Session, Value


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the registry knows of a run that is over, beyond its row. Numbers are those at its end."""

    stop_by: str | None
    stop_asked_at: float | None
    exit: ExitRecord | None
    task_policy: Mapping[str, Any]
    agent_policy: Mapping[str, Any]
    project: str
    max_live: int
    max_agents: int
    max_depth: int
    live: int  # runs of the task
    agents: int  # that the task had had
    live_machine: int
    flags: tuple[Mapping[str, Any], ...]


class PostMortems:
    """The table of post-mortems inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, key: RunKey) -> Mapping[str, Any] | None:
        """Return what is kept of a run, None if nothing is yet."""
        row = self._session.one("postmortems.get", agent_id=key.agent_id, run=key.n)
        return None if row is None else {**load(row["facts"]), "made_at": row["made_at"]}

    def add(self, key: RunKey, facts: Mapping[str, object], *, now: float) -> bool:
        """Keep it. False: one is kept already, or the run is not over."""
        values: dict[str, Value] = {"agent_id": key.agent_id, "run": key.n}
        added = self._session.change("postmortems.add", facts=dump(facts), now=now, **values)
        self._session.change("postmortems.examined", **values)
        return added == 1

    def due(self, *, since: float, without: float, limit: int) -> list[RunKey]:
        """Return runs that ended after `since` and whose post-mortem is to be made, the latest first: those
        that have their account, and those that ended before `without`."""
        rows = self._session.all("postmortems.due", since=since, without=without, limit=limit)
        return [RunKey(row["agent_id"], row["n"]) for row in rows]

    def waiting(self, *, since: float) -> bool:
        """Say whether a run that ended after `since` has none yet."""
        return self._session.number("postmortems.waiting", since=since) == 1

    def circumstances(self, run: Run) -> Circumstances:
        """Return what else is known of a run that is over."""
        key: dict[str, Value] = {"agent_id": run.key.agent_id, "run": run.key.n}
        at = run.ended_at
        (row,) = self._session.all("postmortems.circumstances", **key)
        return Circumstances(
            stop_by=row["stop_by"],
            stop_asked_at=row["stop_asked_at"],
            exit=None if row["exit"] is None else _exit(load(row["exit"])),
            task_policy=load(row["task_policy"]),
            agent_policy=load(row["agent_policy"]),
            project=row["project"],
            max_live=row["max_live"],
            max_agents=row["max_agents"],
            max_depth=row["max_depth"],
            live=self._session.number("postmortems.live_at_of_task", task_id=run.task_id, at=at),
            agents=self._session.number("postmortems.agents_at_of_task", task_id=run.task_id, at=at),
            live_machine=self._session.number("postmortems.live_at", at=at),
            flags=tuple(
                {**dict(each), "evidence": load(each["evidence"])}
                for each in self._session.all("postmortems.flags", **key)
            ),
        )


_EXIT: Final = {each.name for each in fields(ExitRecord)}


def _exit(found: Mapping[str, Any]) -> ExitRecord:
    """Return an exit record as it was stored, by an older Headcount too."""
    known = {name: value for name, value in found.items() if name in _EXIT}
    return ExitRecord(**{**known, "survivors": tuple(known.get("survivors", ()))})
