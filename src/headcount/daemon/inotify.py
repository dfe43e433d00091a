"""Word from the kernel of what changes in a directory. Linux only; elsewhere the daemon polls."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MODIFY: Final = 0x2
CREATE: Final = 0x100
MOVED_TO: Final = 0x80
DELETE: Final = 0x200
OVERFLOW: Final = 0x4000
_ONLYDIR: Final = 0x01000000
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC  # the values of IN_NONBLOCK and IN_CLOEXEC
_HEAD: Final = struct.Struct("iIII")
_BUFFER: Final = 65_536


@dataclass(frozen=True, slots=True)
class Note:
    """`name` was changed in the directory of the watch `wd`."""

    wd: int
    mask: int
    name: str


class Inotify:
    """One inotify instance.

    Raises:
        OSError: on creation, where there is none or no more can be had.
    """

    def __init__(self) -> None:
        self._libc: Final = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self.fd: Final = self._checked(self._libc.inotify_init1(_FLAGS))

    def add(self, path: str, mask: int) -> int:
        """Watch a directory; return the watch.

        Raises:
            OSError: it is gone, or no more watches can be had.
        """
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask | _ONLYDIR))

    def drop(self, wd: int) -> None:
        """Watch no longer; of no effect if the directory is gone."""
        self._libc.inotify_rm_watch(self.fd, wd)

    def read(self) -> Iterator[Note]:
        """Return what has been noted, without waiting."""
        try:
            raw = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return
        at = 0
        while at < len(raw):
            wd, mask, _, length = _HEAD.unpack_from(raw, at)
            at += _HEAD.size
            yield Note(wd, mask, os.fsdecode(raw[at : at + length].rstrip(b"\0")))
            at += length

    def close(self) -> None:
        os.close(self.fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
