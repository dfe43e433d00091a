"""Lets only a few runners start at once.

A hundred deploys at once would otherwise be a hundred Python starts at once, and whoever holds the writers'
lock of the registry would wait among them for its turn on a core.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

FIRST_WAIT: Final = 0.003
LONGEST_WAIT: Final = 0.05


@contextlib.contextmanager
def gate(folder: str, width: int, patience: float) -> Iterator[None]:
    """Hold one of `width` places while the body runs; after `patience` seconds go ahead without one, and at
    once where there can be none: the gate spares the machine, nothing rests on it.

    A place is a flock, so a dead holder frees it. Waiting is polling with growing, uneven pauses: flock has
    no deadline, and a stopped holder must not block anybody for ever.
    """
    fd = _enter(folder, width, patience)
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _enter(folder: str, width: int, patience: float) -> int | None:
    until = time.monotonic() + patience
    pause = FIRST_WAIT
    while True:
        first = os.getpid()
        try:
            for i in range(width):
                if (fd := _try(f"{folder}/{(first + i) % width}")) is not None:
                    return fd
        except OSError:
            return None
        now = time.monotonic()
        if now >= until:
            return None
        uneven = 0.5 + os.urandom(1)[0] / 256  # 0.5 to 1.5: those who wait together come back apart
        time.sleep(min(pause * uneven, until - now))
        pause = min(pause * 1.5, LONGEST_WAIT)


def _try(path: str) -> int | None:
    """Return the place, held; None if somebody else holds it.

    Raises:
        OSError: it cannot be made or locked.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EWOULDBLOCK:
            return None
        raise
    return fd
