"""Garbage collection: run directories, the journal and the write-ahead log stay bounded.

A janitor that is wrong destroys data: so it looks first, moves to a trash folder instead of deleting,
and never touches what is live, marked live, or not certainly over.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headcount.domain.errors import NotAllowed
from headcount.domain.ids import new_id
from headcount.domain.model import LockState, Run
from headcount.services import given, rights, settle
from headcount.services.answers import Collected
from headcount.services.context import Context

BATCH: Final = 10_000
EVENTS_KEPT: Final = 100_000
CALLS_KEPT: Final = 86_400.0
"""Seconds in which a call may be sent again; a bridge gives up after minutes."""
AGE_MAX: Final = 100 * 365.25 * 86_400


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ended run, and the bytes that its directory takes."""

    run: Run
    size: int


def collect(context: Context, *, dry_run: bool, older_than: float, keep_bytes: int | None) -> Collected:
    """Take ended runs that are too old, or too much, out of the home; say what.

    The directory is moved first, its rows are deleted after: killed in between, a row without a
    directory is left, which the next collection finds again by its age.

    Raises:
        InvalidInput: an age or a size that is none.
        NotAllowed: an agent asks.
    """
    given.number("older_than", older_than, most=AGE_MAX)
    given.maybe_whole("keep_bytes", keep_bytes)
    settle.observe(context)
    with context.registry.read() as tx:
        if rights.caller_run(context, tx) is not None:
            raise NotAllowed("only a person collects garbage")
        ended = tx.runs.ended_before(context.clock.now(), BATCH)
        live = len(tx.runs.live())
    chosen = _choose(context, ended, older_than, keep_bytes)
    trash = None if dry_run or not chosen else _trash(context)
    events = 0
    if trash is not None:
        for candidate in chosen:
            _move(candidate.run, trash)
        with context.registry.write("gc") as tx:
            tx.runs.forget([each.run.key for each in chosen])
    if not dry_run:
        with context.registry.write("gc") as tx:
            events = tx.events.prune(context.clock.now() - older_than, EVENTS_KEPT)
            tx.calls.prune(context.clock.now() - CALLS_KEPT)
        context.registry.backup(context.home.backups / "registry.db")
    names = tuple(str(each.run.key) for each in chosen)
    return Collected(
        dry_run, names, sum(each.size for each in chosen), events, None if trash is None else str(trash), live
    )


def _choose(context: Context, ended: list[Run], older_than: float, keep_bytes: int | None) -> list[Candidate]:
    """Return what goes: all that ended longer ago than `older_than`, and of the rest the oldest until
    what is kept fits into `keep_bytes`."""
    before = context.clock.now() - older_than
    chosen: list[Candidate] = []
    kept: list[Candidate] = []
    for run in ended:
        if not _certainly_over(context, run):
            continue
        candidate = Candidate(run, _size(Path(run.path)))
        (chosen if (run.ended_at or 0.0) <= before else kept).append(candidate)
    room = sum(each.size for each in kept) - (keep_bytes if keep_bytes is not None else 1 << 62)
    for candidate in kept:  # oldest first, as the registry returns them
        if room <= 0:
            break
        chosen.append(candidate)
        room -= candidate.size
    return chosen


def _certainly_over(context: Context, run: Run) -> bool:
    if run.live:
        return False
    seen = context.placement.look_at(run.key, run.path)
    return seen.lock is LockState.FREE and seen.error is None


def _size(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _trash(context: Context) -> Path:
    name = new_id("gc", now=context.clock.now(), chance=context.clock.chance())
    made = context.home.trash / name
    made.mkdir(mode=0o700, parents=True)
    return made


def _move(run: Run, trash: Path) -> None:
    source = Path(run.path)
    if not source.is_dir():
        return
    source.rename(trash / str(run.key))
    for folder in (source.parent, source.parent.parent):
        try:
            folder.rmdir()
        except OSError:  # other runs are still in it
            return
