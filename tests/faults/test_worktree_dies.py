"""SIGKILL whoever makes, removes or brings back a worktree, at every statement, start and file change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.services.answers import WorktreeFacts
from tests.support.dying import Dying, dying
from tests.support.fleets import alive, fleet, new_task
from tests.support.repositories import branches, contents, git, repository, worktrees
from tests.support.waiting import until

DEPLOY = """
fleet.deploy(given[0], role="builder", harness="command", command=["/bin/sh", "-c", "exec sleep 600"],
             isolation="worktree", allow_duplicate_role=True, allow_same_work=True)
"""
REMOVE = "fleet.remove_worktree(given[0], snapshot=True)"
UNDO = "fleet.undo_worktree(given[0])"
PARTS = 4
EVERY = 5
"""Of a removal and an undo every fifth boundary: each has hundreds."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return repository(tmp_path / "p")


@pytest.fixture
def who(home: Path) -> Iterator[Dying]:
    with dying(home) as found:
        yield found


def settled(opened: Headcount) -> None:
    """Take headcounts until all is settled: a git that outlived its maker is waited for."""

    def is_settled() -> bool:
        opened.validate_and_repair_registry(dry_run=False)
        waiting = any(agent.state == "reserved" for agent in opened.list_agents().agents)
        at_work = any(tree.state in {"making", "removing"} for tree in opened.list_worktrees().worktrees)
        return opened.registry_health_check().healthy and not waiting and not at_work

    until(is_settled, what="a settled registry")


def agree(opened: Headcount, project: Path) -> list[WorktreeFacts]:
    """Check that what is on record is what git and the disk have; return what is there."""
    trees = list(opened.list_worktrees().worktrees)
    assert {each.state for each in trees} <= {"there"}
    assert sorted(each.path for each in trees) == sorted(worktrees(project))
    assert sorted(each.branch for each in trees) == sorted(branches(project))
    found = {str(path) for path in opened.context.home.worktrees.glob("*") if path.suffix != ".lock"}
    assert found == {each.path for each in trees}  # the lock of somebody who died is free, and empty
    for each in trees:
        assert git(each.path, "rev-parse", "HEAD")
    assert {path.name for path in (project / ".git").rglob("*.lock")} <= {"headcount.lock"}
    return trees


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_deployer_that_died_leaves_a_worktree_with_an_agent_or_none(
    part: int, home: Path, project: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        task = opened.create_task(
            "t", project=project, setup=["/bin/sh", "-c", "echo > made; sleep 0.05"]
        ).task_id
        total = who.boundaries(DEPLOY, task)
        assert total > 60
        for at in range(part, total, PARTS):
            if not who.died(at, DEPLOY, task):  # a later deploy finds more in place: it has fewer boundaries
                break
            settled(opened)
            live = {each.agent_id for each in opened.list_agents().agents}
            assert {each.agent_id for each in agree(opened, project)} == live, at
            for agent in opened.list_agents().agents:
                assert alive(agent.pid), at
                opened.kill_agent(agent.agent_id)
                opened.remove_worktree(agent.agent_id, snapshot=True)


def with_work(opened: Headcount, project: Path) -> tuple[str, str]:
    """Return an agent that is over, with a commit, something staged and a new file, and its directory."""
    script = (
        "echo more >> a.txt; git -c user.name=A -c user.email=a@example.org commit -qam more;"
        "echo staged > a.txt; git add a.txt; echo new > new.txt"
    )
    made = opened.deploy(
        new_task(opened, project),
        role="b",
        harness="command",
        command=["sh", "-c", script],
        isolation="worktree",
    )
    opened.wait_for_agents([made.agent_id])
    return made.agent_id, opened.get_agent(made.agent_id).cwd


def all_of_it(path: str) -> tuple[dict[str, str], str, str]:
    return contents(path), git(path, "status", "--porcelain"), git(path, "rev-parse", "--abbrev-ref", "HEAD")


def each_boundary(
    who: Dying, part: int, code: str, agent: str, total: int, check: Callable[[int], None]
) -> None:
    for at in range(part * EVERY, total, PARTS * EVERY):
        if not who.died(at, code, agent):
            break
        check(at)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_with_who_removes_a_worktree(
    part: int, home: Path, project: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        agent, path = with_work(opened, project)
        before = all_of_it(path)
        total = who.boundaries(REMOVE, agent)
        opened.undo_worktree(agent)

        def check(at: int) -> None:
            settled(opened)
            if not agree(opened, project):
                assert not os.path.lexists(path), at
                opened.undo_worktree(agent)
            assert all_of_it(path) == before, at

        each_boundary(who, part, REMOVE, agent, total, check)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_with_who_brings_a_worktree_back(
    part: int, home: Path, project: Path, who: Dying
) -> None:
    with fleet(home) as opened:
        agent, path = with_work(opened, project)
        before = all_of_it(path)
        opened.remove_worktree(agent, snapshot=True)
        total = who.boundaries(UNDO, agent)
        opened.remove_worktree(agent, snapshot=True)

        def check(at: int) -> None:
            settled(opened)
            if not agree(opened, project):
                opened.undo_worktree(agent)
            assert all_of_it(path) == before, at
            opened.remove_worktree(agent, snapshot=True)

        each_boundary(who, part, UNDO, agent, total, check)
