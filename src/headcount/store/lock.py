"""The writers' lock: a queue in front of SQLite's own lock, with a deadline and a name to blame.

SQLite's own waiting starves writers (seconds at 100 processes), cannot say who holds the lock, and
fails with "database is locked". Every writer takes this flock first and holds it until its
transaction is over. The kernel hands a flock on in the order of asking.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headcount.domain.errors import Infrastructure, RegistryBusy

TURNS: Final = 3
"""Deadlines that a place in a queue that moves lasts: a hundred deploys may need more than one."""
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
    def hold(self, purpose: str) -> Iterator[None]:
        """Hold the lock. A process that dies in here loses it with its last file descriptor.

        Raises:
            RegistryBusy: somebody else held it for the whole deadline, or others for `TURNS` of them.
            Infrastructure: the lock file cannot be opened.
        """
        fd = self._acquire()
        try:
            _sign(fd, purpose)
            yield
        finally:
            _release(fd)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Infrastructure(
                f"the writers' lock {self._path} cannot be opened: {error.strerror}",
                hint=f"make {self._path.parent} a directory that you can write to, or set HEADCOUNT_HOME",
            ) from error

    def _acquire(self) -> int:
        fd = self._open()
        if _try(fd):
            return fd
        queued = _Queued(fd)
        if not queued.wait(self._wait, moves=self._moves()):
            raise busy(self.holder(), self._wait)
        return fd

    def _moves(self) -> Callable[[], bool]:
        """Return what says whether another has the lock than at the last question: then the queue moves,
        and whoever leaves it would only come back at its end."""
        seen = [self._words()]

        def moves() -> bool:
            seen.append(self._words())
            return len(seen) <= TURNS and seen[-1] != seen[-2]

        return moves

    def holder(self) -> Holder:
        """Say who holds the lock: by the kernel's table, else by the note in the file."""
        pid = holder_of(self._path) or self._note()
        return Holder(pid, stopped=pid is not None and is_stopped(pid))

    def _note(self) -> int | None:
        try:
            return int(self._words().split()[0])
        except (ValueError, IndexError):
            return None

    def _words(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""


class _Queued:
    """A place in the kernel's queue for the lock, with a deadline.

    A blocking flock has none, so a thread of its own blocks in it. Polling instead took twice the time
    for a hundred writers at once: it burns the processor that the holder needs, and knows no order.
    """

    def __init__(self, fd: int) -> None:
        self._fd: Final = fd
        self._mutex: Final = threading.Lock()
        self._answered: Final = threading.Event()
        self._held = False
        self._given_up = False

    def wait(self, seconds: float, *, moves: Callable[[], bool]) -> bool:
        """Return whether the lock is held now; if not, the descriptor will be closed.

        After `seconds` it is over, unless the queue `moves`.
        """
        try:
            threading.Thread(target=self._block, name="writers' lock", daemon=True).start()
        except RuntimeError as error:
            os.close(self._fd)
            raise Infrastructure("no thread could be started to wait for the registry") from error
        try:
            while not self._answered.wait(seconds) and moves():
                pass
        except BaseException:  # such as KeyboardInterrupt
            if not self._give_up():
                _release(self._fd)
            raise
        return self._held or not self._give_up()

    def _block(self) -> None:
        with suppress(OSError):  # of the lock table, for one: then the deadline runs out
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            with self._mutex:
                self._held = not self._given_up
        if self._held:
            self._answered.set()
        else:
            _release(self._fd)

    def _give_up(self) -> bool:
        """Leave the queue; False if the lock was handed over just now."""
        with self._mutex:
            self._given_up = not self._held
            return self._given_up


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        os.close(fd)
        raise Infrastructure(f"the writers' lock cannot be taken: {error.strerror}") from error
    return True


def _release(fd: int) -> None:
    try:
        # explicitly, because a child forked meanwhile has a copy of the descriptor
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


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
        state, hint = ", which is stopped,", f"let it go on with 'kill -CONT {holder.pid}', or end it"
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
