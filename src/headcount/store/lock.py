"""The writers' lock: a queue in front of SQLite's own lock, with a deadline and a name to blame.

SQLite's own waiting starves writers (seconds at 100 processes), cannot say who holds the lock, and
fails with "database is locked". Every writer takes this flock first and holds it until its
transaction is over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headcount.domain.errors import Infrastructure, RegistryBusy

FIRST_PAUSE: Final = 0.0003  # seconds; about the length of one write transaction
LONGEST_PAUSE: Final = 0.008
_NOTE_BYTES: Final = 64
_WAL_WRITE_BYTE: Final = 120  # of the -shm file: SQLite's own writers' lock (wal.c, WAL_WRITE_LOCK)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; `pid` None when the system does not tell."""

    pid: int | None
    stopped: bool


class WritersLock:
    """An flock on a file of its own. The holder's pid and purpose stand in the file."""

    def __init__(self, path: Path, *, wait: float) -> None:
        self._path: Final = path
        self._wait: Final = wait

    @contextmanager
    def hold(self, purpose: str) -> Iterator[float]:
        """Hold the lock; yields the seconds that are left of the deadline.

        A process that dies in here loses the lock with its last file descriptor.

        Raises:
            RegistryBusy: somebody else held it for the whole deadline.
            Infrastructure: the lock file cannot be opened.
        """
        fd = self._open()
        try:
            left = self._acquire(fd)
            _sign(fd, purpose)
            try:
                yield left
            finally:
                # explicitly, because a child forked meanwhile has a copy of the descriptor
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Infrastructure(
                f"the writers' lock {self._path} cannot be opened: {error.strerror}",
                hint=f"make {self._path.parent} a directory that you can write to, or set HEADCOUNT_HOME",
            ) from error

    def _acquire(self, fd: int) -> float:
        """Poll, because a blocking flock has no deadline; the jitter keeps a crowd from marching in step."""
        # CLOCK_MONOTONIC and not the clock of the registry: a deadline must not follow a clock that is set
        deadline = time.monotonic() + self._wait
        pause = FIRST_PAUSE
        while not _try(fd):
            left = deadline - time.monotonic()
            if left <= 0:
                raise busy(self.holder(), self._wait)
            time.sleep(min(pause * random.uniform(0.5, 1.5), left))  # noqa: S311  # no secret
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return max(deadline - time.monotonic(), 0.0)

    def holder(self) -> Holder:
        """Say who holds the lock: by the kernel's table, else by the note in the file."""
        pid = holder_of(self._path) or self._note()
        return Holder(pid, stopped=pid is not None and is_stopped(pid))

    def _note(self) -> int | None:
        try:
            return int(self._path.read_bytes().split()[0])
        except (OSError, ValueError, IndexError):
            return None


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise Infrastructure(f"the writers' lock cannot be taken: {error.strerror}") from error
    return True


def _sign(fd: int, purpose: str) -> None:
    note = f"{os.getpid()} {purpose}".encode("ascii", "replace")[: _NOTE_BYTES - 1]
    try:
        os.pwrite(fd, note.ljust(_NOTE_BYTES - 1) + b"\n", 0)
    except OSError:
        return  # a full disk: the note is for people, the lock holds without it


def busy(holder: Holder, wait: float) -> RegistryBusy:
    """Return the error that names the holder and says what to do about it."""
    who = f"process {holder.pid}" if holder.pid else "another process"
    if holder.stopped:
        state, hint = ", which is stopped", f"let it go on with 'kill -CONT {holder.pid}', or end it"
    else:
        state, hint = "", "try again; if it stays so, look at what that process does"
    return RegistryBusy(
        f"the registry has been held by {who}{state} for {wait:g} s",
        holder_pid=holder.pid,
        stopped=holder.stopped,
        hint=hint,
    )


def sqlite_holder(database: Path) -> Holder:
    """Say who holds SQLite's own writers' lock, past our queue (another program, or an old connection)."""
    pid = holder_of(Path(f"{database}-shm"), byte=_WAL_WRITE_BYTE) or holder_of(database)
    return Holder(pid, stopped=pid is not None and is_stopped(pid))


def holder_of(path: Path, *, byte: int | None = None) -> int | None:
    """Return the pid that holds a write lock on the file (on that byte of it), by /proc/locks.

    The file itself is not opened: closing it again would drop this process's own POSIX locks on it.
    """
    try:
        inode = os.stat(path).st_ino
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    for line in table.splitlines():
        pid = _holder_in(line, inode, byte)
        if pid is not None:
            return pid
    return None


def _holder_in(line: str, inode: int, byte: int | None) -> int | None:
    """Read one line such as "1: FLOCK  ADVISORY  WRITE 8207 fe:00:2146368 0 EOF"."""
    words = line.split()
    if len(words) != 8 or words[1] == "->" or words[3] != "WRITE" or not words[5].endswith(f":{inode}"):
        return None
    last = float("inf") if words[7] == "EOF" else int(words[7])
    if byte is not None and not int(words[6]) <= byte <= last:
        return None
    pid = int(words[4])
    return pid if pid > 0 else None  # 0 or -1: of another pid namespace, or not a process's


def is_stopped(pid: int) -> bool:
    """Say whether a process is stopped (SIGSTOP, a debugger); False where the system does not tell."""
    try:
        state = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[0]
        )
    except (OSError, IndexError):
        return False
    return state in ("T", "t")
