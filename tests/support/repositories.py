"""Git repositories of a test's own, untouched by the user's settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import headcount.domain.worktrees as rules
from headcount.domain.model import Worktree, WorktreeState

ENV: Mapping[str, str] = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "T",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "T",
    "GIT_COMMITTER_EMAIL": "t@example.org",
    "LC_ALL": "C.UTF-8",
}


def git(where: Path | str, *args: str, check: bool = True) -> str:
    """Run git as a person would, and return what it prints."""
    done = subprocess.run(
        ("git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *args),
        cwd=where,
        env=dict(ENV),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 or not check, (args, done.stderr)
    return done.stdout.removesuffix("\n")


def repository(path: Path, files: Mapping[str, str] | None = None) -> Path:
    """Make a repository with one commit, on the branch main."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet")
    commit(path, files or {"a.txt": "one\n", "src/b.txt": "two\n", ".gitignore": ".env\nbuilt/\n"})
    return path


def commit(path: Path | str, files: Mapping[str, str], message: str = "work") -> str:
    """Write files, commit everything, and return the commit."""
    write(path, files)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message", message)
    return git(path, "rev-parse", "HEAD")


def write(path: Path | str, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        target = Path(path, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def planned(project: Path, where: Path, agent_id: str = "builder-1") -> Worktree:
    """Return a worktree that may be made of a repository's checkout."""
    return Worktree(
        agent_id=agent_id,
        repository=str(project.resolve() / ".git"),
        path=str(where.resolve() / agent_id),
        branch=rules.branch_of(agent_id),
        base=git(project, "rev-parse", "HEAD"),
        state=WorktreeState.MAKING,
        made_at=1000.0,
    )


def branches(project: Path) -> list[str]:
    """Return the branches of agents that a repository has."""
    return git(project, "for-each-ref", "--format=%(refname:short)", "refs/heads/headcount").split()


def worktrees(project: Path) -> list[str]:
    """Return the paths of the worktrees that git knows, but for the main one."""
    lines = git(project, "worktree", "list", "--porcelain").splitlines()
    return [line.removeprefix("worktree ") for line in lines if line.startswith("worktree ")][1:]


def contents(path: Path | str) -> dict[str, str]:
    """Return every file below a directory but for git's own."""
    root = Path(path)
    return {
        str(each.relative_to(root)): each.read_text()
        for each in sorted(root.rglob("*"))
        if each.is_file() and not each.is_symlink() and ".git" not in each.relative_to(root).parts
    }
