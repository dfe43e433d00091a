"""Worktrees: what is seen of one, and whether it may go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

BRANCHES: Final = "headcount/"
"""What the branches of agents' worktrees begin with."""
TRASH_REFS: Final = "refs/headcount/trash/"
"""Where what would be lost with a worktree is kept. No branch, so that nobody works on it by mistake."""
SHOWN: Final = 50
"""Commits, files and dirty paths that are named; all are counted."""


def branch_of(agent_id: str) -> str:
    return BRANCHES + agent_id


def trash_ref(agent_id: str, number: int) -> str:
    return f"{TRASH_REFS}{agent_id}-{number}"


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where a directory stands in a git checkout. Paths are absolute and without symbolic links."""

    repository: str  # the common git directory
    top: str
    inside: str  # the directory below the top, "" for the top itself
    head: str  # the commit


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that an agent made."""

    commit: str
    subject: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that differs from the base, committed or not. None: it is no text."""

    path: str
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was seen of a worktree. Of `commits`, `files` and `dirty` only the first are named."""

    there: bool  # its directory is
    tip: str | None  # the commit that is checked out
    branch: str | None  # that is checked out; None: none is
    branch_tip: str | None  # where the agent's own branch is
    commits: tuple[Commit, ...] = ()  # since the base, the latest first
    commit_count: int = 0
    files: tuple[Changed, ...] = ()
    files_changed: int | None = 0  # None: they could not be compared
    added: int = 0  # lines
    removed: int = 0
    dirty: tuple[str, ...] = ()  # changed or new and not committed, as `git status --short` has them
    dirty_count: int = 0
    only_here: tuple[str, ...] = ()  # commits that no other branch and no tag has
    locked: str | None = None  # why, if somebody has locked it
    unfinished: str | None = None  # a merge, rebase or the like that is under way
    unseen: str | None = None  # what of it cannot be inspected


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a worktree does not go. With `keeps`, a snapshot answers it."""

    code: str
    message: str
    hint: str
    keeps: bool = False


def objections(seen: Inspection, users: Sequence[int] | None) -> Iterator[Objection]:
    """Yield what forbids the removal of a worktree whose agent is over, the gravest first.

    `users` are the processes that work in it, None if that cannot be told.
    """
    if users is None:
        yield Objection(
            "worktree_not_inspectable", "it cannot be told whether a process works in it", "install lsof"
        )
    elif users:
        pids = ", ".join(map(str, users[:5]))
        yield Objection(
            "worktree_in_use", f"processes work in it: {pids}", "end them, or leave its directory"
        )
    if seen.unseen is not None:
        yield Objection("worktree_not_inspectable", seen.unseen, "see to that by hand, then try again")
    if seen.locked is not None:
        why = f": {seen.locked}" if seen.locked else ""
        yield Objection("worktree_locked", f"somebody has locked it{why}", "'git worktree unlock' it")
    if seen.unfinished is not None:
        yield Objection(
            "worktree_unfinished", f"{seen.unfinished} is under way in it", "finish or abort that first"
        )
    if seen.dirty_count:
        yield Objection(
            "worktree_dirty",
            f"{seen.dirty_count} files in it are not committed",
            "commit them, or remove it with --snapshot",
            keeps=True,
        )
    if seen.only_here:
        yield Objection(
            "worktree_unmerged",
            f"no other branch has its commit {seen.only_here[0][:12]}",
            "merge or push its branch, or remove it with --snapshot",
            keeps=True,
        )
