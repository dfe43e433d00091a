"""Compare what was seen with what the registry holds, and say what follows. Pure.

All observations used here are final once made: a lock that is free beside a start record will never
be held again, an exit record never changes, a dead deployer never comes back. That is why rows may be
read after the look (never before it), and why applying a plan late does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from headcount.domain.lifecycle import State
from headcount.domain.model import (
    ExitRecord,
    LiveRun,
    LockState,
    Presence,
    RunKey,
    Seen,
    StartRecord,
)


@dataclass(frozen=True, slots=True)
class Reap:
    """The runner is dead and left no exit record: kill what is left of its tree, by identity."""

    seen: Seen


@dataclass(frozen=True, slots=True)
class Void:
    """The deployer died before the runner took the lock: make sure that it never starts."""

    seen: Seen


@dataclass(frozen=True, slots=True)
class Adopt:
    """The deployer died after the start: the run is running."""

    row: LiveRun
    start: StartRecord


@dataclass(frozen=True, slots=True)
class Correct:
    """The run lives, but its row names other processes than the start record of who holds the lock."""

    row: LiveRun
    start: StartRecord


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """The runner wrote its exit record."""

    row: LiveRun
    record: ExitRecord
    start: StartRecord | None


@dataclass(frozen=True, slots=True)
class RecordVoid:
    """It was never started, and never will be."""

    row: LiveRun
    reason: str


@dataclass(frozen=True, slots=True)
class RecordLost:
    """Nothing of it runs, and nobody knows how it ended."""

    row: LiveRun
    reason: str
    survivors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ResendStop:
    """A stop was recorded, but its sender may have died before it was sent."""

    row: LiveRun


@dataclass(frozen=True, slots=True)
class Orphan:
    """A run directory in `live/` without a live row. `held`: something of it runs (a stray)."""

    seen: Seen
    held: bool


FileAction = Reap | Void
RowAction = Adopt | Correct | RecordEnd | RecordVoid | RecordLost
Action = FileAction | RowAction | ResendStop | Orphan


def plan_files(seen: Iterable[Seen]) -> list[FileAction]:
    """Return what must be done to run directories before rows are judged by them. Needs no row:
    a dead runner or a dead deployer is told by the directory alone."""
    return [action for each in seen if (action := _file_action(each)) is not None]


def _file_action(seen: Seen) -> FileAction | None:
    if seen.lock is not LockState.FREE or seen.exit or seen.void:
        return None
    if seen.start:
        return Reap(seen)
    return Void(seen) if seen.deployer is Presence.DEAD else None


def plan_rows(
    rows: Iterable[LiveRun],
    seen: Mapping[RunKey, Seen],
    *,
    deployers: Mapping[RunKey, Presence],
    reaped: Mapping[RunKey, tuple[int, ...]],
    boot_id: str,
) -> list[RowAction]:
    """Return the changes of state that the look justifies; no action where anything is unknown.

    `deployers` says of reserved rows whether their deployer is alive; `reaped` lists the dead
    runners' trees that are gone, with the pids that survived.
    """
    return [
        action
        for row in rows
        if (look := seen.get(row.key)) is not None
        and (action := _row_action(row, look, deployers.get(row.key, Presence.UNKNOWN), reaped, boot_id))
        is not None
    ]


def _row_action(
    row: LiveRun, seen: Seen, deployer: Presence, reaped: Mapping[RunKey, tuple[int, ...]], boot_id: str
) -> RowAction | None:
    match seen.lock:
        case LockState.UNKNOWN:
            return None
        case LockState.HELD:
            if _is_another(row, seen) and seen.start:
                return Correct(row, seen.start)
            adoptable = row.state is State.RESERVED and deployer is Presence.DEAD and seen.start
            return Adopt(row, seen.start) if adoptable and seen.start else None
        case LockState.FREE:
            return _when_free(row, seen, deployer, reaped, boot_id)


def _is_another(row: LiveRun, seen: Seen) -> bool:
    """Say whether the row names another runner or agent than the record of the runner that was seen."""
    if row.runner is None or seen.start is None or seen.runner_pid not in (None, seen.start.runner.pid):
        return False
    return (row.runner, row.process) != (seen.start.runner, seen.start.process)


def _when_free(
    row: LiveRun, seen: Seen, deployer: Presence, reaped: Mapping[RunKey, tuple[int, ...]], boot_id: str
) -> RowAction | None:
    if seen.exit:
        return RecordEnd(row, seen.exit, seen.start)
    if seen.void:
        return RecordVoid(row, seen.void.reason)
    if seen.start:
        if row.key not in reaped:
            return None
        rebooted = seen.start.runner.boot_id != boot_id
        return RecordLost(
            row, "the machine was restarted" if rebooted else "the runner was killed", reaped[row.key]
        )
    if row.state is State.RUNNING or row.runner is not None:
        # it was confirmed, so a start record was there: its run directory has been taken away
        return (
            RecordLost(row, "its run directory is gone") if not seen.marked and seen.error is None else None
        )
    if deployer is Presence.DEAD and not seen.marked:
        return RecordVoid(row, "the deployer died before it wrote the order")
    return None


def orphans(seen: Iterable[Seen], live: frozenset[RunKey]) -> Iterator[Orphan]:
    """Return the marked runs that have no live row. The caller looks again before it acts: a row may
    have ended between the look and the reading of the rows."""
    for each in seen:
        if each.marked and each.key not in live and each.lock is not LockState.UNKNOWN:
            yield Orphan(each, held=each.lock is LockState.HELD)
