"""Making a registry's file and bringing an older one up to date, under the writers' lock."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headcount.domain.errors import RegistryTooNew
from headcount.store.connection import APPLICATION_ID, connect, schema_version
from headcount.store.statements import migrations


def newest() -> int:
    """Return the schema version that this Headcount writes."""
    return len(migrations())


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the migrations that are missing, each in a transaction of its own.

    Raises:
        RegistryTooNew: the file is of a later version; it was not touched.
    """
    for version, script in enumerate(migrations(), start=1):
        if schema_version(connection) < version:
            try:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID};"
                    f"PRAGMA user_version = {version}; COMMIT;"
                )
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    refuse_newer(schema_version(connection))


def refuse_newer(version: int) -> None:
    """Raise RegistryTooNew if `version` is later than ours."""
    if version > newest():
        raise RegistryTooNew(
            f"the registry has schema version {version}, this Headcount knows {newest()}",
            hint="use the newer Headcount that wrote it, or set HEADCOUNT_HOME to another directory",
        )


@contextmanager
def new_file(
    path: Path, *, source: Path | None = None, on_statement: Callable[[str], None] | None = None
) -> Iterator[sqlite3.Connection]:
    """Make a registry beside `path`, empty or from the copy `source`, and put it there when it is whole.

    So a file that stands at `path` is always complete. Killed in here, only the unfinished file is left,
    which the next call removes.
    """
    aside = path.with_name(f"{path.name}-new")
    _remove(aside)
    connection = connect(aside, mode="rwc", wait=0, on_statement=on_statement)
    try:
        os.chmod(aside, 0o600)
        if source is not None:
            copy(source, connection)
        connection.execute("PRAGMA journal_mode = MEMORY")  # nobody reads it yet
        migrate(connection)
        yield connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        _sync(aside)
        os.replace(aside, path)
        sync_directory(path.parent)
    finally:
        connection.close()
        _remove(aside)


def copy(source: Path, into: sqlite3.Connection) -> None:
    """Copy a database file that nobody writes."""
    opened = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
    try:
        opened.backup(into)
    finally:
        opened.close()


def save_copy(connection: sqlite3.Connection, to: Path) -> list[str]:
    """Write a copy of a database in use, in one file, durably and all or nothing.

    Returns what a check of the copy found; if that is anything, `to` was not touched.
    """
    aside = to.with_name(f"{to.name}-new")
    _remove(aside)
    target = connect(aside, mode="rwc", wait=0)
    try:
        os.chmod(aside, 0o600)
        connection.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, readable without a log beside it
        if found := check(target):
            return found
        target.close()
        _sync(aside)
        os.replace(aside, to)
        sync_directory(to.parent)
        return []
    finally:
        target.close()
        _remove(aside)


def check(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite's own check finds wrong, at most 20 lines; [] if nothing."""
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(20)")]
    return [] if found == ["ok"] else found


def _remove(aside: Path) -> None:
    for name in (aside, *(aside.with_name(aside.name + end) for end in ("-wal", "-shm", "-journal"))):
        with suppress(FileNotFoundError):
            name.unlink()


def _sync(path: Path) -> None:
    """Make a file durable that no connection has open (closing it here drops locks on it)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    _sync(path)
