"""Each kind of disagreement between registry and machine: listed, left by a dry run, mended, and gone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.model import RunKey
from headcount.services import stop
from headcount.services.answers import Deployed, Health
from tests.support.fleets import alive, clear, fleet, live_runs, new_task, sleeper
from tests.support.waiting import until


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as made:
        yield made


def _kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), what=f"the end of {pid}")


def _older(home: Path) -> Path:
    return home.parent / "older.db"


def _copy(home: Path) -> None:
    """Keep a copy of the registry as it is, with SQLite's own means."""
    source, copy = sqlite3.connect(home / "registry.db"), sqlite3.connect(_older(home))
    source.backup(copy)
    source.close()
    copy.close()


def _put_back(home: Path, opened: Headcount) -> None:
    """Put the older copy in the registry's place, as somebody does who thinks that it helps."""
    opened.close()
    for each in home.glob("registry.db-*"):
        each.unlink()
    _older(home).rename(home / "registry.db")


def ghost(home: Path, opened: Headcount, made: Deployed) -> None:
    _kill(made.runner_pid)
    until(lambda: not alive(made.pid), what="the agent's end, with its runner's")


def earlier_boot(home: Path, opened: Headcount, made: Deployed) -> None:
    _kill(made.runner_pid)
    until(lambda: not alive(made.pid), what="the agent's end, with its runner's")
    until(lambda: not alive(made.pid), what="the agent goes with its runner")
    record = home / "live" / live_runs(home)[0] / "start.json"
    facts = json.loads(record.read_text())
    for process in ("runner", "process"):
        facts[process]["boot_id"] = "0" * 32
    record.write_text(json.dumps(facts))


def stop_not_sent(home: Path, opened: Headcount, made: Deployed) -> None:
    with opened.context.registry.write("a stop whose sender dies") as tx:
        stop.mark(opened.context, tx, RunKey(made.agent_id, 1), made.task_id, "enough")


def stray(home: Path, opened: Headcount, made: Deployed) -> None:
    _put_back(home, opened)


def rowless(home: Path, opened: Headcount, made: Deployed) -> None:
    _kill(made.runner_pid)
    until(lambda: not alive(made.pid), what="the agent's end, with its runner's")
    _put_back(home, opened)


def deleted(home: Path, opened: Headcount, made: Deployed) -> None:
    """Delete the run directory of an agent that is over."""
    mark = home / "live" / live_runs(home)[0]
    path = mark.resolve()
    _kill(made.runner_pid)
    until(lambda: not alive(made.pid), what="the agent's end, with its runner's")
    until(lambda: not alive(made.pid), what="the agent goes with its runner")
    mark.unlink()
    for each in path.iterdir():
        each.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    ("harm", "kind", "action"),
    [
        (ghost, "ghosts", "record_lost"),
        (earlier_boot, "earlier_boot", "record_lost"),
        (stop_not_sent, "unfinished", "send_stop"),
        (stray, "strays", "kill_stray"),
        (rowless, "rowless", "unmark"),
        (deleted, "ghosts", "record_lost"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_it_is_listed_and_a_dry_run_does_nothing_and_a_repair_mends_it(
    home: Path,
    opened: Headcount,
    tmp_path: Path,
    harm: Callable[[Path, Headcount, Deployed], None],
    kind: str,
    action: str,
) -> None:
    task = new_task(opened, tmp_path)
    _copy(home)
    made = sleeper(opened, task)
    harm(home, opened, made)
    before = (alive(made.pid), live_runs(home))

    def listed(health: Health) -> list[str]:
        return [each.action for each in getattr(health, kind)]

    assert listed(opened.registry_health_check()) == [action]
    assert not opened.doctor().healthy
    plan = opened.validate_and_repair_registry()
    assert (listed(plan), plan.done, plan.dry_run) == ([action], (), True)
    assert (alive(made.pid), live_runs(home)) == before

    done = opened.validate_and_repair_registry(dry_run=False)
    assert action in {each.action for each in done.done}
    until(lambda: not alive(made.pid), what="nothing of it is left")
    opened.validate_and_repair_registry(dry_run=False)  # a stop that was sent again has been recorded
    assert opened.registry_health_check().healthy
    assert live_runs(home) == []
    assert opened.validate_and_repair_registry(dry_run=False).done == ()


def test_what_cannot_be_read_is_unknown_and_stays_as_it_is(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    made = sleeper(opened, new_task(opened, tmp_path))
    record = home / "live" / live_runs(home)[0] / "start.json"
    whole = record.read_text()
    record.write_text("{")
    _kill(made.runner_pid)
    until(lambda: not alive(made.pid), what="the agent's end, with its runner's")
    health = opened.registry_health_check()
    assert ([each.action for each in health.unknown], health.ghosts) == (["none"], ())
    assert opened.validate_and_repair_registry(dry_run=False).done == ()
    assert opened.get_agent(made.agent_id).state == "running"
    record.write_text(whole)
    assert [each.action for each in opened.validate_and_repair_registry(dry_run=False).done] == [
        "record_lost"
    ]


def test_a_row_that_names_another_runner_is_listed_and_corrected_to_what_the_record_says(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    made = sleeper(opened, new_task(opened, tmp_path))
    opened.close()
    connection = sqlite3.connect(home / "registry.db", isolation_level=None)
    connection.execute("UPDATE run SET runner_ticks = runner_ticks + 1")
    connection.close()
    found = opened.registry_health_check().wrong_identities
    assert [(each.agent_id, each.action) for each in found] == [(made.agent_id, "correct_row")]
    assert opened.validate_and_repair_registry().done == ()
    assert opened.registry_health_check().wrong_identities == found, "a dry run changes nothing"
    done = opened.validate_and_repair_registry(dry_run=False)
    assert [each.action for each in done.done] == ["correct_row"]
    assert done.healthy
    assert alive(made.pid)
    event = opened.read_events(agent_id=made.agent_id).events[-1]
    assert (event.kind, event.data["runner_pid"]) == ("run_corrected", made.runner_pid)
    assert opened.validate_and_repair_registry(dry_run=False).done == ()
    assert opened.stop_agent(made.agent_id).outcome == "stopped"


def test_a_session_that_is_no_view_is_named_and_left_alone(
    home: Path, tmp_path: Path, require_tmux: str
) -> None:
    def tmux(*words: str) -> str:
        argv = ["tmux", "-S", str(home / "tmux.sock"), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout

    with fleet(home, views=True) as opened:
        made = sleeper(opened, new_task(opened, tmp_path))
        until(lambda: opened.registry_health_check().sessions_count == 1, what="it is shown")
        tmux("new-session", "-d", "-s", "mine", "sleep 600")
        health = opened.registry_health_check()
        assert [each.subject for each in health.foreign_sessions] == ["mine"]
        assert {each.name: each.agent_id for each in health.sessions} == {
            made.agent_id: made.agent_id,
            "mine": None,
        }
        opened.validate_and_repair_registry(dry_run=False)
        assert "mine" in tmux("list-sessions")
        clear(opened)
        opened.context.views.shut()
