"""What the kernel's own log says of processes that it killed for want of memory, where we may read it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Final

LOG: Final = "/dev/kmsg"
RECORDS_MAX: Final = 100_000
RECORD_MAX: Final = 8192
"""The kernel gives one record for each read, and none that is longer."""
WORDS_MAX: Final = 300
_INITIAL: Final = "pid:[4026531836]"
"""The namespace whose pids the kernel's log has."""
_KILLED: Final = re.compile(
    rb"\d+,\d+,(\d+),[^;]*;(.*out of memory.*Killed process (\d+) [^\n]*)", re.IGNORECASE
)


def memory_kill(pids: Collection[int], within: float) -> str | None:
    """Return what the log says of the death of one of these pids for want of memory, in the last `within`
    seconds; "" if it says nothing, None if we cannot know."""
    try:
        if os.readlink("/proc/self/ns/pid") != _INITIAL:
            return None
        fd = os.open(LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return find(_records(fd), pids, since=time.monotonic() - within)
    except OSError:
        return None
    finally:
        os.close(fd)


def _records(fd: int) -> Iterator[bytes]:
    for _ in range(RECORDS_MAX):
        try:
            yield os.read(fd, RECORD_MAX)
        except BlockingIOError:
            return
        except BrokenPipeError:
            continue  # it was overwritten while we read: the next one follows


def find(records: Iterable[bytes], pids: Collection[int], *, since: float) -> str:
    """Return the last record that names one of these pids, not older than `since`, in seconds since boot
    without sleep; "" if none does."""
    found = ""
    for record in records:
        said = _KILLED.match(record)
        if said and int(said[3]) in pids and int(said[1]) / 1e6 >= since:
            found = said[2].decode("utf-8", "replace")[:WORDS_MAX]
    return found
