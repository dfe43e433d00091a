"""Runs git: by argument lists, with time-outs, without a shell, without the user's hooks and variables."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from headcount.domain.errors import WorktreeFailed

QUICK: Final = 60.0
"""Seconds for what looks, or changes a ref."""
SLOW: Final = 900.0
"""Seconds for what writes or reads every file of a large repository."""
PAUSE: Final = (0.01, 0.2)
_WORDS_MAX: Final = 600

_KEPT: Final = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK")
"""Of the environment; above all no GIT_* of a hook or an agent that we were called from."""
_SET: Final = {
    "LC_ALL": "C",  # its messages are looked at
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",  # to look writes nothing
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_AUTHOR_NAME": "Headcount",
    "GIT_AUTHOR_EMAIL": "headcount@localhost",
    "GIT_COMMITTER_NAME": "Headcount",
    "GIT_COMMITTER_EMAIL": "headcount@localhost",
}
_CONFIG: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",  # would leave a process in the worktree
    "core.untrackedCache=false",
    "core.quotePath=false",
    "core.safecrlf=false",
    "core.fsync=all",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "add.ignoreErrors=false",
    "advice.addEmbeddedRepo=false",
    "status.showUntrackedFiles=normal",
    "status.renames=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
)


@dataclass(frozen=True, slots=True)
class Said:
    """What git answered."""

    code: int
    out: bytes
    words: str  # of its stderr, the last of them

    @property
    def line(self) -> str:
        return os.fsdecode(self.out).removesuffix("\n")

    @property
    def parts(self) -> list[str]:
        """Return what it gave with -z."""
        return [os.fsdecode(part) for part in self.out.split(b"\0") if part]


@dataclass(frozen=True, slots=True)
class Place:
    """Where git works: a directory, and for a worktree exactly which repository and files are meant, so that
    it never finds another one further up."""

    cwd: str
    git_dir: str | None = None
    files: str | None = None
    index: str | None = None
    inherited: tuple[int, ...] = ()  # descriptors of locks that are to live as long as it does

    def arguments(self) -> Iterator[str]:
        if self.git_dir is not None:
            yield f"--git-dir={self.git_dir}"
        if self.files is not None:
            yield f"--work-tree={self.files}"


@dataclass(frozen=True, slots=True)
class Git:
    """The git program, with what it may know of the environment."""

    environ: Mapping[str, str] = field(repr=False)

    def run(
        self,
        place: Place,
        *args: str,
        ok: Sequence[int] = (0,),
        timeout: float = QUICK,
        given: bytes | None = None,
    ) -> Said:
        """Run git to its end.

        Raises:
            WorktreeFailed: it is not there, did not end in time, or with a code that is not in `ok`.
        """
        with self._started(place, args, given=given is not None) as process:
            try:
                out, err = process.communicate(given, timeout)
            except subprocess.TimeoutExpired:
                raise WorktreeFailed(
                    f"git {args[0]} did not end in {timeout:.0f} s",
                    hint="try again when the disk is less busy",
                ) from None
        said = Said(process.returncode, out, _last(err))
        if said.code not in ok:
            raise WorktreeFailed(f"git {args[0]} failed ({said.code}): {said.words}")
        return said

    def head(self, place: Place, *args: str, limit: int, timeout: float = QUICK) -> tuple[bytes, bool]:
        """Return at most `limit` bytes of what git says, and whether that is all.

        Raises:
            WorktreeFailed: it failed, or hung, before it had said so much.
        """
        until, parts, size, whole = time.monotonic() + timeout, [], 0, False
        with self._started(place, args, given=False, quiet=True) as process:
            assert process.stdout is not None
            pipe = process.stdout.fileno()
            while size <= limit:
                if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                    raise WorktreeFailed(f"git {args[0]} did not end in {timeout:.0f} s")
                part = os.read(pipe, 1 << 16)
                if not part:
                    whole = True
                    break
                parts.append(part)
                size += len(part)
            if whole and process.wait(QUICK) != 0:
                raise WorktreeFailed(f"git {args[0]} failed ({process.returncode})")
        return b"".join(parts)[:limit], whole

    @contextlib.contextmanager
    def _started(
        self, place: Place, args: Sequence[str], *, given: bool, quiet: bool = False
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Have git run while the body does; it does not survive that."""
        program = shutil.which("git", path=self.environ.get("PATH", os.defpath))
        if program is None:
            raise WorktreeFailed("git is not installed", code="no_git", hint="install git")
        config = [word for each in _CONFIG for word in ("-c", each)]
        try:
            process = subprocess.Popen(
                (program, "--no-pager", *config, *place.arguments(), *args),
                cwd=place.cwd,
                env=self._env(place),
                stdin=subprocess.PIPE if given else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if quiet else subprocess.PIPE,
                start_new_session=True,
                pass_fds=place.inherited,
            )
        except OSError as error:
            raise WorktreeFailed(f"git cannot be run in {place.cwd}: {error.strerror}") from error
        with process:
            try:
                yield process
            finally:
                end(process)

    def _env(self, place: Place) -> dict[str, str]:
        env = {name: self.environ[name] for name in _KEPT if name in self.environ} | _SET
        return env if place.index is None else {**env, "GIT_INDEX_FILE": place.index}


def end(process: subprocess.Popen[bytes]) -> None:
    """End what a process has left of its group: TERM, on which git takes its lock files away, then KILL."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.0)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _last(err: bytes) -> str:
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    return "; ".join(lines[-3:])[-_WORDS_MAX:] or "it did not say why"


@contextlib.contextmanager
def locked(path: str, *, wait: float, what: str, keep: bool = True) -> Iterator[int]:
    """Hold the flock of a file while the body runs; its descriptor may be inherited, and then holds it too.

    Without `keep` the file is taken away at the end. Waiting is polling: flock has no deadline.

    Raises:
        WorktreeFailed: another holds it for `wait` seconds, or it cannot be made.
    """
    until, pause = time.monotonic() + wait, PAUSE[0]
    while (fd := _try(path)) is None:
        if time.monotonic() >= until:
            raise WorktreeFailed(f"{what} is being worked on", code="worktree_busy", hint="try again later")
        time.sleep(pause)
        pause = min(pause * 1.5, PAUSE[1])
    try:
        yield fd
    finally:
        if not keep:
            with contextlib.suppress(OSError):
                os.unlink(path)  # whoever waits for it looks again, see _try
        os.close(fd)


def _try(path: str) -> int | None:
    """Take a lock; None if another has it, or has just taken its file away."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise WorktreeFailed(f"the lock {path} cannot be taken: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found, there = os.fstat(fd), os.stat(path)
        if (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None
