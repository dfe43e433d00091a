"""The home's disk is full: what is asked fails with the reason, what runs goes on, and room heals it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.errors import Infrastructure, PlacementFailed, Refused
from tests.support import disks
from tests.support.commands import answer, headcount
from tests.support.fleets import alive, fleet, live_runs, new_task, sleeper
from tests.support.waiting import until

ENOUGH = {"min_disk_mb": 0}
"""Else a small disk is refused before it is full."""
ENV = {"HEADCOUNT_MIN_DISK_MB": "0"}


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    with disks.small(home):
        yield home


def run_directories(home: Path) -> list[str]:
    return sorted(path.parent.name for path in home.glob("runs/*/*/*"))


def quickly_refused(opened: Headcount, task: str) -> Infrastructure:
    """Deploy in vain; return the error, which came in under a second."""
    began = time.monotonic()
    with pytest.raises(Infrastructure, match=r"space|full|disk") as refused:
        sleeper(opened, task, "second")
    assert time.monotonic() - began < 1
    return refused.value


def without_room_in_the_log(opened: Headcount) -> None:
    opened.context.registry.checkpoint()


def with_room_in_the_log(opened: Headcount) -> None:
    """Have the log written from its beginning again, so that rows fit although files do not."""
    with closing(sqlite3.connect(opened.context.home.registry)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0


def test_a_deploy_on_a_full_disk_leaves_nothing_and_works_when_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    with fleet(disk, **ENOUGH) as opened:
        task = new_task(opened, tmp_path)
        first = sleeper(opened, task, "first")
        without_room_in_the_log(opened)
        with disks.full(disk):
            assert not isinstance(quickly_refused(opened, task), PlacementFailed)
            assert run_directories(disk) == [first.agent_id]
            assert live_runs(disk) == [f"{first.agent_id}.1"]
            assert alive(first.pid)
        assert opened.registry_health_check().healthy
        assert alive(sleeper(opened, task, "second").pid)
        assert opened.registry_health_check().live_runs == 2


def test_a_disk_that_is_full_after_the_reservation_leaves_a_row_that_says_why(
    disk: Path, tmp_path: Path
) -> None:
    with fleet(disk, **ENOUGH) as opened:
        task = new_task(opened, tmp_path)
        first = sleeper(opened, task, "first", prompt="x" * 300_000)
        with_room_in_the_log(opened)
        with disks.full(disk):
            assert isinstance(quickly_refused(opened, task), PlacementFailed)
            assert run_directories(disk) == [first.agent_id]
            assert live_runs(disk) == [f"{first.agent_id}.1"]
        assert opened.registry_health_check().healthy
        failed = next(each for each in opened.list_agents(all=True).agents if each.role == "second")
        assert (failed.state, failed.outcome) == ("ended", "start_failed")
        assert alive(sleeper(opened, task, "second").pid)


def test_too_little_room_is_a_refusal_that_names_the_limit(disk: Path, tmp_path: Path) -> None:
    with fleet(disk) as opened:
        task = new_task(opened, tmp_path)
        with pytest.raises(Refused) as refused:
            sleeper(opened, task)
        assert (refused.value.limit, refused.value.value) == ("min_disk_mb", 100)
        assert opened.get_task_status(task).refusals == {refused.value.code: 1}
        assert run_directories(disk) == []


def test_the_end_of_an_agent_on_a_full_disk_is_recorded(disk: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f"echo last words; read word < {gate}; exit 7"
    with fleet(disk, **ENOUGH) as opened:
        task = new_task(opened, tmp_path)
        made = opened.deploy(task, role="builder", harness="command", command=["/bin/sh", "-c", script])
        until(lambda: opened.get_agent_output(made.agent_id).text, what="the last words")
        without_room_in_the_log(opened)
        with disks.full(disk):
            gate.write_text("go\n")
            until(lambda: not alive(made.runner_pid), what="the end of the runner")
        ended = opened.get_agent(made.agent_id)
        assert (ended.state, ended.outcome, ended.exit_code) == ("ended", "failed", 7)
        assert opened.get_agent_output(made.agent_id).text == "last words\n"


@pytest.fixture
def made(disk: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A fleet of one agent by the command line."""
    task = answer("task", "create", "work", "--project", str(tmp_path), env=ENV)["task_id"]
    yield answer("deploy", task, "--role", "builder", "--", "sleep", "600", env=ENV)
    headcount("halt", env=ENV)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk while a process, as the daemon does, has the registry open."""
    with Headcount(disk, autostart=False, views=False) as opened:
        without_room_in_the_log(opened)
        with disks.full(disk):
            yield


def test_reading_goes_on_and_writing_says_that_the_disk_is_full(disk: Path, made: dict[str, Any]) -> None:
    agent, task = made["agent_id"], made["task_id"]
    with full(disk):
        for reading in (("ps",), ("status", task), ("logs", agent), ("events",), ("findings", task), ("gc",)):
            ran = headcount(*reading, env=ENV)
            assert (ran.code, "Traceback" in ran.err) == (0, False), (reading, ran)
        assert answer("ps")["agents"][0]["state"] == "running"
        assert headcount("doctor").code == 1
        for writing in (
            ("report", "working", "half done", "--agent", agent),
            ("task", "create", "more work"),
            ("stop", agent),
        ):
            ran = headcount(*writing, "--json", env=ENV)
            assert (ran.code, ran.error["code"]) == (5, "infrastructure"), (writing, ran)
            assert "full" in ran.error["message"], ran
            assert "make room" in ran.error["hint"], ran
        assert alive(made["pid"])
    assert headcount("stop", agent, env=ENV).code == 0


def test_halt_ends_every_agent_on_a_full_disk(disk: Path, made: dict[str, Any]) -> None:
    with full(disk):
        ran = headcount("halt", env=ENV)
        assert (ran.code, "Traceback" in ran.err) == (0, False), ran
        until(lambda: not alive(made["runner_pid"]), what="the end of the agent")
        assert not alive(made["pid"])
    (agent,) = answer("ps", "--all", env=ENV)["agents"]
    assert (agent["state"], agent["outcome"]) == ("ended", "stopped")
    other = ("deploy", made["task_id"], "--role", "other", "--", "true")
    assert headcount(*other, env=ENV).code == 3
    assert headcount("halt", "--release", env=ENV).code == 0
    assert headcount(*other, env=ENV).code == 0


def test_who_is_the_first_to_open_the_registry_hears_that_the_disk_is_full(
    disk: Path, made: dict[str, Any]
) -> None:
    with disks.full(disk):
        ran = headcount("ps", "--json", env=ENV)
        assert (ran.code, "full" in ran.error["message"]) == (5, True), ran
        assert headcount("halt", "--json", env=ENV).facts["stopped"][0]["state"] == "ended"
    assert not alive(made["pid"])
    (agent,) = answer("ps", "--all", env=ENV)["agents"]
    assert (agent["state"], agent["outcome"]) == ("ended", "stopped")
