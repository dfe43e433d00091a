"""What SQLite's errors mean to a user."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from headcount.domain.errors import Infrastructure

_CORRUPTION: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE})
"""Said of a full disk by whoever opens the registry first: there is no room for what the log shares."""
_MACHINE: Final = {
    sqlite3.SQLITE_FULL: ("the disk is full", "make room ('headcount gc' proposes what can go)"),
    sqlite3.SQLITE_IOERR: ("the disk failed", "look at the system's log and at the disk's free space"),
    sqlite3.SQLITE_READONLY: ("it cannot be written", "give yourself write access, or set HEADCOUNT_HOME"),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "make its directory one that you can write to, or set HEADCOUNT_HOME",
    ),
    sqlite3.SQLITE_PERM: ("access is denied", "give yourself access, or set HEADCOUNT_HOME"),
    sqlite3.SQLITE_NOMEM: ("memory ran out", "end something that uses much memory"),
}


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 if the error is Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_corruption(error: sqlite3.Error) -> bool:
    """Only these two codes say that the file itself is damaged; no other ever leads to a quarantine."""
    return primary_code(error) in _CORRUPTION


def is_busy(error: sqlite3.Error) -> bool:
    return primary_code(error) in _BUSY


def machine_fault(error: sqlite3.Error, path: Path) -> Infrastructure | None:
    """Return the error for a fault of the disk, of rights or of memory; None if it is another."""
    full = getattr(error, "sqlite_errorcode", 0) in _NO_ROOM
    known = _MACHINE.get(sqlite3.SQLITE_FULL if full else primary_code(error))
    if known is None:
        return None
    what, hint = known
    return Infrastructure(f"the registry {path} was not changed: {what} ({error})", hint=hint)
