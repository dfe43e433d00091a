"""Makes, looks at and takes away git worktrees. The rules of when are elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import IO, Final

from headcount.domain.errors import InvalidInput, WorktreeFailed
from headcount.domain.model import Worktree
from headcount.domain.postmortem import Changes
from headcount.domain.worktrees import SHOWN, Changed, Checkout, Commit, Inspection
from headcount.runtimes import changes, git
from headcount.runtimes.git import QUICK, SLOW, Git, Place, Said
from headcount.runtimes.process import ProcessTable

LOCK: Final = "headcount.lock"
"""In the common git directory: one for a repository, whichever home its worktrees are made for."""
REPOSITORY_WAIT: Final = 300.0
"""Seconds for those who came before at one repository; each takes it for a fraction of one."""
TAIL_LINES: Final = 20
TAIL_CHARACTERS: Final = 2_000
LOOK: Final = 0.2
"""Seconds between two looks at whether a set-up command goes on."""
_GITLINK: Final = b"160000 "
_UNFINISHED: Final = {
    "MERGE_HEAD": "a merge",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisection",
}


class GitRepositories:
    """The repositories that git knows how to deal with."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._git: Final = Git(environ)

    # where

    def checkout(self, directory: str) -> Checkout:
        place = Place(directory)
        asked = self._git.run(
            place, "rev-parse", "--is-bare-repository", "--is-inside-work-tree", ok=(0, 128)
        )
        self._check_kind(directory, asked)
        paths = ("--git-common-dir", "--show-toplevel", "--show-prefix")
        found = self._git.run(place, "rev-parse", "--path-format=absolute", *paths).line.split("\n")
        if len(found) != len(paths):
            raise _unfit(directory, "not_a_repository", "has a line break in its path")
        repository, top, inside = found
        head = self._git.run(place, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1, 128))
        if head.code != 0:
            raise _unfit(
                directory, "no_commit", "is in a repository without a commit", hint="commit something"
            )
        self._check_submodules(directory, place)
        return Checkout(os.path.realpath(repository), os.path.realpath(top), inside.rstrip("/"), head.line)

    @staticmethod
    def _check_kind(directory: str, asked: Said) -> None:
        if asked.code != 0 and "not a git repository" in asked.words:
            raise _unfit(directory, "not_a_repository", "is not in a git repository")
        if asked.code != 0:
            raise WorktreeFailed(f"git rev-parse failed ({asked.code}): {asked.words}")
        bare, inside = asked.line.split("\n")
        if bare == "true":
            raise _unfit(directory, "bare_repository", "is a bare repository, which has no checkout")
        if inside != "true":
            raise _unfit(directory, "not_a_repository", "is inside a git directory, not in a checkout")

    def _check_submodules(self, directory: str, place: Place) -> None:
        """A worktree's submodules are empty, and what is done in them is seen by no inspection."""
        asked = ("config", "--blob", "HEAD:.gitmodules", "--get-regexp", r"^submodule\..*\.path$")
        if self._git.run(place, *asked, ok=(0, 1, 128)).code == 0:
            raise _unfit(directory, "has_submodules", "is in a repository with submodules")

    # holding

    def holding(self, path: str, *, wait: float) -> AbstractContextManager[int]:
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise WorktreeFailed(f"{os.path.dirname(path)} cannot be made: {error.strerror}") from error
        return git.locked(f"{path}.lock", wait=wait, what=f"the worktree {path}", keep=False)

    @contextlib.contextmanager
    def _repository(self, tree: Worktree, hold: int) -> Iterator[Place]:
        """Hold the lock of a repository: git's own is not waited for, so two at once fail."""
        lock = f"{tree.repository}/{LOCK}"
        with git.locked(lock, wait=REPOSITORY_WAIT, what=f"the repository {tree.repository}") as fd:
            yield Place(tree.repository, git_dir=tree.repository, inherited=(hold, fd))

    # making

    def make(self, tree: Worktree, hold: int, *, inside: str = "") -> None:
        add = ("worktree", "add", "--quiet", "--no-checkout", "--no-track", "-b", tree.branch)
        with self._repository(tree, hold) as place:
            self._git.run(place, *add, "--", tree.path, tree.base)
        self._fill(tree, hold, "reset", "--hard", "--quiet", "--no-recurse-submodules")
        directory = os.path.join(tree.path, inside)
        if f"{os.path.realpath(directory)}/".startswith(f"{tree.path}/"):
            with contextlib.suppress(OSError):
                os.makedirs(directory, exist_ok=True)
        if not os.path.isdir(directory) or not f"{os.path.realpath(directory)}/".startswith(f"{tree.path}/"):
            raise WorktreeFailed(f"{inside} is not a directory of the worktree")

    def _fill(self, tree: Worktree, hold: int, *args: str) -> None:
        """Write files: beside the lock, for it may take long and touches this worktree only."""
        self._git.run(self._inside(tree, hold=hold), *args, timeout=SLOW)

    def copy(self, tree: Worktree, top: str, names: Iterable[str]) -> None:
        for name in names:
            source, target = _inside(top, name), _inside(tree.path, name)
            if os.path.isdir(source):
                raise InvalidInput(f"worktree_copy names the directory {name}", hint="name single files")
            if not os.path.isfile(source) or os.path.lexists(target):
                continue
            try:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy2(source, target)
            except OSError as error:
                raise WorktreeFailed(f"{name} cannot be copied: {error.strerror}") from error

    def set_up(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout: float,
        goes_on: Callable[[], bool],
    ) -> None:
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise _set_up_failed(argv, str(error), ()) from error
        tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, tail), daemon=True)
        reader.start()
        try:
            why = _wait(process, timeout, goes_on)
        finally:
            git.end(process)
            reader.join(LOOK)  # what it left behind may hold the pipe open
        if why is not None or process.wait() != 0:
            raise _set_up_failed(argv, why or _ended(process.returncode), tail)

    # looking

    def inspect(self, tree: Worktree) -> Inspection:
        if not os.path.isdir(tree.repository):
            return self._without_repository(tree)
        branch_tip = self._commit(self._common(tree), f"refs/heads/{tree.branch}")
        admin = _admin(tree)
        there = os.path.lexists(tree.path)
        if admin is None:
            unseen = "git does not know it any more" if there else None
            seen = Inspection(there=there, tip=None, branch=None, branch_tip=branch_tip, unseen=unseen)
        elif not there:
            seen = self._inspect_index(tree, admin, branch_tip)
        else:
            return self._inspect_files(tree, admin, branch_tip)
        return self._with_commits(tree, seen, self._common(tree))

    @staticmethod
    def _without_repository(tree: Worktree) -> Inspection:
        there = os.path.lexists(tree.path)
        unseen = f"its repository {tree.repository} is gone" if there else None
        return Inspection(there=there, tip=None, branch=None, branch_tip=None, unseen=unseen)

    def _inspect_index(self, tree: Worktree, admin: str, branch_tip: str | None) -> Inspection:
        """Look at a worktree whose files somebody has deleted: what was staged is still there."""
        place = Place(tree.repository, git_dir=admin)
        tip = self._commit(place, "HEAD")
        unseen = "its branch has no commit yet" if tip is None else None
        staged: list[str] = []
        if tip is not None:
            staged = self._git.run(place, "diff", "--cached", "--name-only", "-z", tip, "--").parts
        return Inspection(
            there=False,
            tip=tip,
            branch=None,
            branch_tip=branch_tip,
            dirty=tuple(f"   {each}" for each in staged[:SHOWN]),
            dirty_count=len(staged),
            locked=_lock(admin),
            unseen=unseen,
        )

    def _inspect_files(self, tree: Worktree, admin: str, branch_tip: str | None) -> Inspection:
        place = self._inside(tree, admin)
        tip = self._commit(place, "HEAD")
        branch = self._git.run(place, "symbolic-ref", "--quiet", "HEAD", ok=(0, 1)).line or None
        status = self._git.run(place, "status", "--porcelain=v1", "-z", "--no-renames", timeout=SLOW)
        dirty = [os.fsencode(part).decode("utf-8", "replace") for part in status.parts]
        unfinished = next(
            (what for name, what in _UNFINISHED.items() if os.path.lexists(f"{admin}/{name}")), None
        )
        seen = Inspection(
            there=True,
            tip=tip,
            branch=None if branch is None else branch.removeprefix("refs/heads/"),
            branch_tip=branch_tip,
            dirty=tuple(dirty[:SHOWN]),
            dirty_count=len(dirty),
            locked=_lock(admin),
            unfinished=unfinished,
            unseen=self._unseen(tree, admin, place, tip),
        )
        return self._with_commits(tree, seen, place)

    def _unseen(self, tree: Worktree, admin: str, place: Place, tip: str | None) -> str | None:
        """Return what of a worktree neither a status nor a snapshot would show."""
        if _text(f"{tree.path}/.git") != f"gitdir: {admin}":
            return "its .git file is not the one that git made"
        if tip is None:
            return "its branch has no commit yet"
        for line in self._git.run(place, "ls-files", "-v", "-z", timeout=SLOW).parts:
            mark, _, path = line.partition(" ")
            if (mark == "S" or mark.islower()) and os.path.lexists(f"{tree.path}/{path}"):
                return f"git was told not to look at {path[:200]}"
        staged = self._git.run(place, "ls-files", "--stage", "-z", timeout=SLOW).out
        if any(part.startswith(_GITLINK) for part in staged.split(b"\0")):
            return "it has submodules"
        return None

    def _with_commits(self, tree: Worktree, seen: Inspection, place: Place) -> Inspection:
        tips = [each for each in dict.fromkeys((seen.tip, seen.branch_tip)) if each is not None]
        if not tips:
            return seen
        since = (*tips, f"^{tree.base}")
        log = self._git.run(place, "log", "-z", "--format=%H %s", f"--max-count={SHOWN}", *since, "--")
        count = self._git.run(place, "rev-list", "--count", *since, "--").line
        seen = replace(
            seen,
            commits=tuple(_shown(part) for part in log.parts),
            commit_count=int(count),
            only_here=tuple(each for each in tips if not self._is_elsewhere(tree, each)),
        )
        return self._with_files(tree, seen, tips[0])

    def _is_elsewhere(self, tree: Worktree, commit: str) -> bool:
        """Say whether another branch, a remote's branch or a tag has a commit. Trash does not count."""
        where = ("refs/heads", "refs/remotes", "refs/tags")
        asked = ("for-each-ref", "--count=2", "--format=%(refname)", f"--contains={commit}", *where)
        found = self._git.run(self._common(tree), *asked, timeout=SLOW).line.split("\n")
        return bool(set(found) - {"", f"refs/heads/{tree.branch}"})

    def _with_files(self, tree: Worktree, seen: Inspection, tip: str) -> Inspection:
        """Add which files differ from the base. That is for people to read: nothing is decided by it."""
        numstat = ("diff", "--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", tree.base)
        try:
            if seen.there and seen.unseen is None:
                with self._all_files(tree) as place:
                    said = self._git.run(place, *numstat, "--", timeout=SLOW)
            else:
                said = self._git.run(self._common(tree), *numstat, tip, "--", timeout=SLOW)
        except WorktreeFailed:
            return replace(seen, files_changed=None)
        files = [_changed(part) for part in said.parts]
        return replace(
            seen,
            files=tuple(files[:SHOWN]),
            files_changed=len(files),
            added=sum(each.added or 0 for each in files),
            removed=sum(each.removed or 0 for each in files),
        )

    @contextlib.contextmanager
    def _all_files(self, tree: Worktree) -> Iterator[Place]:
        """Look at a worktree through an index of our own, in which new files are announced."""
        with self._own_index(tree) as place:
            self._git.run(place, "add", "--intent-to-add", "--", ".", timeout=SLOW)
            yield place

    @contextlib.contextmanager
    def _own_index(self, tree: Worktree, hold: int | None = None) -> Iterator[Place]:
        admin = _admin(tree)
        with tempfile.TemporaryDirectory(prefix="headcount-index-") as folder:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(f"{admin}/index", f"{folder}/index")
            yield self._inside(tree, admin, hold=hold, index=f"{folder}/index")

    def users(self, path: str) -> Sequence[int] | None:
        return ProcessTable().inside(path)

    def diff(self, tree: Worktree, limit: int) -> tuple[bytes, bool]:
        asked = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", tree.base)
        if os.path.lexists(tree.path) and _admin(tree) is not None:
            with self._all_files(tree) as place:
                return self._git.head(place, *asked, "--", limit=limit)
        place = self._common(tree)
        tip = self._commit(place, f"refs/heads/{tree.branch}") or self._commit(
            place, tree.trash_ref or tree.tip or tree.base
        )
        if tip is None:
            raise WorktreeFailed(f"nothing is left of the worktree of {tree.agent_id}")
        return self._git.head(place, *asked, tip, "--", limit=limit)

    def changed(self, directory: str, *, since: float, until: float) -> Changes | None:
        return changes.between(self._git, directory, since, until)

    # taking away

    def snapshot(self, tree: Worktree, ref: str, hold: int) -> str:
        seen = self.inspect(tree)
        tips = [each for each in (seen.tip, seen.branch_tip) if each is not None]
        if seen.unseen is not None or not tips:
            raise WorktreeFailed(f"it cannot be kept whole: {seen.unseen or 'it has no commit'}")
        about = f"headcount: the worktree of {tree.agent_id}\n\nbranch: {seen.branch or ''}\n"
        files, staged = self._trees(tree, hold) if seen.there else self._staged(tree, hold, tips[0])
        index = self._keep(tree, hold, staged, tips[:1], "headcount: what was staged")
        made = self._keep(tree, hold, files, list(dict.fromkeys((tips[0], index, *tips))), about)
        with self._repository(tree, hold) as place:
            self._git.run(place, "update-ref", ref, made, "0" * len(made))
        return made

    def _trees(self, tree: Worktree, hold: int) -> tuple[str, str]:
        """Write what is in a worktree's files, and what is staged, as trees; the worktree does not change."""
        with self._own_index(tree, hold) as place:
            staged = self._git.run(place, "write-tree", timeout=SLOW).line
            self._git.run(place, "add", "--all", "--", ".", timeout=SLOW)
            found = self._git.run(place, "ls-files", "--stage", "-z", timeout=SLOW).out.split(b"\0")
            nested = [os.fsdecode(each.partition(b"\t")[2]) for each in found if each.startswith(_GITLINK)]
            if nested:
                raise WorktreeFailed(
                    f"it cannot be kept whole: {nested[0]} is a repository of its own",
                    hint="move that out of the worktree first",
                )
            return self._git.run(place, "write-tree", timeout=SLOW).line, staged

    def _staged(self, tree: Worktree, hold: int, tip: str) -> tuple[str, str]:
        """The same for a worktree whose files somebody has deleted."""
        committed = self._git.run(self._common(tree), "rev-parse", f"{tip}^{{tree}}").line
        if _admin(tree) is None:
            return committed, committed
        with self._own_index(tree, hold) as place:
            staged = self._git.run(replace(place, cwd=tree.repository, files=None), "write-tree").line
            return staged, staged

    def _keep(self, tree: Worktree, hold: int, files: str, parents: Sequence[str], words: str) -> str:
        place = Place(tree.repository, git_dir=tree.repository, inherited=(hold,))
        above = [word for each in parents for word in ("-p", each)]
        return self._git.run(place, "commit-tree", files, *above, "-F", "-", given=words.encode()).line

    def discard(self, tree: Worktree, *, to: str, tip: str | None, hold: int) -> None:
        try:
            if os.path.lexists(tree.path):
                os.makedirs(os.path.dirname(to), mode=0o700, exist_ok=True)
                os.rename(tree.path, to)
        except OSError as error:
            raise WorktreeFailed(f"{tree.path} cannot be moved away: {error.strerror}") from error
        if not os.path.isdir(tree.repository):
            return
        with self._repository(tree, hold) as place:
            if _admin(tree) is not None:  # twice: also one that a maker who was killed left locked
                self._git.run(place, "worktree", "remove", "--force", "--force", "--", tree.path)
            where = ("for-each-ref", "--format=%(objectname) %(worktreepath)", f"refs/heads/{tree.branch}")
            if tip is not None and self._git.run(place, *where).line.strip() == tip:
                self._git.run(place, "update-ref", "-d", f"refs/heads/{tree.branch}", tip)

    def restore(self, tree: Worktree, hold: int) -> None:
        place = self._common(tree)
        kept = None if tree.trash_ref is None else self._commit(place, tree.trash_ref)
        if tree.trash_ref is not None and kept is None:
            raise WorktreeFailed(f"{tree.trash_ref} is gone from {tree.repository}")
        tip = tree.tip if kept is None else self._commit(place, f"{kept}^1")
        if tip is None or self._commit(place, tip) is None:
            raise WorktreeFailed(f"the commit that {tree.branch} was at is gone from {tree.repository}")
        self._add_again(tree, tip, kept, hold)
        self._fill(tree, hold, "reset", "--hard", "--quiet", "--no-recurse-submodules")
        if kept is not None:
            self._fill(tree, hold, "read-tree", "--reset", "-u", "--no-recurse-submodules", kept)
            self._fill(tree, hold, "read-tree", "--reset", f"{kept}^2")
            self._git.run(
                self._inside(tree, hold=hold), "update-index", "-q", "--refresh", ok=(0, 1), timeout=SLOW
            )

    def _add_again(self, tree: Worktree, tip: str, kept: str | None, hold: int) -> None:
        """Add the worktree where it was: with its branch if that is free, else with none checked out."""
        with self._repository(tree, hold) as place:
            branch = f"refs/heads/{tree.branch}"
            before = tip if kept is None else self._own_tip(tree, kept, tip)
            if self._commit(place, branch) is None:
                self._git.run(place, "update-ref", branch, before, "0" * len(before))
            self._git.run(
                place, "worktree", "add", "--quiet", "--no-checkout", "--detach", "--", tree.path, tip
            )
            wanted = tree.branch if kept is None else self._checked_out(kept, place)
            where = ("for-each-ref", "--format=%(objectname) %(worktreepath)", f"refs/heads/{wanted}")
            if wanted and self._git.run(place, *where).line.strip() == tip:
                self._git.run(self._inside(tree, hold=hold), "symbolic-ref", "HEAD", f"refs/heads/{wanted}")

    def _own_tip(self, tree: Worktree, kept: str, tip: str) -> str:
        """Return where the agent's own branch was: the third parent, if it was not what was checked out."""
        return self._commit(self._common(tree), f"{kept}^3") or tip

    def _checked_out(self, kept: str, place: Place) -> str:
        said = self._git.run(place, "log", "-1", "--format=%b", kept).line
        return said.removeprefix("branch: ").strip()

    # places

    def _common(self, tree: Worktree) -> Place:
        if not os.path.isdir(tree.repository):
            raise WorktreeFailed(f"the repository {tree.repository} is gone")
        return Place(tree.repository, git_dir=tree.repository)

    @staticmethod
    def _inside(
        tree: Worktree, admin: str | None = None, *, hold: int | None = None, index: str | None = None
    ) -> Place:
        """Return a place that is this worktree and no other repository, whatever lies above it."""
        admin = admin or _admin(tree)
        if admin is None:
            raise WorktreeFailed(f"git does not know the worktree {tree.path}")
        inherited = () if hold is None else (hold,)
        return Place(tree.path, git_dir=admin, files=tree.path, index=index, inherited=inherited)

    def _commit(self, place: Place, name: str) -> str | None:
        """Return the commit that a name stands for, None if for none."""
        said = self._git.run(
            place, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", ok=(0, 1, 128), timeout=QUICK
        )
        return said.line if said.code == 0 else None


def _unfit(directory: str, code: str, why: str, *, hint: str = "") -> InvalidInput:
    return InvalidInput(
        f"no worktree can be made: {directory} {why}",
        code=code,
        hint=hint or "name a directory in a git checkout with --cwd, or use isolation shared",
    )


def _inside(top: str, name: str) -> str:
    """Return the path of a file below `top`, wherever symbolic links lead.

    Raises:
        InvalidInput: they lead out of it.
    """
    path = os.path.realpath(os.path.join(top, name))
    if os.path.isabs(name) or not path.startswith(os.path.realpath(top).rstrip("/") + "/"):
        raise InvalidInput(
            f"worktree_copy names {name}, which is outside of the project", hint="name files of the project"
        )
    if ".git" in os.path.relpath(path, os.path.realpath(top)).split("/"):
        raise InvalidInput(
            f"worktree_copy names {name}, which is git's own", hint="name files of the project"
        )
    return path


def _admin(tree: Worktree) -> str | None:
    """Return the directory in which git keeps what it knows of a worktree, None if it knows none there."""
    folder = f"{tree.repository}/worktrees"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WorktreeFailed(f"{folder} cannot be read: {error.strerror}") from error
    mine = f"{tree.path}/.git"
    return next((f"{folder}/{name}" for name in names if _text(f"{folder}/{name}/gitdir") == mine), None)


def _lock(admin: str) -> str | None:
    return _text(f"{admin}/locked")


def _text(path: str) -> str | None:
    """Return a small file of git's, None if it is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            return os.fsdecode(file.read(1 << 16).removesuffix(b"\n"))
    except OSError:
        return None


def _shown(part: str) -> Commit:
    commit, _, subject = os.fsencode(part).decode("utf-8", "replace").partition(" ")
    return Commit(commit, subject[:200])


def _changed(part: str) -> Changed:
    added, removed, path = os.fsencode(part).decode("utf-8", "replace").split("\t", 2)
    return Changed(path, *(None if each == "-" else int(each) for each in (added, removed)))


def _read(pipe: IO[bytes], tail: deque[bytes]) -> None:
    with pipe, contextlib.suppress(OSError, ValueError):
        while line := pipe.readline(1 << 16):
            tail.append(line[-TAIL_CHARACTERS:])


def _wait(process: subprocess.Popen[bytes], timeout: float, goes_on: Callable[[], bool]) -> str | None:
    """Wait for the end of a command; return why it was not waited for."""
    until = time.monotonic() + timeout
    while True:
        try:
            process.wait(min(LOOK, max(0.0, until - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= until:
                return f"it did not end in {timeout:g} s"
            if not goes_on():
                return "its agent was stopped meanwhile"
        else:
            return None


def _ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def _set_up_failed(argv: Sequence[str], why: str, tail: Iterable[bytes]) -> WorktreeFailed:
    said = b"".join(tail).decode("utf-8", "replace").strip()[-TAIL_CHARACTERS:]
    return WorktreeFailed(
        f"the set-up command {argv[0]} failed: {why}" + (f"\n{said}" if said else ""),
        code="setup_failed",
        hint="see setting worktree_setup, and the task's own set-up command",
    )
