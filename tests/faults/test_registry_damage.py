"""A damaged registry is set aside once, named, and never goes on empty."""

# the transaction is what raises; what is in it is the one statement
from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.errors import Infrastructure, RegistryCorrupt
from headcount.domain.model import RunKey
from headcount.store.connection import WAL_BYTES
from headcount.store.registry import Registry, Tx
from tests.support.forks import child, together
from tests.support.registries import TASK, confirm, end, new_run, registry, task, with_task

PAGE = 4096


def filled(home: Path) -> None:
    """Write a registry of many pages, all in the database file; those of the schema are a small part."""
    opened = with_task(home)
    with opened.write("fill") as tx:
        for number in range(300):
            tx.runs.add(new_run(f"builder-{number:03}", prompt="p" * 200))
            tx.events.add("added", now=1.0, data={"pad": "x" * 1000})
    opened.close()
    assert not Path(f"{Home(home).registry}-wal").exists()


def overwrite(path: Path, first: int, last: int) -> None:
    """Put noise over pages, from another process: closing the file here would drop SQLite's locks."""
    code = (
        f"f = open({str(path)!r}, 'r+b'); f.seek({first * PAGE}); "
        f"f.write(b'\\xa5' * {(last - first) * PAGE}); f.close()"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def middle(path: Path) -> None:
    pages = path.stat().st_size // PAGE
    overwrite(path, pages // 3, 2 * pages // 3)


def beginning(path: Path) -> None:
    overwrite(path, 0, 1)


def read_all(opened: Registry) -> None:
    with opened.read() as tx:
        tx.runs.live()
        tx.events.since(0, limit=10_000)
        for number in range(300):
            tx.runs.get(f"builder-{number:03}")


@pytest.mark.parametrize("damage", [middle, beginning])
def test_a_damaged_registry_is_quarantined_whole_and_refused_from_then_on(
    home: Path, damage: Callable[[Path], None]
) -> None:
    filled(home)
    damage(Home(home).registry)
    size = Home(home).registry.stat().st_size
    opened = registry(home)
    with pytest.raises(RegistryCorrupt) as corrupt:
        read_all(opened)
    found = opened.quarantined()
    assert found is not None
    assert str(found.path) in corrupt.value.message
    assert "headcount repair --rebuild" in corrupt.value.hint
    assert (found.path / "registry.db").stat().st_size == size
    assert not Home(home).registry.exists()
    for use in (opened.write("test"), opened.read(), registry(home).write("test")):
        with pytest.raises(RegistryCorrupt, match="damaged"), use:
            pass
    with pytest.raises(RegistryCorrupt):
        opened.version()
    assert not Home(home).registry.exists(), "it went on empty"
    opened.close()


def test_ten_processes_that_meet_the_damage_quarantine_it_once(home: Path) -> None:
    filled(home)
    middle(Home(home).registry)

    def meet(me: int) -> str:
        opened = registry(home)
        try:
            if me % 2:
                read_all(opened)
            else:
                with opened.write("test") as tx:
                    tx.events.since(0, limit=10_000)
                    tx.runs.live()
        except RegistryCorrupt as corrupt:
            return corrupt.message
        finally:
            opened.close()
        return "unnoticed"

    answers = Counter(together(10, meet))
    assert len(answers) == 1
    assert "unnoticed" not in answers
    assert len([path for path in Home(home).quarantine.iterdir() if path.is_dir()]) == 1


def test_damage_met_inside_a_write_transaction_is_quarantined(home: Path) -> None:
    filled(home)
    middle(Home(home).registry)
    opened = registry(home)
    with pytest.raises(RegistryCorrupt), opened.write("test") as tx:
        tx.events.since(0, limit=10_000)
    assert opened.quarantined() is not None
    opened.close()


def test_an_error_that_a_second_look_does_not_confirm_quarantines_nothing(home: Path) -> None:
    filled(home)
    opened = registry(home)

    def complain(_: str) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with opened.read() as tx:
        tx.events.last()
    with pytest.raises(Infrastructure, match="second look") as told, opened.read():
        complain("")
    assert not isinstance(told.value, RegistryCorrupt)
    assert opened.quarantined() is None
    read_all(opened)
    opened.close()


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL]
)
def test_no_other_error_is_ever_taken_for_damage(home: Path, code: int) -> None:
    filled(home)
    middle(Home(home).registry)  # there is damage, but it is not what the error says
    opened = registry(home, wait=0.1)
    error = sqlite3.OperationalError("something")
    error.sqlite_errorcode = code
    with pytest.raises(Infrastructure) as told, opened.read():
        raise error
    assert not isinstance(told.value, RegistryCorrupt)
    assert opened.quarantined() is None
    opened.close()


def test_an_emptied_file_is_quarantined(home: Path) -> None:
    filled(home)
    os.truncate(Home(home).registry, 0)
    with pytest.raises(RegistryCorrupt, match="empty"), registry(home).write("test"):
        pass
    assert registry(home).quarantined() is not None


def test_a_registry_that_is_gone_while_a_backup_stands_is_not_begun_again(home: Path) -> None:
    filled(home)
    opened = registry(home)
    opened.backup(Home(home).backups / "one.db")
    opened.close()
    Home(home).registry.unlink()
    with pytest.raises(RegistryCorrupt, match="gone"), opened.read():
        pass
    opened.rebuild(lambda tx: None)
    read_all(opened)
    opened.close()


def test_silent_damage_is_told_by_the_check_and_never_backed_up(home: Path) -> None:
    filled(home)
    kept = Home(home).backups / "one.db"
    opened = registry(home)
    opened.backup(kept)
    opened.close()
    good = kept.read_bytes()
    with sqlite3.connect(Home(home).registry) as connection:  # its values are not of their type any more
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'max_live    INTEGER', 'max_live    TEXT')"
        )
    connection.close()
    assert opened.integrity() != []
    with pytest.raises(RegistryCorrupt, match="check"):
        opened.backup(kept)
    assert kept.read_bytes() == good
    assert sorted(path.name for path in kept.parent.iterdir()) == ["one.db"]
    opened.close()


# ------------------------------------------------------------------ rebuild


def condemned(home: Path, *, backup: bool) -> Registry:
    filled(home)
    opened = registry(home)
    if backup:
        opened.backup(Home(home).backups / "one.db")
    with opened.write("after the backup") as tx:
        tx.runs.add(new_run("late-1"))
        tx.events.add("late", now=2.0)
    opened.quarantine("for a test")
    return opened


def test_a_rebuild_begins_with_the_last_backup_and_opens_the_registry_again(home: Path) -> None:
    opened = condemned(home, backup=True)
    quarantined = opened.quarantined()

    def fill(tx: Tx) -> None:
        assert len(tx.runs.live()) == 300
        tx.runs.add(new_run("late-1"))

    done = opened.rebuild(fill)
    assert done.backup == Home(home).backups / "one.db"
    assert done.quarantine == quarantined
    assert opened.quarantined() is None
    with opened.write("test") as tx:
        assert len(tx.runs.live()) == 301
        assert tx.events.add("rebuilt", now=3.0) > 1_000_000_000  # above all cursors that were given out
        assert [event.kind for event in tx.events.since(301, limit=9)] == ["rebuilt"]
    assert opened.integrity() == []
    opened.close()


def test_a_rebuild_without_a_backup_begins_with_nothing(home: Path) -> None:
    opened = condemned(home, backup=False)

    def fill(tx: Tx) -> None:
        tx.tasks.add(task())
        tx.runs.add(new_run("builder-1"))
        confirm(tx, RunKey("builder-1", 1))

    assert opened.rebuild(fill).backup is None
    with opened.read() as tx:
        assert [run.key.agent_id for run in tx.runs.live()] == ["builder-1"]
    opened.close()


def test_a_rebuild_that_fails_leaves_the_registry_closed_and_can_be_done_again(home: Path) -> None:
    opened = condemned(home, backup=True)
    with pytest.raises(ZeroDivisionError):
        opened.rebuild(lambda tx: print(1 / 0))
    assert opened.quarantined() is not None
    assert not Home(home).registry.exists()
    with pytest.raises(RegistryCorrupt), opened.read():
        pass
    opened.rebuild(lambda tx: None)
    read_all(opened)
    assert sorted(path.name for path in home.glob("registry.db*")) == [
        "registry.db",
        "registry.db-shm",
        "registry.db-wal",
    ]
    opened.close()


def test_a_rebuild_that_is_killed_can_be_done_again(home: Path) -> None:
    opened = condemned(home, backup=True)
    opened.close()

    def rebuild(pipe: int) -> None:
        def die(tx: Tx) -> None:
            tx.events.add("half", now=1.0)
            os.kill(os.getpid(), 9)

        registry(home).rebuild(die)

    with child(rebuild) as (_, pipe):
        assert os.read(pipe, 1) == b""
    assert opened.quarantined() is not None
    opened.rebuild(lambda tx: None)
    with opened.read() as tx:
        assert "half" not in {event.kind for event in tx.events.since(0, limit=1000)}
    opened.close()


def test_a_quarantine_that_is_killed_between_marker_and_move_is_finished_by_the_rebuild(home: Path) -> None:
    opened = condemned(home, backup=False)
    quarantined = opened.quarantined()
    assert quarantined is not None
    shutil.move(quarantined.path / "registry.db", Home(home).registry)  # as if it had not been moved yet
    with pytest.raises(RegistryCorrupt), opened.write("test"):
        pass
    opened.rebuild(lambda tx: tx.tasks.add(task()))
    assert (quarantined.path / "registry.db").exists()
    with opened.read() as tx:
        assert tx.runs.live() == []
        assert tx.tasks.get(TASK) is not None
    opened.close()


def test_a_bad_backup_is_passed_over(home: Path) -> None:
    opened = condemned(home, backup=True)
    one = Home(home).backups / "one.db"
    broken, foreign, newer = (one.with_name(f"{name}.db") for name in ("broken", "foreign", "newer"))
    broken.write_bytes(one.read_bytes())
    middle(broken)
    foreign.write_bytes(b"not a database" * 100)
    newer.write_bytes(one.read_bytes())
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for number, path in enumerate([one, foreign, newer, broken]):
        os.utime(path, (1000 + number, 1000 + number))
    assert opened.rebuild(lambda tx: None).backup == one
    opened.close()


def test_other_processes_notice_that_the_file_was_replaced(home: Path) -> None:
    filled(home)
    other = registry(home)
    with other.write("test") as tx:
        tx.events.add("before", now=1.0)
    before = other.version()

    def rebuild(pipe: int) -> None:
        mine = registry(home)
        mine.rebuild(lambda tx: tx.tasks.add(task("task-new")))
        mine.close()

    with child(rebuild) as (_, pipe):
        assert os.read(pipe, 1) == b""
    assert other.version() != before
    with other.write("test") as tx:
        assert [each.task_id for each in tx.tasks.page(limit=9)] == ["task-new"]
        tx.events.add("after", now=1.0)
    other.close()
    fresh = registry(home)
    with fresh.read() as tx:
        assert [event.kind for event in tx.events.since(0, limit=9)] == ["after"]
    assert fresh.integrity() == []
    fresh.close()


def test_a_connection_to_the_replaced_file_does_no_harm_when_it_closes(home: Path) -> None:
    """It is the last on its file, so SQLite would fold and delete the log, by its name."""
    filled(home)
    old = registry(home)
    with old.write("test") as tx:
        tx.events.add("old", now=1.0)

    def rebuild(pipe: int) -> None:
        mine = registry(home)
        mine.rebuild(lambda tx: tx.tasks.add(task()))
        with mine.write("test") as tx:
            tx.runs.add(new_run("builder-1"))
        os.write(pipe, b".")
        while True:
            with mine.write("go on") as tx:
                seq = tx.events.add("k", now=1.0)
            os.write(pipe, seq.to_bytes(8, "big"))

    with child(rebuild) as (_, pipe):
        os.read(pipe, 1)
        old.close()
        heard = b""
        while len(heard) < 80:
            heard += os.read(pipe, 8)
    fresh = registry(home)
    with fresh.read() as tx:
        assert [run.key.agent_id for run in tx.runs.live()] == ["builder-1"]
        assert tx.events.last() >= int.from_bytes(heard[72:80], "big")
    assert fresh.integrity() == []
    fresh.close()


def test_a_rebuild_that_is_asked_for_without_damage_keeps_what_was_there(home: Path) -> None:
    filled(home)
    opened = registry(home)
    done = opened.rebuild(lambda tx: tx.tasks.add(task()))
    kept = sqlite3.connect(f"{(done.quarantine.path / 'registry.db').as_uri()}?mode=ro", uri=True)
    assert kept.execute("SELECT count(*) FROM run").fetchone() == (300,)
    kept.close()
    opened.close()


# ------------------------------------------------------------------ backup


def test_a_backup_is_one_whole_file_and_replaces_the_one_before(home: Path) -> None:
    filled(home)
    to = Home(home).backups / "registry.db"
    opened = registry(home)
    opened.backup(to)
    with opened.write("test") as tx:
        end(tx, RunKey("builder-000", 1))
        with_more = tx.events.add("more", now=1.0)
    opened.backup(to)
    assert [path.name for path in to.parent.iterdir()] == ["registry.db"]
    assert to.stat().st_mode & 0o077 == 0
    connection = sqlite3.connect(f"{to.as_uri()}?mode=ro&immutable=1", uri=True)
    assert connection.execute("SELECT max(seq) FROM event").fetchone() == (with_more,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    opened.close()


def test_a_backup_is_taken_while_others_write(home: Path) -> None:
    filled(home)

    def write_for_ever(pipe: int) -> None:
        mine = registry(home)
        while True:
            with mine.write("write") as tx:
                for _ in range(2):
                    tx.events.add("pair", now=1.0)
            os.write(pipe, b".")

    opened = registry(home)
    with child(write_for_ever) as (_, pipe):
        os.read(pipe, 1)
        for number in range(5):
            to = Home(home).backups / f"{number}.db"
            opened.backup(to)
            connection = sqlite3.connect(f"{to.as_uri()}?mode=ro", uri=True)
            (pairs,) = connection.execute("SELECT count(*) FROM event WHERE kind = 'pair'").fetchone()
            connection.close()
            assert pairs >= 2
            assert pairs % 2 == 0
    opened.close()


def test_a_checkpoint_leaves_no_log(home: Path) -> None:
    filled(home)
    opened = registry(home)
    with opened.write("test") as tx:
        tx.events.add("k", now=1.0)
    log = Path(f"{Home(home).registry}-wal")
    assert log.stat().st_size > 0
    opened.checkpoint()
    assert log.stat().st_size == 0
    opened.close()


def test_a_checkpoint_does_not_wait_for_a_reader(home: Path) -> None:
    filled(home)
    opened = registry(home)
    reader = registry(home)
    with reader.read() as tx:
        before = tx.events.last()
        with opened.write("test") as their:
            their.events.add("k", now=1.0)
        began = time.monotonic()
        opened.checkpoint()
        assert time.monotonic() - began < 5  # the deadline is 10
        assert tx.events.last() == before
    reader.close()
    opened.close()


def test_the_log_shrinks_after_a_large_transaction(home: Path) -> None:
    filled(home)
    opened = registry(home)
    log = Path(f"{Home(home).registry}-wal")
    with opened.write("large") as tx:
        for _ in range(200):
            tx.events.add("k", now=1.0, data={"pad": "x" * 100_000})
    assert log.stat().st_size > 4 * WAL_BYTES
    for _ in range(3):  # a checkpoint, a log begun anew
        with opened.write("small") as tx:
            tx.events.add("k", now=1.0)
    assert log.stat().st_size <= WAL_BYTES
    opened.close()
