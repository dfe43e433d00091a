"""The daemon's lock. The kernel knows who holds it, and lets go of it when that process dies.

It is two locks on one file: an F_SETLK, which tells everybody the holder's pid, and a flock. A process
loses an F_SETLK when it closes any descriptor of the file; should that ever happen, the flock still keeps
a second daemon out, and `Held.keep` takes the other one again.
"""

import errno
import fcntl
import os
import struct
import sys

# struct flock: on Linux (x86-64, aarch64) l_type, l_whence, l_start, l_len, l_pid; on macOS and the BSDs
# l_start, l_len, l_pid, l_type, l_whence
_LINUX = sys.platform.startswith("linux")
_FORMAT = "hhqqi4x" if _LINUX else "qqihh"


class Held:
    """The lock, held as long as this object lives."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def keep(self) -> None:
        """Make sure that the kernel still names us as the holder."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def acquire(path: str) -> Held | None:
    """Take the lock for the life of this process; None if another process has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return None
        raise
    return Held(fd)


def holder(path: str) -> int | None:
    """Return the pid of the process that holds the lock, or None. About a microsecond."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        asked = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if _LINUX else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
        found = struct.unpack(_FORMAT, fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FORMAT, *asked)))
    finally:
        os.close(fd)
    kind, pid = (found[0], found[4]) if _LINUX else (found[3], found[2])
    return None if kind == fcntl.F_UNLCK else pid
