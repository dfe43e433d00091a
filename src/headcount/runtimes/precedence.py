"""Deploys that are under way go before views.

A view is several small programs. Among a hundred deploys at once they would take a third of the processor
from those that wait for their answers. So each deploy holds a shared lock of one file, and a view that is to
come while others deploy waits, for a bounded time, until it has the file for itself for a moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def deploying(path: str) -> Iterator[None]:
    """Have views wait while the body runs. Nobody waits here: who cannot have the lock goes without."""
    fd = _try(path, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def under_way(path: str) -> bool:
    """Say whether a deploy of any process is under way, or a view that waited for one is being made."""
    fd = _try(path, fcntl.LOCK_EX)
    if fd is None:
        return True
    os.close(fd)
    return False


def _try(path: str, how: int) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
