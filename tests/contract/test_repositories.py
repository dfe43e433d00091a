"""Worktrees in real repositories: made, looked at, kept, taken away, made again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from headcount.domain.errors import HeadcountError, InvalidInput, WorktreeFailed
from headcount.domain.model import Worktree
from headcount.domain.worktrees import trash_ref
from headcount.runtimes.worktrees import GitRepositories
from tests.support.repositories import (
    ENV,
    branches,
    commit,
    contents,
    git,
    planned,
    repository,
    worktrees,
    write,
)

REF = trash_ref("builder-1", 1)


@pytest.fixture
def repositories() -> GitRepositories:
    return GitRepositories({**ENV, "GIT_DIR": "/nonsense", "GIT_INDEX_FILE": "/nonsense"})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return repository(tmp_path / "a project")


@pytest.fixture
def tree(repositories: GitRepositories, project: Path, tmp_path: Path) -> Worktree:
    """A worktree that has been made."""
    made = planned(project, tmp_path / "worktrees ü")
    with repositories.holding(made.path, wait=0) as hold:
        repositories.make(made, hold)
    return made


def discard(repositories: GitRepositories, tree: Worktree, to: Path, *, tip: str | None) -> None:
    with repositories.holding(tree.path, wait=0) as hold:
        repositories.discard(tree, to=str(to), tip=tip, hold=hold)


def snapshot(repositories: GitRepositories, tree: Worktree) -> str:
    with repositories.holding(tree.path, wait=0) as hold:
        return repositories.snapshot(tree, REF, hold)


# where


def test_a_directory_is_found_in_its_checkout(repositories: GitRepositories, project: Path) -> None:
    found = repositories.checkout(str(project / "src"))
    assert (found.repository, found.top, found.inside) == (str(project / ".git"), str(project), "src")
    assert found.head == git(project, "rev-parse", "HEAD")


def test_a_worktree_is_a_checkout_too(repositories: GitRepositories, project: Path, tree: Worktree) -> None:
    there = commit(tree.path, {"c.txt": "three\n"})
    found = repositories.checkout(f"{tree.path}/src")
    assert (found.repository, found.top, found.inside) == (str(project / ".git"), tree.path, "src")
    assert found.head == there


def plain(path: Path) -> Path:
    path.mkdir()
    return path


def bare(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "--quiet", "--bare")
    return path


def empty(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "--quiet")
    return path


def with_submodule(path: Path) -> Path:
    inner = repository(path.parent / "inner")
    outer = repository(path)
    git(outer, "submodule", "--quiet", "add", str(inner), "inner")
    git(outer, "commit", "--quiet", "--message", "with a submodule")
    return outer


def git_directory(path: Path) -> Path:
    return repository(path) / ".git"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (plain, "not_a_repository"),
        (git_directory, "not_a_repository"),
        (bare, "bare_repository"),
        (empty, "no_commit"),
        (with_submodule, "has_submodules"),
    ],
)
def test_a_place_without_worktrees_is_refused_with_the_reason(
    repositories: GitRepositories, make: object, code: str, tmp_path: Path
) -> None:
    assert callable(make)
    with pytest.raises(InvalidInput) as refused:
        repositories.checkout(str(make(tmp_path / "place")))
    assert refused.value.code == code
    assert refused.value.hint


def test_without_git_it_is_said(project: Path) -> None:
    with pytest.raises(WorktreeFailed) as failed:
        GitRepositories({"PATH": "/nonexistent"}).checkout(str(project))
    assert failed.value.code == "no_git"


# making


def test_a_worktree_has_the_files_of_its_base_and_its_own_branch(project: Path, tree: Worktree) -> None:
    assert contents(tree.path) == contents(project)
    assert git(tree.path, "symbolic-ref", "--short", "HEAD") == tree.branch
    assert git(tree.path, "status", "--porcelain") == ""
    assert worktrees(project) == [tree.path]


def test_no_hook_of_the_user_runs(repositories: GitRepositories, project: Path, tmp_path: Path) -> None:
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        hook = project / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\necho {name} >> '{tmp_path}/ran'\n")
        hook.chmod(0o755)
    tree = planned(project, tmp_path / "w")
    with repositories.holding(tree.path, wait=0) as hold:
        repositories.make(tree, hold)
        repositories.snapshot(tree, REF, hold)
        repositories.discard(tree, to=str(tmp_path / "trash"), tip=tree.base, hold=hold)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("taken", ["headcount/builder-1", "headcount"])
def test_a_branch_that_is_taken_is_said_and_left_alone(
    repositories: GitRepositories, project: Path, tmp_path: Path, taken: str
) -> None:
    git(project, "branch", taken)
    tree = planned(project, tmp_path / "w")
    with pytest.raises(WorktreeFailed, match=r"headcount"), repositories.holding(tree.path, wait=0) as hold:
        repositories.make(tree, hold)
    assert git(project, "rev-parse", taken) == tree.base
    assert not os.path.lexists(tree.path)
    assert worktrees(project) == []


def test_a_hold_is_for_one(repositories: GitRepositories, tree: Worktree) -> None:
    with (
        repositories.holding(tree.path, wait=0),
        pytest.raises(WorktreeFailed) as failed,
        repositories.holding(tree.path, wait=0),
    ):
        pass
    assert failed.value.code == "worktree_busy"
    assert not Path(f"{tree.path}.lock").exists()


# copied files


def test_a_file_that_is_not_in_git_is_copied_with_its_mode(
    repositories: GitRepositories, project: Path, tree: Worktree
) -> None:
    write(project, {".env": "KEY=1\n", "conf/local.json": "{}\n"})
    (project / ".env").chmod(0o600)
    write(tree.path, {"a.txt": "the agent's\n"})
    repositories.copy(tree, str(project), [".env", "conf/local.json", "absent", "a.txt"])
    assert Path(tree.path, ".env").read_text() == "KEY=1\n"
    assert Path(tree.path, ".env").stat().st_mode & 0o777 == 0o600
    assert Path(tree.path, "conf/local.json").exists()
    assert Path(tree.path, "a.txt").read_text() == "the agent's\n"


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "out/secret", ".git/config", "src"])
def test_nothing_from_outside_of_the_project_is_copied(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path, name: str
) -> None:
    write(tmp_path, {"secret": "secret\n"})
    (project / "link").symlink_to(tmp_path / "secret")
    (project / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidInput, match="worktree_copy"):
        repositories.copy(tree, str(project), [name])
    assert "secret" not in "".join(contents(tree.path).values())


def test_nothing_is_copied_to_outside_of_the_worktree(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path
) -> None:
    write(project, {"out/secret": "secret\n"})
    (tmp_path / "elsewhere").mkdir()
    Path(tree.path, "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput):
        repositories.copy(tree, str(project), ["out/secret"])
    assert list((tmp_path / "elsewhere").iterdir()) == []


# the set-up command


def set_up(repositories: GitRepositories, tree: Worktree, *argv: str, **given: object) -> None:
    asked: dict[str, object] = {"timeout": 20.0, "goes_on": lambda: True, **given}
    repositories.set_up(argv, cwd=tree.path, env=ENV, **asked)  # type: ignore[arg-type]  # as they are


def test_a_set_up_command_works_in_the_worktree(repositories: GitRepositories, tree: Worktree) -> None:
    set_up(repositories, tree, "sh", "-c", "echo made > made; pwd > at")
    assert Path(tree.path, "at").read_text().strip() == tree.path


@pytest.mark.parametrize(
    ("argv", "given", "said"),
    [
        (("sh", "-c", "echo it is broken >&2; exit 3"), {}, r"exit code 3\nit is broken"),
        (("sh", "-c", "kill -9 $$"), {}, "signal 9"),
        (("sleep", "60"), {"timeout": 0.3}, "did not end in 0.3 s"),
        (("sleep", "60"), {"goes_on": lambda: False}, "was stopped meanwhile"),
        (("no-such-program",), {}, "No such file"),
        (("sh", "-c", "yes flood | head -c 5000000; echo the end; exit 1"), {}, "the end"),
    ],
)
def test_a_set_up_command_that_fails_says_how(
    repositories: GitRepositories, tree: Worktree, argv: tuple[str, ...], given: dict[str, object], said: str
) -> None:
    with pytest.raises(WorktreeFailed, match=said) as failed:
        set_up(repositories, tree, *argv, **given)
    assert failed.value.code == "setup_failed"
    assert len(failed.value.message) < 3_000


# looking


def test_a_new_worktree_has_nothing_of_its_own(repositories: GitRepositories, tree: Worktree) -> None:
    seen = repositories.inspect(tree)
    assert (seen.there, seen.tip, seen.branch, seen.branch_tip) == (True, tree.base, tree.branch, tree.base)
    assert (seen.commit_count, seen.files_changed, seen.dirty_count, seen.only_here) == (0, 0, 0, ())
    assert (seen.locked, seen.unfinished, seen.unseen) == (None, None, None)


def test_what_an_agent_did_is_seen(repositories: GitRepositories, tree: Worktree) -> None:
    made = commit(tree.path, {"a.txt": "one\nmore\n"}, "the first")
    write(tree.path, {"new ü.txt": "x\n", "src/b.txt": "changed\n", ".env": "ignored\n"})
    git(tree.path, "add", "src/b.txt")
    seen = repositories.inspect(tree)
    assert [(each.commit, each.subject) for each in seen.commits] == [(made, "the first")]
    assert {(each.path, each.added, each.removed) for each in seen.files} == {
        ("a.txt", 1, 0),
        ("new ü.txt", 1, 0),
        ("src/b.txt", 1, 1),
    }
    assert (seen.files_changed, seen.added, seen.removed) == (3, 3, 1)
    assert set(seen.dirty) == {"M  src/b.txt", "?? new ü.txt"}
    assert seen.only_here == (made,)
    assert git(tree.path, "status", "--porcelain") == 'M  src/b.txt\n?? "new \\303\\274.txt"'  # as it was


@pytest.mark.parametrize("by", ["merge", "push", "tag", "another branch"])
def test_a_commit_that_stands_elsewhere_is_not_only_here(
    repositories: GitRepositories, project: Path, tree: Worktree, by: str, tmp_path: Path
) -> None:
    commit(tree.path, {"a.txt": "more\n"})
    if by == "merge":
        git(project, "merge", "--quiet", "--no-ff", "--message", "merged", tree.branch)
    elif by == "push":
        bare(tmp_path / "remote")
        git(project, "remote", "add", "origin", str(tmp_path / "remote"))
        git(tree.path, "push", "--quiet", "origin", tree.branch)
    elif by == "tag":
        git(tree.path, "tag", "v1")
    else:
        git(tree.path, "branch", "other")
    assert repositories.inspect(tree).only_here == ()


def test_trash_does_not_count_as_elsewhere(repositories: GitRepositories, tree: Worktree) -> None:
    made = commit(tree.path, {"a.txt": "more\n"})
    snapshot(repositories, tree)
    assert repositories.inspect(tree).only_here == (made,)


def test_a_detached_head_and_the_branch_are_both_seen(repositories: GitRepositories, tree: Worktree) -> None:
    first = commit(tree.path, {"a.txt": "first\n"})
    git(tree.path, "checkout", "--quiet", "--detach", tree.base)
    second = commit(tree.path, {"a.txt": "second\n"})
    seen = repositories.inspect(tree)
    assert (seen.tip, seen.branch, seen.branch_tip) == (second, None, first)
    assert set(seen.only_here) == {first, second}


def merging(tree: Worktree) -> None:
    git(tree.path, "checkout", "--quiet", "-b", "side")
    commit(tree.path, {"a.txt": "side\n"})
    git(tree.path, "checkout", "--quiet", tree.branch)
    commit(tree.path, {"a.txt": "here\n"})
    git(tree.path, "merge", "side", check=False)


def test_a_merge_that_is_under_way_is_seen(repositories: GitRepositories, tree: Worktree) -> None:
    merging(tree)
    assert repositories.inspect(tree).unfinished == "a merge"


def test_a_lock_of_somebody_is_seen(repositories: GitRepositories, project: Path, tree: Worktree) -> None:
    git(project, "worktree", "lock", "--reason", "mine", tree.path)
    assert repositories.inspect(tree).locked == "mine"


def hidden(tree: Worktree) -> None:
    git(tree.path, "update-index", "--assume-unchanged", "a.txt")
    write(tree.path, {"a.txt": "unseen\n"})


def replaced(tree: Worktree) -> None:
    Path(tree.path, ".git").unlink()
    git(tree.path, "init", "--quiet")


def orphaned(tree: Worktree) -> None:
    git(tree.path, "checkout", "--quiet", "--orphan", "fresh")


@pytest.mark.parametrize("change", [hidden, replaced, orphaned])
def test_what_cannot_be_inspected_is_said(
    repositories: GitRepositories, tree: Worktree, change: object
) -> None:
    assert callable(change)
    change(tree)
    assert repositories.inspect(tree).unseen


def test_a_worktree_whose_git_file_is_gone_is_not_taken_for_what_is_above(
    repositories: GitRepositories, project: Path, tmp_path: Path
) -> None:
    tree = planned(project, repository(tmp_path / "above") / "worktrees")
    with repositories.holding(tree.path, wait=0) as hold:
        repositories.make(tree, hold)
    commit(tree.path, {"a.txt": "more\n"})
    Path(tree.path, ".git").unlink()
    seen = repositories.inspect(tree)
    assert seen.unseen
    assert seen.tip != git(tmp_path / "above", "rev-parse", "HEAD")


@contextmanager
def working_in(path: str) -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"], cwd=path) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_process_that_works_in_a_worktree_is_found(repositories: GitRepositories, tree: Worktree) -> None:
    assert repositories.users(tree.path) == ()
    with working_in(f"{tree.path}/src") as pid:
        assert repositories.users(tree.path) == (pid,)
    with working_in(str(Path(tree.path).parent)):
        assert repositories.users(tree.path) == ()


def test_a_diff_has_everything_that_differs(repositories: GitRepositories, tree: Worktree) -> None:
    commit(tree.path, {"a.txt": "committed\n"})
    write(tree.path, {"src/b.txt": "not committed\n", "new.txt": "new\n"})
    text, whole = repositories.diff(tree, 100_000)
    assert whole
    assert {"+committed", "+not committed", "+new"} <= set(text.decode().splitlines())
    assert git(tree.path, "status", "--porcelain") == " M src/b.txt\n?? new.txt"
    part, whole = repositories.diff(tree, 50)
    assert (part, whole) == (text[:50], False)


# taking away and making again


def everything(path: str) -> tuple[dict[str, str], str, str, str]:
    """Return all that a snapshot has to bring back: files, staged state, branch, commit."""
    return (
        {name: text for name, text in contents(path).items() if name != ".env"},
        git(path, "status", "--porcelain"),
        git(path, "rev-parse", "--abbrev-ref", "HEAD"),
        git(path, "rev-parse", "HEAD"),
    )


def busy(tree: Worktree) -> None:
    commit(tree.path, {"a.txt": "committed\n", "gone.txt": "x\n"})
    write(tree.path, {"a.txt": "staged\n", "src/b.txt": "changed\n", "new/ü 1.txt": "new\n"})
    git(tree.path, "add", "a.txt")
    write(tree.path, {"a.txt": "staged, then changed\n"})
    Path(tree.path, "gone.txt").unlink()
    write(tree.path, {"added.txt": "added\n"})
    git(tree.path, "add", "added.txt")


def detached(tree: Worktree) -> None:
    commit(tree.path, {"a.txt": "on the branch\n"})
    git(tree.path, "checkout", "--quiet", "--detach", tree.base)
    commit(tree.path, {"a.txt": "on nothing\n"})
    write(tree.path, {"new.txt": "new\n"})


def untouched(tree: Worktree) -> None:
    pass


@pytest.mark.parametrize("work", [busy, detached, untouched])
def test_what_was_kept_comes_back(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path, work: object
) -> None:
    assert callable(work)
    work(tree)
    write(tree.path, {".env": "ignored\n"})
    before, tip = everything(tree.path), git(project, "rev-parse", tree.branch)
    kept = snapshot(repositories, tree)
    assert everything(tree.path) == before  # to keep changes nothing
    discard(repositories, tree, tmp_path / "trash" / "1", tip=tip)
    assert not os.path.lexists(tree.path)
    assert (worktrees(project), branches(project)) == ([], [])
    assert (tmp_path / "trash" / "1" / ".env").read_text() == "ignored\n"  # what git ignores is in the trash
    git(project, "-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now")
    assert git(project, "rev-parse", REF) == kept
    with repositories.holding(tree.path, wait=0) as hold:
        repositories.restore(replace(tree, trash_ref=REF, tip=tip), hold)
    assert everything(tree.path) == before
    assert git(project, "rev-parse", tree.branch) == tip


def test_a_number_is_not_used_for_two_snapshots(repositories: GitRepositories, tree: Worktree) -> None:
    kept = snapshot(repositories, tree)
    write(tree.path, {"new.txt": "new\n"})
    with pytest.raises(WorktreeFailed):
        snapshot(repositories, tree)
    assert git(tree.path, "rev-parse", REF) == kept


def nested(tree: Worktree) -> None:
    repository(Path(tree.path, "vendored"))


@pytest.mark.parametrize("change", [nested, hidden, replaced, orphaned, merging])
def test_what_cannot_be_kept_whole_is_not_kept(
    repositories: GitRepositories, tree: Worktree, change: object
) -> None:
    assert callable(change)
    change(tree)
    before = contents(tree.path)
    with pytest.raises(HeadcountError):
        snapshot(repositories, tree)
    assert contents(tree.path) == before
    assert git(Path(tree.repository), "for-each-ref", "refs/headcount") == ""


def test_a_branch_that_moved_or_is_checked_out_elsewhere_stays(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path
) -> None:
    made = commit(tree.path, {"a.txt": "more\n"})
    discard(repositories, tree, tmp_path / "trash", tip=tree.base)
    assert git(project, "rev-parse", tree.branch) == made
    git(project, "checkout", "--quiet", tree.branch)
    discard(repositories, tree, tmp_path / "trash", tip=made)
    assert git(project, "rev-parse", tree.branch) == made


def test_a_worktree_that_somebody_deleted_is_seen_kept_and_made_again(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path
) -> None:
    made = commit(tree.path, {"a.txt": "more\n"})
    write(tree.path, {"b.txt": "staged\n"})
    git(tree.path, "add", "b.txt")
    subprocess.run(["rm", "-rf", tree.path], check=True)
    seen = repositories.inspect(tree)
    assert (seen.there, seen.tip, seen.only_here, seen.dirty_count) == (False, made, (made,), 1)
    snapshot(repositories, tree)
    discard(repositories, tree, tmp_path / "trash", tip=made)
    assert (worktrees(project), branches(project)) == ([], [])
    with repositories.holding(tree.path, wait=0) as hold:
        repositories.restore(replace(tree, trash_ref=REF, tip=made), hold)
    assert git(tree.path, "rev-parse", "HEAD") == made
    assert git(tree.path, "status", "--porcelain") == "A  b.txt"


def test_a_worktree_that_somebody_pruned_is_still_its_branch(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path
) -> None:
    made = commit(tree.path, {"a.txt": "more\n"})
    subprocess.run(["rm", "-rf", tree.path], check=True)
    git(project, "worktree", "prune")
    seen = repositories.inspect(tree)
    assert (seen.there, seen.branch_tip, seen.only_here) == (False, made, (made,))
    snapshot(repositories, tree)
    discard(repositories, tree, tmp_path / "trash", tip=made)
    with repositories.holding(tree.path, wait=0) as hold:
        repositories.restore(replace(tree, trash_ref=REF, tip=made), hold)
    assert Path(tree.path, "a.txt").read_text() == "more\n"


def test_another_worktree_whose_disk_is_away_is_not_pruned(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path
) -> None:
    git(project, "worktree", "add", "--quiet", str(tmp_path / "theirs"))
    (tmp_path / "theirs").rename(tmp_path / "unmounted")
    discard(repositories, tree, tmp_path / "trash", tip=tree.base)
    assert worktrees(project) == [str(tmp_path / "theirs")]


def test_a_repository_that_is_gone_is_said(
    repositories: GitRepositories, project: Path, tree: Worktree, tmp_path: Path
) -> None:
    subprocess.run(["rm", "-rf", str(project)], check=True)
    assert repositories.inspect(tree).unseen
    subprocess.run(["rm", "-rf", tree.path], check=True)
    seen = repositories.inspect(tree)
    assert (seen.there, seen.unseen) == (False, None)
    discard(repositories, tree, tmp_path / "trash", tip=None)
