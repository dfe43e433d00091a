"""The SQL files: what stands in them agrees with the code and with the domain."""

import re
import sqlite3
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

import headcount.store
from headcount.domain.lifecycle import LIVE, Change, Outcome, State, sources
from headcount.domain.model import Isolation, ReportStatus, Severity, TaskState, WorktreeState
from headcount.store import runs
from headcount.store.statements import SQL, migrations, statements

STORE = Path(headcount.store.__file__).parent


@pytest.fixture
def schema() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for script in migrations():
        connection.executescript(script)
    yield connection
    connection.close()


def test_every_statement_says_what_it_guarantees() -> None:
    for path in SQL.glob("*.sql"):
        for name, *lines in re.findall(r"^-- name: (\w+)\n((?:-- .*\n)*)", path.read_text(), re.MULTILINE):
            said = " ".join(line.removeprefix("-- ") for line in "".join(lines).splitlines())
            assert re.fullmatch(r"[A-Z].+\.", said), f"{path.stem}.{name}"


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    code = "\n".join(path.read_text() for path in STORE.glob("*.py"))
    parts = "|".join(path.stem for path in SQL.glob("*.sql"))
    used = set(re.findall(rf'"((?:{parts})\.\w+)"', code))
    used |= {f"runs.page_{what}{where}" for what in ("all", "live") for where in ("", "_of_task")}
    assert used == set(statements())


def test_every_statement_is_valid_sql_for_the_schema(schema: sqlite3.Connection) -> None:
    for name, text in statements().items():
        values = dict.fromkeys(re.findall(r":(\w+)", text))
        assert schema.execute(f"EXPLAIN {text}", values).fetchall(), name


def test_the_statements_are_read_in_two_milliseconds() -> None:
    statements.__wrapped__()  # the files are in the system's cache then

    def took() -> float:
        before = time.perf_counter()
        statements.__wrapped__()
        return time.perf_counter() - before

    assert min(took() for _ in range(20)) < 0.002


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("task", "state", TaskState),
        ("run", "state", State),
        ("run", "outcome", Outcome),
        ("report", "status", ReportStatus),
        ("finding", "severity", Severity),
        ("agent", "isolation", Isolation),
        ("worktree", "state", WorktreeState),
    ],
)
def test_the_words_in_sql_are_the_words_in_python(
    schema: sqlite3.Connection, table: str, column: str, words: type[StrEnum]
) -> None:
    (text,) = schema.execute("SELECT sql FROM sqlite_schema WHERE name = ?", [table]).fetchone()
    found = re.search(rf"CHECK \({column} IN\s*\(([^)]*)\)", text)
    assert found is not None
    assert re.findall(r"'(\w+)'", found[1]) == [each.value for each in words]


def test_what_is_live_in_sql_is_live_in_python(schema: sqlite3.Connection) -> None:
    (text,) = schema.execute("SELECT sql FROM sqlite_schema WHERE name = 'run'").fetchone()
    found = re.search(r"GENERATED ALWAYS AS \(state IN \(([^)]*)\)", text)
    assert found is not None
    assert set(re.findall(r"'(\w+)'", found[1])) == LIVE


@pytest.mark.parametrize("change", Change)
def test_the_statements_have_room_for_every_source_state(change: Change) -> None:
    assert 1 <= len(sources(change)) <= runs._FROM_MAX


def test_all_tables_are_strict(schema: sqlite3.Connection) -> None:
    rows = schema.execute("PRAGMA table_list").fetchall()
    loose = [row[1] for row in rows if row[2] == "table" and not row[5] and not row[1].startswith("sqlite_")]
    assert rows
    assert loose == []


def test_a_migration_is_never_changed_once_it_is_kept() -> None:
    """The list holds each migration that has an old database in tests/data; it is only added to."""
    import hashlib

    kept = Path(__file__).parent.parent / "data" / "registry" / "migrations.sha256"
    for line in kept.read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((SQL / "migrations" / name).read_bytes()).hexdigest() == digest, name
