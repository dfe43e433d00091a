"""One SQLite connection, opened the one way that is right here.

The database file is never opened by hand: closing it again would drop SQLite's POSIX locks on it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

FileId: TypeAlias = tuple[int, int]

APPLICATION_ID: Final = 0x48434E54  # "HCNT"
WAL_BYTES: Final = 4 * 1024 * 1024
"""What the log shrinks to after a checkpoint; a checkpoint comes every 1000 pages of 4 KiB."""

_PRAGMAS: Final = f"""
PRAGMA foreign_keys = ON;
PRAGMA synchronous = FULL;
PRAGMA fullfsync = ON;
PRAGMA journal_size_limit = {WAL_BYTES};
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA temp_store = MEMORY;
PRAGMA recursive_triggers = ON;
"""


def file_id(path: Path) -> FileId | None:
    """Return what tells one file from another under the same name, None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(
    path: Path, *, mode: str, wait: float, on_statement: Callable[[str], None] | None = None
) -> sqlite3.Connection:
    """Open `path` in SQLite's `mode`: "rw" (never made by accident) or "rwc"."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=wait,
        isolation_level=None,
        check_same_thread=False,  # so that Registry.close can close the connections of all threads
        cached_statements=256,
    )
    connection.row_factory = sqlite3.Row
    if on_statement is not None:
        connection.set_trace_callback(on_statement)
    try:
        connection.executescript(_PRAGMAS)
    except BaseException:
        connection.close()
        raise
    return connection


class Handle:
    """An open connection, and which file and process it belongs to."""

    __slots__ = ("connection", "file", "is_ours", "pid", "version")

    def __init__(self, path: Path, *, wait: float, on_statement: Callable[[str], None] | None) -> None:
        """Open the file.

        Raises:
            FileNotFoundError: it is not there.
            sqlite3.Error: SQLite cannot open or read it.
        """
        self.pid: Final = os.getpid()
        self.connection, self.file = _open_unmoved(path, wait, on_statement)
        try:
            self.version = schema_version(self.connection)
            (application,) = self.connection.execute("PRAGMA application_id").fetchone()
            self.is_ours = application == APPLICATION_ID
        except BaseException:
            self.connection.close()
            raise

    def __del__(self) -> None:
        if hasattr(self, "connection"):
            self.close()

    def close(self) -> None:
        if self.pid == os.getpid():  # a forked child leaves its parent's connections alone
            self.connection.close()

    def is_of(self, path: Path) -> bool:
        """Say whether this process opened it and the file under this name is still the same one."""
        return self.pid == os.getpid() and self.file == file_id(path)

    def prepare(self) -> None:
        """Make sure of the write-ahead log, and read the schema now rather than inside a lock."""
        self.connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self.connection.execute("SELECT 1 FROM sqlite_schema LIMIT 0").fetchall()

    def checkpoint(self) -> None:
        """Fold in what no reader needs; do not wait for readers, for one may be stopped."""
        (wait,) = self.connection.execute("PRAGMA busy_timeout").fetchone()
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {int(wait)}")

    @contextmanager
    def transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        """BEGIN, then COMMIT, or ROLLBACK on any exception."""
        self.connection.execute(begin)
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # SQLite ends it itself on a full disk, for one
                self.connection.execute("ROLLBACK")
            raise


def schema_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _open_unmoved(
    path: Path, wait: float, on_statement: Callable[[str], None] | None
) -> tuple[sqlite3.Connection, FileId]:
    """Open the file that stands at `path`, and be sure which one it was."""
    while True:
        before = file_id(path)
        if before is None:
            raise FileNotFoundError(path)
        connection = connect(path, mode="rw", wait=wait, on_statement=on_statement)
        if before == file_id(path):
            return connection, before
        connection.close()  # a rebuild put another one there just now
