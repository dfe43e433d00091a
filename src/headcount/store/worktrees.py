"""The git worktrees that were made for agents."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from headcount.domain.model import Worktree, WorktreeState
from headcount.store.codec import dump, load_object
from headcount.store.session import Session, Value


class Worktrees:
    """The worktree table inside one transaction. Each change says whether it happened."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, tree: Worktree) -> None:
        """Record a worktree that is to be made, or is found by a rebuild."""
        self._session.change(
            "worktrees.add",
            agent_id=tree.agent_id,
            repository=tree.repository,
            path=tree.path,
            branch=tree.branch,
            base=tree.base,
            state=tree.state.value,
            now=tree.made_at,
        )

    def get(self, agent_id: str) -> Worktree | None:
        row = self._session.one("worktrees.get", agent_id=agent_id)
        return None if row is None else _worktree(row)

    def page(self, *, removed: bool, limit: int, before: int) -> list[Worktree]:
        """Return worktrees, the newest first; with `removed`, those that are gone too."""
        name = "worktrees.page_all" if removed else "worktrees.page"
        return [_worktree(row) for row in self._session.all(name, limit=limit, before=before)]

    def unsettled(self) -> list[Worktree]:
        """Return those that are being made or removed; costs what is unsettled, never history."""
        return [_worktree(row) for row in self._session.all("worktrees.unsettled")]

    def move(self, agent_id: str, *, from_: WorktreeState, to: WorktreeState, now: float) -> bool:
        """Compare-and-set. False: it was in another state, or is not there."""
        values: dict[str, Value] = {"from_": from_.value, "to": to.value, "now": now}
        return self._session.change("worktrees.move", agent_id=agent_id, **values) == 1

    def claim(self, agent_id: str, *, tip: str | None) -> bool:
        """Take a worktree for its removal. False: it is not there, or its agent is live."""
        return self._session.change("worktrees.claim", agent_id=agent_id, tip=tip) == 1

    def number_trash(self, agent_id: str) -> int:
        """Return a number for a ref that no earlier one of this worktree had."""
        return self._session.number("worktrees.number_trash", agent_id=agent_id)

    def set_trash(self, agent_id: str, trash_ref: str | None) -> None:
        """Record where what would be lost is kept; None: it is back."""
        self._session.change("worktrees.set_trash", agent_id=agent_id, trash_ref=trash_ref)

    def set_result(self, agent_id: str, result: Mapping[str, object], *, run: int) -> bool:
        """Record what was seen after a run. False: a later run's is recorded."""
        values: dict[str, Value] = {"result": dump(result), "run": run}
        return self._session.change("worktrees.set_result", agent_id=agent_id, **values) == 1


def _worktree(row: sqlite3.Row) -> Worktree:
    return Worktree(
        agent_id=row["agent_id"],
        repository=row["repository"],
        path=row["path"],
        branch=row["branch"],
        base=row["base"],
        state=WorktreeState(row["state"]),
        made_at=row["made_at"],
        tip=row["tip"],
        trash_ref=row["trash_ref"],
        trashes=row["trashes"],
        result=load_object(row["result"]),
        removed_at=row["removed_at"],
        seq=row["seq"],
    )
