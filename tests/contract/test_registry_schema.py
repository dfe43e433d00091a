"""Every registry that was ever written opens, and ends up like a new one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.errors import Infrastructure, RegistryCorrupt, RegistryTooNew
from headcount.store import schema, statements
from headcount.store.registry import Registry
from tests.support.forks import together
from tests.support.registries import TASK, registry, with_task

OLD = Path(__file__).parent.parent / "data" / "registry"
"""`v<n>.db` was written by the code that had n migrations; made by `scripts/keep_registry.py`."""


def schema_of(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
        ).fetchall()
        marks = [
            connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("user_version", "application_id", "journal_mode")
        ]
        return [*rows, *marks]
    finally:
        connection.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    (tmp_path / "fresh").mkdir()
    opened = registry(tmp_path / "fresh")
    with opened.read():
        pass
    opened.close()
    return Home(tmp_path / "fresh").registry


def test_a_new_registry_is_the_sum_of_the_migrations(fresh: Path, tmp_path: Path) -> None:
    summed = tmp_path / "sum.db"
    connection = sqlite3.connect(summed, isolation_level=None)
    for script in statements.migrations():
        connection.executescript(script)
    connection.close()
    assert schema_of(summed)[:-3] == schema_of(fresh)[:-3]
    assert schema_of(fresh)[-3:] == [(schema.newest(),), (0x48434E54,), ("wal",)]


@pytest.mark.parametrize("version", range(1, schema.newest() + 1))
def test_every_old_registry_opens_and_becomes_like_a_new_one(home: Path, fresh: Path, version: int) -> None:
    shutil.copyfile(OLD / f"v{version}.db", Home(home).registry)
    opened = registry(home)
    with opened.write("test") as tx:
        (task,) = tx.tasks.page(limit=9)
        assert task.task_id == TASK
        assert {run.state for run in tx.runs.page(TASK, all=True, limit=9)}
        assert tx.runs.live()
        assert tx.reports.page(limit=9)
        assert tx.findings.page(TASK, limit=9)
        tx.events.add("opened", now=1.0)
    assert opened.integrity() == []
    opened.close()
    assert schema_of(Home(home).registry) == schema_of(fresh)


LATER = "ALTER TABLE task ADD COLUMN colour TEXT; UPDATE task SET colour = 'blue';"


@pytest.fixture
def later(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let this process be a release with one more migration, over a registry of today's."""
    with_task(home).close()
    today = list(statements.migrations())

    def become(script: str) -> None:
        monkeypatch.setattr(schema, "migrations", lambda: [*today, script])

    return become


def version_of(path: Path) -> int:
    (version,) = schema_of(path)[-3]
    return int(str(version))


def test_a_registry_is_brought_up_to_date_once_by_all_at_once_after_a_copy(
    home: Path, later: Callable[[str], None]
) -> None:
    today = schema.newest()
    later(LATER)

    def use(me: int) -> int:
        opened = registry(home)
        with opened.write("test") as tx:
            tx.events.add("used", now=1.0)
        opened.close()
        return me

    assert together(10, use) == list(range(10))
    assert version_of(Home(home).registry) == today + 1
    (kept,) = Home(home).backups.iterdir()
    assert kept.name == f"before-migration-{today}.db"
    assert version_of(kept) == today


def test_a_process_of_the_release_before_is_refused_after_the_update(
    home: Path, later: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = registry(home)
    with before.read():
        pass
    later(LATER)
    with registry(home).read() as tx:
        assert tx.tasks.get(TASK) is not None
    monkeypatch.undo()
    with pytest.raises(RegistryTooNew), before.write("test"):
        pass
    before.close()


@pytest.mark.parametrize("script", ["ALTER TABLE task ADD COLUMN colour TEXT; SELECT * FROM nowhere;"])
def test_a_migration_that_fails_leaves_the_version_before_it(
    home: Path, later: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    was = schema_of(Home(home).registry)
    later(script)
    with pytest.raises(sqlite3.OperationalError), registry(home).read():
        pass
    assert schema_of(Home(home).registry) == was
    monkeypatch.undo()
    with registry(home).read() as tx:
        assert tx.tasks.get(TASK) is not None


@pytest.fixture
def newer(home: Path) -> Iterator[Registry]:
    opened = with_task(home)
    opened.close()
    change(Home(home).registry, f"PRAGMA user_version = {schema.newest() + 1}")
    yield opened
    opened.close()


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_a_newer_registry_is_refused_and_not_touched(home: Path, newer: Registry) -> None:
    before = Home(home).registry.read_bytes()
    for use in (newer.write("test"), newer.read()):
        with pytest.raises(RegistryTooNew, match=f"version {schema.newest() + 1}"), use:
            pass
    with pytest.raises(RegistryTooNew):
        newer.version()
    with pytest.raises(RegistryTooNew):
        newer.backup(home / "copy.db")
    assert Home(home).registry.read_bytes() == before
    assert newer.quarantined() is None


def test_a_registry_that_becomes_newer_while_it_is_open_is_refused(home: Path) -> None:
    opened = with_task(home)
    with opened.read():
        pass
    change(Home(home).registry, "PRAGMA user_version = 99")
    for use in (opened.write("test"), opened.read()):
        with pytest.raises(RegistryTooNew), use:
            pass
    opened.close()


@pytest.mark.parametrize("statement", ["CREATE TABLE mine (x)", f"PRAGMA user_version = {schema.newest()}"])
def test_a_database_of_another_program_is_refused_and_not_touched(home: Path, statement: str) -> None:
    change(Home(home).registry, statement)
    before = Home(home).registry.read_bytes()
    opened = registry(home)
    with pytest.raises(Infrastructure, match="not a registry") as refused, opened.read():
        pass
    assert not isinstance(refused.value, RegistryCorrupt)
    opened.close()
    assert opened.quarantined() is None
    assert before == Home(home).registry.read_bytes()


def test_a_registry_is_private_to_its_user(home: Path) -> None:
    opened = with_task(home)
    assert [path.stat().st_mode & 0o077 for path in home.glob("registry.*")] == [0, 0, 0, 0]
    opened.close()


def test_a_home_that_was_never_used_gets_a_registry_and_nothing_else(home: Path) -> None:
    opened = registry(home)
    with opened.read() as tx:
        assert tx.tasks.page(limit=9) == []
    assert opened.opens == 1
    opened.close()
    assert sorted(path.name for path in home.iterdir()) == ["registry.db", "registry.lock"]


def test_an_interrupted_creation_is_begun_again(home: Path) -> None:
    (home / "registry.db-new").write_bytes(b"half a registry")
    (home / "registry.db-new-journal").write_bytes(b"half a journal")
    with_task(home).close()
    assert sorted(path.name for path in home.iterdir()) == ["registry.db", "registry.lock"]


def test_nothing_is_opened_before_it_is_used(home: Path) -> None:
    opened = registry(home)
    assert opened.quarantined() is None
    assert opened.opens == 0
    assert list(home.iterdir()) == []
    opened.close()
