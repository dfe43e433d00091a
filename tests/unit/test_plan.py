"""What follows from a look, where a row and a start record disagree about who the run is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headcount.domain.lifecycle import State
from headcount.domain.model import (
    ExitRecord,
    LiveRun,
    LockState,
    Presence,
    Process,
    RunKey,
    Seen,
    StartRecord,
)
from headcount.domain.plan import Correct, RecordEnd, RowAction, plan_rows

BOOT = "a-boot"
KEY = RunKey("builder-01jx5e2k9pab12cd", 1)
DEPLOYER, RUNNER, AGENT = Process(10, 100, BOOT), Process(20, 200, BOOT), Process(21, 201, BOOT)
START = StartRecord(RUNNER, AGENT, "ns", 1.0, ("subreaper",), None)
ROW = LiveRun(KEY, "task-1", "builder", State.RUNNING, "command", "/run", DEPLOYER, RUNNER, AGENT, None)
SEEN = Seen(KEY, "/run", LockState.HELD, RUNNER.pid, START, None, None, Presence.UNKNOWN, marked=True)
EXIT = ExitRecord(0, None, None, False, 1.0, 2.0, 0, 0, 0, 0, 0, 0, ())
LATER = Process(RUNNER.pid, RUNNER.ticks + 1, BOOT)


def planned(row: LiveRun, seen: Seen) -> list[RowAction]:
    return plan_rows([row], {row.key: seen}, deployers={}, reaped={}, boot_id=BOOT)


def test_a_row_that_says_what_the_record_says_is_left_alone() -> None:
    assert planned(ROW, SEEN) == []


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPING])
@pytest.mark.parametrize("wrong", [{"runner": LATER}, {"process": LATER}, {"process": None}])
def test_a_live_row_that_names_others_is_corrected(state: State, wrong: dict[str, Process | None]) -> None:
    row = replace(ROW, state=state, **wrong)  # type: ignore[arg-type]
    assert planned(row, SEEN) == [Correct(row, START)]


def test_a_row_that_names_nobody_yet_is_its_deployers() -> None:
    assert planned(replace(ROW, state=State.RESERVED, runner=None, process=None), SEEN) == []


def test_a_record_of_somebody_who_does_not_hold_the_lock_corrects_nothing() -> None:
    assert planned(replace(ROW, runner=LATER), replace(SEEN, runner_pid=99)) == []


def test_what_cannot_be_seen_corrects_nothing() -> None:
    assert planned(replace(ROW, runner=LATER), replace(SEEN, lock=LockState.UNKNOWN)) == []


def test_a_run_that_is_over_is_recorded_whatever_the_row_names() -> None:
    row = replace(ROW, runner=LATER)
    assert planned(row, replace(SEEN, lock=LockState.FREE, exit=EXIT)) == [RecordEnd(row, EXIT, START)]
