"""The registry: the only truth about what should run and what was seen."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headcount.domain.errors import HeadcountError, Infrastructure, RegistryCorrupt
from headcount.store import schema
from headcount.store.calls import Calls
from headcount.store.connection import Handle, schema_version
from headcount.store.events import Events
from headcount.store.faults import is_busy, is_corruption, machine_fault
from headcount.store.figures import Figures
from headcount.store.findings import Findings
from headcount.store.flags import Flags
from headcount.store.heartbeats import Heartbeats
from headcount.store.keys import IdempotencyKeys
from headcount.store.lock import WritersLock, busy, sqlite_holder
from headcount.store.messages import Messages
from headcount.store.notices import Notices
from headcount.store.postmortems import PostMortems
from headcount.store.quarantine import Quarantine, QuarantineDirectory
from headcount.store.reports import Reports
from headcount.store.runs import Runs
from headcount.store.session import Session
from headcount.store.tasks import Tasks
from headcount.store.worktrees import Worktrees


class Tx:
    """One transaction: the aggregates, all on the same snapshot."""

    __slots__ = (
        "calls",
        "events",
        "figures",
        "findings",
        "flags",
        "heartbeats",
        "keys",
        "messages",
        "notices",
        "postmortems",
        "reports",
        "runs",
        "tasks",
        "worktrees",
    )

    def __init__(self, connection: sqlite3.Connection) -> None:
        session = Session(connection)
        self.tasks: Final = Tasks(session)
        self.runs: Final = Runs(session)
        self.reports: Final = Reports(session)
        self.findings: Final = Findings(session)
        self.flags: Final = Flags(session)
        self.figures: Final = Figures(session)
        self.events: Final = Events(session)
        self.heartbeats: Final = Heartbeats(session)
        self.keys: Final = IdempotencyKeys(session)
        self.calls: Final = Calls(session)
        self.messages: Final = Messages(session)
        self.worktrees: Final = Worktrees(session)
        self.postmortems: Final = PostMortems(session)
        self.notices: Final = Notices(session)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild started from; `backup` None: from nothing but what `fill` knew."""

    quarantine: Quarantine
    backup: Path | None
    backup_at: float | None


class Registry:
    """One SQLite file for all processes of a user; safe in many threads and processes at once.

    Opens on first use, one connection for each thread. A connection is not used in a forked child, nor
    after its file was replaced.
    """

    def __init__(
        self,
        path: Path,
        lock_path: Path,
        *,
        quarantine: Path,
        backups: Path,
        clock: Callable[[], float],
        wait: float = 10.0,
        on_statement: Callable[[str], None] | None = None,
        traces: Path | None = None,
    ) -> None:
        """`wait` bounds every wait for other processes, in seconds; `clock` gives epoch seconds.

        `traces` is a directory in which nothing is before there is a registry: where something is, a
        registry that is not there is gone.

        `on_statement` gets the text of each SQL statement that is run, for tests that count.
        """
        self.opens = 0
        self.around: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext()
        """What stands around each transaction, read or write, of this process: it measures."""
        self._path: Final = path
        self._backups: Final = backups
        self._wait: Final = wait
        self._clock: Final = clock
        self._on_statement: Final = on_statement
        self._traces: Final = traces
        self._lock: Final = WritersLock(lock_path, wait=wait)
        self._cell: Final = QuarantineDirectory(quarantine, path)
        self._inherited: Final[list[Handle]] = []  # a parent's connections, kept from being closed
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        # By the thread itself, not by its number, which the next one may get while this one's is closed.
        self._handles: dict[threading.Thread, Handle] = {}
        self._watcher: Handle | None = None
        self._watched = 0
        self._mutex = threading.Lock()

    @contextmanager
    def write(self, purpose: str) -> Iterator[Tx]:
        """One write transaction: all of it, durably, or on any exception nothing of it.

        `purpose` is shown to those who wait. Act on nothing but the registry in here: others queue.

        Raises:
            RegistryBusy: another process wrote for the whole deadline.
            RegistryCorrupt, RegistryTooNew, Infrastructure: the registry cannot be used.
        """
        self._refuse_nesting()
        with self.around("write"), self._explained():
            self._handle(locked=False)  # opening takes milliseconds: not while others queue behind us
            with (
                self._lock.hold(purpose),
                self._transaction(self._handle(locked=True), "BEGIN IMMEDIATE") as tx,
            ):
                yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """One snapshot, which waits for nobody and nobody waits for.

        Raises:
            RegistryCorrupt, RegistryTooNew, Infrastructure: the registry cannot be used.
        """
        self._refuse_nesting()
        with (
            self.around("read"),
            self._explained(),
            self._transaction(self._handle(locked=False), "BEGIN") as tx,
        ):
            yield tx

    @contextmanager
    def _transaction(self, handle: Handle, begin: str) -> Iterator[Tx]:
        with handle.transaction(begin) as connection:
            # a newer Headcount may have changed the schema since this process opened the file
            schema.refuse_newer(schema_version(connection))
            yield Tx(connection)

    def version(self) -> int:
        """Return a number that is another one after any commit of any process since; for pollers.

        Comparable within this process only, from whatever thread.
        """
        with self._explained():
            self._notice_fork()
            with self._mutex:
                if self._watcher is None or not self._watcher.is_of(self._path):
                    with self._files():
                        self._watcher = self._open(locked=False)
                    self._watched += 1
                (version,) = self._watcher.connection.execute("PRAGMA data_version").fetchone()
                return self._watched << 32 | int(version)

    def integrity(self) -> list[str]:
        """Return what SQLite's check of the whole file finds wrong; [] if nothing."""
        self._refuse_nesting()
        with self._explained():
            return schema.check(self._handle(locked=False).connection)

    def backup(self, to: Path) -> None:
        """Write a checked copy to `to`, durably, all or nothing; writers go on meanwhile.

        Raises:
            RegistryCorrupt: the copy fails the check; `to` was not touched.
        """
        self._refuse_nesting()
        with self._explained(), self._files():
            self._save(self._handle(locked=False), to)

    def checkpoint(self) -> None:
        """Fold the log into the database file and shrink it to nothing, as far as readers allow."""
        self._refuse_nesting()
        with self._explained(), self._lock.hold("checkpoint"):
            self._handle(locked=True).checkpoint()

    def quarantined(self) -> Quarantine | None:
        """Return the quarantine in force, if any."""
        return self._cell.standing()

    def quarantine(self, why: str) -> Quarantine:
        """Set the registry's files aside and refuse every use of it until `rebuild`; once only."""
        self._refuse_nesting()
        with self._lock.hold("quarantine"), self._files():
            return self._cell.standing() or self._cell.impose(why, self._clock())

    def rebuild(self, fill: Callable[[Tx], None]) -> Rebuilt:
        """Make the registry anew from the last good backup, or from nothing, and from what `fill` adds.

        What stood there before is kept in the quarantine. Killed, or failed in `fill`, the registry is
        still closed and this can be done again. Event numbers go on above all that were given out.
        """
        self._refuse_nesting()
        with self._explained(), self._lock.hold("rebuild"):
            with self._files():
                standing = self._cell.standing() or self._cell.impose(
                    "a rebuild was asked for", self._clock()
                )
                self._cell.finish(standing)
                backup = self._last_good_backup()
            with schema.new_file(self._path, source=backup, on_statement=self._on_statement) as connection:
                connection.execute("BEGIN IMMEDIATE")
                tx = Tx(connection)
                # above any number that a journal of less than one event a second can have reached
                tx.events.skip_to(int(self._clock()))
                fill(tx)
                connection.execute("COMMIT")
            self._cell.lift()
            return Rebuilt(standing, backup, None if backup is None else backup.stat().st_mtime)

    def close(self) -> None:
        """Close the connections of all threads of this process; the next use opens again."""
        self._notice_fork()
        with self._mutex:
            for handle in (*self._handles.values(), *([self._watcher] if self._watcher else [])):
                handle.close()
            self._handles.clear()
            self._watcher = None

    def _handle(self, *, locked: bool) -> Handle:
        """Return this thread's connection to the file that stands there now."""
        self._notice_fork()
        thread = threading.current_thread()
        handle = self._handles.get(thread)
        if handle is None or not handle.is_of(self._path):
            self._close_stale(thread)
            with self._files():
                handle = self._handles[thread] = self._open(locked=locked)
        elif standing := self._cell.standing():
            raise standing.error()
        return handle

    def _open(self, *, locked: bool) -> Handle:
        """Open the file; make it, or bring it up to date, if need be, under the writers' lock."""
        if standing := self._cell.standing():
            raise standing.error()
        try:
            handle = Handle(self._path, wait=self._wait, on_statement=self._on_statement)
        except FileNotFoundError:
            return self._locked_open(self._create, locked=locked)
        self.opens += 1
        if handle.version == schema.newest() and handle.is_ours:
            handle.prepare()
            return handle
        handle_of_older = handle
        return self._locked_open(lambda: self._update(handle_of_older), locked=locked)

    def _locked_open(self, prepare: Callable[[], None], *, locked: bool) -> Handle:
        if not locked:
            with self._lock.hold("open"):
                return self._locked_open(prepare, locked=True)
        prepare()
        return self._open(locked=True)

    def _create(self) -> None:
        """Make an empty registry, unless there has been one: it never goes on empty."""
        if self._path.exists():
            return  # another process was faster
        if self._cell.standing() is None and self._has_been():
            self._cell.impose("its file is gone", self._clock())
        if standing := self._cell.standing():
            raise standing.error()
        with schema.new_file(self._path, on_statement=self._on_statement):
            pass

    def _has_been(self) -> bool:
        """Say whether there are signs of an earlier registry."""
        if any(self._backups.glob("*.db")):
            return True
        return self._traces is not None and self._traces.is_dir() and any(self._traces.iterdir())

    def _update(self, handle: Handle) -> None:
        """Apply the migrations that are missing, after a copy of the file as it was."""
        try:
            version = schema_version(handle.connection)  # another process may have been faster
            schema.refuse_newer(version)
            if not handle.is_ours:
                raise self._not_ours(handle)
            if version < schema.newest():
                self._save(handle, self._backups / f"before-migration-{version}.db")
                schema.migrate(handle.connection)
        finally:
            handle.close()

    def _save(self, handle: Handle, to: Path) -> None:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if found := schema.save_copy(handle.connection, to):
            raise RegistryCorrupt(
                f"the registry {self._path} fails its check: {found[0]}",
                hint="run 'headcount doctor', then 'headcount repair --rebuild'",
            )

    def _not_ours(self, handle: Handle) -> HeadcountError:
        """Return what to say of a file without our mark: emptied, or of another program."""
        (pages,) = handle.connection.execute("PRAGMA page_count").fetchone()
        if pages == 0:
            handle.close()
            return self._cell.impose("its file is empty", self._clock()).error()
        return Infrastructure(
            f"{self._path} is not a registry of Headcount",
            hint="move it away, or set HEADCOUNT_HOME to another directory",
        )

    def _last_good_backup(self) -> Path | None:
        """Return the newest backup that can be read, passes its check and is not of a later version."""
        found = sorted(self._backups.glob("*.db"), key=lambda path: path.stat().st_mtime, reverse=True)
        return next((path for path in found if _is_good(path)), None)

    def _notice_fork(self) -> None:
        """In a forked child, leave the parent's connections alone: not used, not closed."""
        if self._pid != os.getpid():
            self._inherited.extend(self._handles.values())
            if self._watcher is not None:
                self._inherited.append(self._watcher)
            self._start_process()

    def _refuse_nesting(self) -> None:
        """A second transaction in the same thread would wait for the first until the deadline."""
        handle = self._handles.get(threading.current_thread())
        if handle is not None and handle.pid == os.getpid() and handle.connection.in_transaction:
            raise RuntimeError("this thread has a transaction open")

    def _close_stale(self, thread: threading.Thread) -> None:
        """Close this thread's old connection and those of threads that are over."""
        with self._mutex:
            for each in list(self._handles):
                if each is thread or not each.is_alive():
                    self._handles.pop(each).close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours; faults of our own SQL go on as they are."""
        try:
            yield
        except sqlite3.Error as error:
            if is_corruption(error):
                raise self._condemn(error) from error
            if is_busy(error):
                raise busy(sqlite_holder(self._path), self._wait) from error
            if fault := machine_fault(error, self._path):
                standing = self._cell.standing()  # then it is that another process has moved the files
                raise (standing.error() if standing else fault) from error
            raise

    @contextmanager
    def _files(self) -> Iterator[None]:
        """Turn the system's errors into ours where we touch files; never around a caller's code."""
        try:
            yield
        except OSError as error:
            raise Infrastructure(
                f"the registry {self._path} cannot be used: {error.strerror or error}",
                hint="check that you can write to its directory, or set HEADCOUNT_HOME",
            ) from error

    def _condemn(self, error: sqlite3.Error) -> HeadcountError:
        """Quarantine the file if a second look, under the lock, finds it damaged too."""
        with self._lock.hold("quarantine"), self._files():
            self._close_stale(threading.current_thread())
            if standing := self._cell.standing():
                return standing.error()
            if _is_damaged(self._path, wait=self._wait):
                return self._cell.impose(str(error), self._clock()).error()
        return Infrastructure(
            f"the registry {self._path} gave an error ({error}) that a second look did not find",
            hint="try again; if it comes back, check the disk and run 'headcount doctor'",
        )


def _is_damaged(path: Path, *, wait: float) -> bool:
    """Look at the whole file through a new connection. Only a finding or a corruption error counts."""
    try:
        with closing(Handle(path, wait=wait, on_statement=None)) as handle:
            found = handle.connection.execute("PRAGMA integrity_check(1)").fetchone()
    except FileNotFoundError:
        return False
    except sqlite3.Error as error:
        if is_corruption(error):
            return True
        raise
    return tuple(found) != ("ok",)


def _is_good(backup: Path) -> bool:
    try:
        connection = sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        return False
    try:
        good = 1 <= schema_version(connection) <= schema.newest()
        return good and not schema.check(connection)
    except sqlite3.Error:
        return False
    finally:
        connection.close()
