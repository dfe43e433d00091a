"""Garbage collection: run directories, the journal and the write-ahead log stay bounded.

A janitor that is wrong destroys data: so it looks first, moves to a trash folder instead of deleting,
and never touches what is live, marked live, or not certainly over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headcount.domain.errors import HeadcountError, NotAllowed
from headcount.domain.ids import new_id
from headcount.domain.model import LockState, Presence, Run, RunKey, Seen
from headcount.services import given, rights, settle, worktrees
from headcount.services.answers import Collected
from headcount.services.context import Context

BATCH: Final = 10_000
EVENTS_KEPT: Final = 100_000
CALLS_KEPT: Final = 86_400.0
"""Seconds in which a call may be sent again; a bridge gives up after minutes."""
AGE_MAX: Final = 100 * 365.25 * 86_400


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that is over, and the bytes that its directory takes."""

    key: RunKey
    path: str
    ended_at: float
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
    trees = _worktrees(context, older_than, dry_run=dry_run)
    found = [*_candidates(context, ended), *(_candidate(each) for each in rowless(context))]
    chosen = _choose(found, context.clock.now() - older_than, keep_bytes)
    trash = None if dry_run or not chosen else _trash(context)
    events = 0
    if trash is not None:
        for candidate in chosen:
            _move(candidate, trash)
        with context.registry.write("gc") as tx:
            tx.runs.forget([each.key for each in chosen])
    if not dry_run:
        with context.registry.write("gc") as tx:
            events = tx.events.prune(context.clock.now() - older_than, EVENTS_KEPT)
            tx.calls.prune(context.clock.now() - CALLS_KEPT)
        context.registry.backup(context.home.backups / "registry.db")
    names = tuple(str(each.key) for each in chosen)
    size, where = sum(each.size for each in chosen), None if trash is None else str(trash)
    return Collected(dry_run, names, size, events, where, live, trees)


def _worktrees(context: Context, older_than: float, *, dry_run: bool) -> tuple[str, ...]:
    """Remove the worktrees with which nothing is lost; return whose they were. One that has changed since the
    look stays."""
    found = worktrees.merged(context, context.clock.now() - older_than)
    if dry_run:
        return tuple(each.agent_id for each in found)
    gone = []
    for each in found:
        with suppress(HeadcountError):
            gone.append(worktrees.remove(context, each.agent_id, snapshot=False).agent_id)
    return tuple(gone)


def rowless(context: Context) -> list[Seen]:
    """Return runs that are over, stand in no row and are not marked live: nobody else ever looks at them.

    Their rows went with a registry that was lost. Costs history: not for the headcount.
    """
    found = dict(context.placement.directories())  # before the rows: a row is there before its directory
    with context.registry.read() as tx:
        known = tx.runs.keys()
    marked = {each.key for each in context.placement.look()}
    looked = (context.placement.look_at(key, found[key]) for key in sorted(found.keys() - known - marked))
    return [each for each in looked if each.lock is LockState.FREE and each.error is None and _is_over(each)]


def _is_over(seen: Seen) -> bool:
    return bool(seen.exit or seen.void or seen.start) or seen.deployer is Presence.DEAD


def _candidate(seen: Seen) -> Candidate:
    path = Path(seen.path)
    return Candidate(seen.key, seen.path, path.stat().st_mtime, _size(path))


def _candidates(context: Context, ended: list[Run]) -> Iterator[Candidate]:
    for run in ended:
        if _certainly_over(context, run):
            yield Candidate(run.key, run.path, run.ended_at or 0.0, _size(Path(run.path)))


def _choose(found: list[Candidate], before: float, keep_bytes: int | None) -> list[Candidate]:
    """Return what goes: all that ended before a moment, and of the rest the oldest until what is kept fits
    into `keep_bytes`."""
    oldest_first = sorted(found, key=lambda each: each.ended_at)
    chosen = [each for each in oldest_first if each.ended_at <= before]
    kept = [each for each in oldest_first if each.ended_at > before]
    room = sum(each.size for each in kept) - (keep_bytes if keep_bytes is not None else 1 << 62)
    for candidate in kept:
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


def _move(candidate: Candidate, trash: Path) -> None:
    source = Path(candidate.path)
    if not source.is_dir():
        return
    source.rename(trash / str(candidate.key))
    for folder in (source.parent, source.parent.parent):
        try:
            folder.rmdir()
        except OSError:  # other runs are still in it
            return
