"""The worktree table: what each change guarantees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headcount.domain.model import Isolation, RunKey, TaskState, Worktree, WorktreeState
from headcount.store.registry import Registry, Tx
from tests.support.registries import TASK, confirm, end, new_run, with_task


def tree(agent_id: str, **given: Any) -> Worktree:
    facts: dict[str, Any] = {
        "agent_id": agent_id,
        "repository": "/srv/project/.git",
        "path": f"/srv/home/worktrees/{agent_id}",
        "branch": f"headcount/{agent_id}",
        "base": "0" * 40,
        "state": WorktreeState.MAKING,
        "made_at": 1000.0,
    }
    return Worktree(**{**facts, **given})


@pytest.fixture
def registry(home: Path) -> Registry:
    return with_task(home)


def add(tx: Tx, agent_id: str, **given: Any) -> None:
    tx.runs.add(new_run(agent_id, isolation=Isolation.WORKTREE))
    tx.worktrees.add(tree(agent_id, **given))


def test_an_agent_and_its_worktree_are_read_as_they_were_written(registry: Registry) -> None:
    with registry.write("test") as tx:
        add(tx, "builder-1")
        found, agent = tx.worktrees.get("builder-1"), tx.runs.agent("builder-1")
    assert found == tree("builder-1", seq=1)
    assert agent is not None
    assert agent.isolation is Isolation.WORKTREE


def test_of_two_who_change_a_worktree_one_changes_nothing(registry: Registry) -> None:
    with registry.write("test") as tx:
        add(tx, "builder-1")
        change: dict[str, Any] = {"from_": WorktreeState.MAKING, "to": WorktreeState.THERE, "now": 1.0}
        assert [tx.worktrees.move("builder-1", **change) for _ in range(2)] == [True, False]


def test_a_worktree_is_not_taken_for_removal_while_its_agent_is_live(registry: Registry) -> None:
    with registry.write("test") as tx:
        add(tx, "builder-1", state=WorktreeState.THERE)
        assert not tx.worktrees.claim("builder-1", tip="1" * 40)
        confirm(tx, RunKey("builder-1", 1))
        assert not tx.worktrees.claim("builder-1", tip="1" * 40)
        end(tx, RunKey("builder-1", 1))
        assert [tx.worktrees.claim("builder-1", tip="1" * 40) for _ in range(2)] == [True, False]
        assert [each.agent_id for each in tx.worktrees.unsettled()] == ["builder-1"]


def test_a_page_has_the_newest_first_and_leaves_the_removed_out(registry: Registry) -> None:
    with registry.write("test") as tx:
        for number in range(4):
            add(tx, f"builder-{number}", state=WorktreeState.THERE)
        change: dict[str, Any] = {"from_": WorktreeState.THERE, "to": WorktreeState.REMOVED, "now": 9.0}
        assert tx.worktrees.move("builder-2", **change)
        first = tx.worktrees.page(removed=False, limit=2, before=1 << 62)
        rest = tx.worktrees.page(removed=False, limit=2, before=first[-1].seq)
        everything = tx.worktrees.page(removed=True, limit=9, before=1 << 62)
    assert [each.agent_id for each in (*first, *rest)] == ["builder-3", "builder-1", "builder-0"]
    assert [each.removed_at for each in everything] == [None, 9.0, None, None]


def test_an_earlier_runs_look_does_not_replace_a_later_ones(registry: Registry) -> None:
    with registry.write("test") as tx:
        add(tx, "builder-1")
        assert tx.worktrees.set_result("builder-1", {"run": 2}, run=2)
        assert not tx.worktrees.set_result("builder-1", {"run": 1}, run=1)
        assert tx.worktrees.set_result("builder-1", {"run": 2, "again": True}, run=2)


def test_an_agent_whose_worktree_is_there_is_not_forgotten(registry: Registry) -> None:
    with registry.write("test") as tx:
        add(tx, "builder-1", state=WorktreeState.THERE)
        end(tx, RunKey("builder-1", 1))
        tx.tasks.move(TASK, from_=[TaskState.OPEN], to=TaskState.CLOSED, now=2000.0)
        assert tx.runs.forget([RunKey("builder-1", 1)]) == 1
        assert tx.worktrees.get("builder-1") is not None
        tx.worktrees.move("builder-1", from_=WorktreeState.THERE, to=WorktreeState.REMOVED, now=9.0)
        tx.runs.forget([RunKey("builder-1", 1)])
        assert tx.worktrees.get("builder-1") is None
        assert tx.runs.agent("builder-1") is None
