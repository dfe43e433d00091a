"""Thirty processes at once, each with its own connection: one wins, nothing is lost, nobody starves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from headcount.domain.errors import Refused
from headcount.domain.lifecycle import Outcome, State
from headcount.domain.model import RunKey, TaskState
from tests.support.forks import together
from tests.support.registries import BOOT, TASK, confirm, end, new_run, registry, task, with_task

CROWD = 30


def test_every_process_adds_its_row(home: Path) -> None:
    with_task(home).close()

    def add(me: int) -> int:
        opened = registry(home)
        for number in range(5):
            with opened.write("add") as tx:
                tx.runs.add(new_run(f"builder-{me}x{number}"))
                tx.events.add("added", now=1.0)
        opened.close()
        return 5

    assert together(CROWD, add) == [5] * CROWD
    opened = registry(home)
    with opened.read() as tx:
        assert len(tx.runs.live()) == CROWD * 5
        assert [event.seq for event in tx.events.since(0, limit=1000)] == list(range(1, CROWD * 5 + 1))
    assert opened.integrity() == []
    opened.close()


def test_a_first_use_by_all_at_once_makes_one_registry(home: Path) -> None:
    def use(me: int) -> int:
        opened = registry(home)
        with opened.write("first") as tx:
            seq = tx.events.add("used", now=1.0)
        opened.close()
        return seq

    assert sorted(together(CROWD, use)) == list(range(1, CROWD + 1))
    assert sorted(path.name for path in home.iterdir()) == ["registry.db", "registry.lock"]


def test_one_of_all_takes_the_role(home: Path) -> None:
    with_task(home).close()

    def take(me: int) -> str:
        opened = registry(home)
        try:
            with opened.write("deploy") as tx:
                tx.runs.add(new_run(f"builder-{me}", takes_role=True))
        except Refused as refused:
            return refused.code
        finally:
            opened.close()
        return "taken"

    assert Counter(together(CROWD, take)) == {"taken": 1, "duplicate_role": CROWD - 1}


def test_no_more_than_the_limit_are_admitted(home: Path) -> None:
    """What is read in a write transaction is still true when it writes."""
    with_task(home).close()
    most = 12

    def apply(me: int) -> bool:
        opened = registry(home)
        with opened.write("deploy") as tx:
            facts = tx.runs.admission(
                TASK, parent=None, role="builder", work_hash=None, boot_id=BOOT, since_boottime=0.0
            )
            admitted = len(facts.live_task) < most
            if admitted:
                tx.runs.add(new_run(f"builder-{me}"))
        opened.close()
        return admitted

    assert Counter(together(CROWD, apply)) == {True: most, False: CROWD - most}


@pytest.mark.parametrize("change", ["confirm", "stop", "end", "lost", "move", "key"])
def test_one_of_all_changes_the_state(home: Path, change: str) -> None:
    key = RunKey("builder-1", 1)
    opened = with_task(home)
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1"))
    opened.close()

    def attempt(me: int) -> bool:
        mine = registry(home)
        with mine.write(change) as tx:
            match change:
                case "confirm":
                    won = confirm(tx, key)
                case "stop":
                    won = tx.runs.stop_asked(key, reason=str(me), by=None, now=2.0)
                case "end":
                    won = end(tx, key, outcome=Outcome.FAILED)
                case "lost":
                    won = tx.runs.lost(key, reason=str(me), survivors=(), now=2.0)
                case "move":
                    won = tx.tasks.move(TASK, from_=(TaskState.OPEN,), to=TaskState.CLOSED, now=2.0)
                case _:
                    won = tx.keys.get("s", "k") is None
                    if won:
                        tx.keys.put("s", "k", request_hash=str(me), agent_id="builder-1", run=1, now=1.0)
            if won:
                tx.events.add(change, now=1.0, data={"winner": me})
        mine.close()
        return won

    wins = together(CROWD, attempt)
    assert wins.count(True) == 1
    opened = registry(home)
    with opened.read() as tx:
        (event,) = tx.events.since(0, limit=9)
        assert event.data == {"winner": wins.index(True)}
    opened.close()


def test_an_end_and_a_loss_at_once_leave_one_of_them(home: Path) -> None:
    opened = with_task(home)
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1"))
    opened.close()
    key = RunKey("builder-1", 1)

    def attempt(me: int) -> bool:
        mine = registry(home)
        with mine.write("end") as tx:
            won = end(tx, key) if me % 2 else tx.runs.lost(key, reason="gone", survivors=(), now=2.0)
        mine.close()
        return won

    wins = together(CROWD, attempt)
    assert wins.count(True) == 1
    opened = registry(home)
    with opened.read() as tx:
        run = tx.runs.get("builder-1")
        assert run is not None
        assert run.state is (State.ENDED if wins.index(True) % 2 else State.LOST)
    opened.close()


def test_readers_go_on_beside_writers(home: Path) -> None:
    with_task(home).close()

    def work(me: int) -> int:
        opened = registry(home)
        least = 0
        for number in range(20):
            if me % 3:
                with opened.read() as tx:
                    events = tx.events.last()
                    assert events == len(tx.events.since(0, limit=10_000))
                    assert events >= least
                    least = events
            else:
                with opened.write("write") as tx:
                    tx.events.add("k", now=float(number))
        opened.close()
        return least

    assert max(together(CROWD, work)) <= CROWD // 3 * 20


def test_many_tasks_are_added_and_none_is_lost(home: Path) -> None:
    with_task(home).close()

    def add(me: int) -> None:
        opened = registry(home)
        with opened.write("task") as tx:
            tx.tasks.add(task(f"task-{me:02}"))
        opened.close()

    together(CROWD, add)
    opened = registry(home)
    with opened.read() as tx:
        assert len(tx.tasks.page(limit=100)) == CROWD + 1
    opened.close()
