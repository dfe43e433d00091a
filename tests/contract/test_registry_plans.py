"""What a call costs depends on what is live and asked for, never on history: SQLite's own plans say so."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.store.statements import statements
from tests.support.registries import TASK, registry, with_task

HISTORY = {
    "run",
    "agent",
    "event",
    "report",
    "finding",
    "task",
    "idempotency_key",
    "call",
    "other",
    "child",
} | {"flag"}

BOUNDED_SCANS = {
    "events.since": "SEARCH",
    "runs.page_all": "SCAN agent",  # backwards by its number, and stops at the limit
    "runs.live": "SCAN run USING INDEX run_live",  # holds live rows only
    "runs.live_to_resume": "SCAN run USING INDEX run_live",
    "flags.open": "SCAN flag USING INDEX flag_open",  # holds open ones only
    "figures.flags_open": "SCAN flag USING INDEX flag_open",
    "flags.owed": "SCAN flag USING INDEX flag_undone",  # holds what is still to be done only
    "flags.forgo": "SCAN flag USING INDEX flag_undone",
    "flags.watched": "SCAN run USING INDEX run_live",
    "runs.page_live": "SCAN run USING INDEX run_live",
    "runs.holders": "SCAN run USING INDEX run_live",
    "runs.unaccounted": "SCAN run USING INDEX run_unaccounted",  # holds what is still to be done only
    "postmortems.live_at": "SCAN run USING INDEX run_live",
    "tasks.page": "SEARCH",
    "events.prune": "SCAN event",  # the collector's; it deletes what it reads
    "runs.keys": "SCAN run USING COVERING INDEX",  # doctor's and the collector's, who compare all with all
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    home = tmp_path_factory.mktemp("plans")
    opened = with_task(home)
    opened.close()
    made = sqlite3.connect(home / "registry.db", isolation_level=None)
    yield made
    made.close()


def plan(connection: sqlite3.Connection, text: str) -> list[str]:
    values = dict.fromkeys(re.findall(r":(\w+)", text), 1)
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]


@pytest.mark.parametrize("name", statements())
def test_no_statement_reads_history_that_it_is_not_asked_for(
    connection: sqlite3.Connection, name: str
) -> None:
    for step in plan(connection, statements()[name]):
        scanned = re.match(r"SCAN (\w+)", step)
        if scanned and scanned[1] in HISTORY:
            assert step.startswith(BOUNDED_SCANS.get(name, "nothing")), step


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("runs.live", "SCAN run USING INDEX run_live"),
        ("runs.holders", "SCAN run USING INDEX run_live"),
        ("runs.page_live", "SCAN run USING INDEX run_live"),
        ("runs.live_of_task", r"SEARCH run USING INDEX run_live_role \(task_id=\?\)"),
        ("runs.page_live_of_task", r"SEARCH run USING INDEX run_live_role \(task_id=\?\)"),
        ("runs.ended_before", r"SEARCH run USING INDEX run_over \(ended_at<\?\)"),
    ],
)
def test_a_statement_begins_with_what_it_is_about(
    connection: sqlite3.Connection, name: str, step: str
) -> None:
    first, second, *_ = [each for each in plan(connection, statements()[name]) if each.startswith("S")]
    assert re.fullmatch(step, first), first
    assert "agent USING" in second


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("runs.agents_of_task", r"SEARCH agent USING COVERING INDEX \w+ \(task_id=\?\)"),
        ("runs.by_token", r"SEARCH run USING INDEX run_token \(token_hash=\?\)"),
        ("runs.recent_children", r"SEARCH agent USING (COVERING )?INDEX agent_by_parent \(parent_id=\?\)"),
        ("events.refusals", r"SEARCH event USING INDEX event_refused \(task_id=\?\)"),
        ("events.since_of_task", r"SEARCH event USING INDEX event_by_task \(task_id=\? AND rowid>\?\)"),
        ("events.since_of_agent", r"SEARCH event USING INDEX event_by_agent \(agent_id=\? AND rowid>\?\)"),
        ("reports.latest_of_run", r"SEARCH report USING INDEX report_by_run \(agent_id=\? AND run=\?\)"),
        ("reports.recent", r"SEARCH report USING INDEX report_by_task \(task_id=\?\)"),
        ("findings.page", r"SEARCH finding USING INDEX finding_by_task \(task_id=\? AND rowid>\?\)"),
    ],
)
def test_a_statement_goes_by_its_index(connection: sqlite3.Connection, name: str, step: str) -> None:
    steps = plan(connection, statements()[name])
    assert any(re.fullmatch(step, each) for each in steps), steps


@pytest.mark.parametrize(
    "name",
    [
        "runs.page_all",
        "runs.page_all_of_task",
        "tasks.page",
        "tasks.page_of_state",
        "reports.latest",
        "reports.recent",
        "findings.recent",
        "events.since_of_task",
        "runs.ended_before",
        "runs.latest",
    ],
)
def test_a_page_is_not_sorted(connection: sqlite3.Connection, name: str) -> None:
    """A sort reads everything before the first row."""
    assert not [each for each in plan(connection, statements()[name]) if "TEMP B-TREE" in each]


def test_the_constraints_of_a_new_run_read_live_rows_only(connection: sqlite3.Connection) -> None:
    for trigger in ("run_role_is_free", "run_work_is_free"):
        (text,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", [trigger]).fetchone()
        found = re.search(r"EXISTS \((.*)\)\s*BEGIN", text, re.DOTALL)
        assert found is not None
        (first, *_) = [each for each in plan(connection, re.sub(r"NEW\.", ":", found[1])) if "run" in each]
        assert re.match(r"SEARCH run USING INDEX run_live_\w+ \(task_id=\?\)", first), first


def test_a_deploys_two_transactions_read_and_write_this_and_no_more(home: Path) -> None:
    """The statements that everything else queues behind; a new one must earn its place here."""
    from headcount.domain.model import RunKey
    from tests.support.registries import BOOT, confirm, new_run

    seen: list[str] = []
    opened = registry(home, on_statement=seen.append)
    with_task(home).close()
    with opened.write("deploy") as tx:
        tx.runs.admission(TASK, parent=None, role="a", work_hash=None, boot_id=BOOT, since_boottime=0.0)
        tx.runs.add(new_run("a-1"))
        tx.events.add("reserved", now=1.0)
    begun = seen[seen.index("BEGIN IMMEDIATE") :]
    first = [each.split()[0] for each in dict.fromkeys(begun)]  # a trigger names its statement once more
    assert first == ["BEGIN", "PRAGMA", "SELECT", "SELECT", "SELECT", "INSERT", "INSERT", "INSERT", "COMMIT"]
    seen.clear()
    with opened.write("confirm") as tx:
        confirm(tx, RunKey("a-1", 1))
        tx.events.add("confirmed", now=1.0)
    second = [each.split()[0] for each in dict.fromkeys(seen)]
    assert second == ["BEGIN", "PRAGMA", "UPDATE", "INSERT", "COMMIT"]
    assert opened.opens == 1
    opened.close()
