"""What is said of a run that is over: its end in words, and the limits that it came near to. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headcount.domain.entries import Entry
from headcount.domain.lifecycle import Outcome, State
from headcount.domain.model import ExitRecord, Run

ENTRIES: Final = 20
TEXT_MAX: Final = 2_000
"""Characters of an entry's text that are kept, and of its data as JSON."""
STDERR_MAX: Final = 4_000
FILES_MAX: Final = 200
"""Changed files that are named; all are counted."""
NEAR: Final = 0.8
"""The part of a limit from which on it was near."""
FRESH: Final = 30.0
"""Seconds after an end in which what the machine has free still tells something of it."""


def in_words(run: Run, record: ExitRecord | None) -> str:
    """Return how a run ended, for a person who was not there."""
    if run.state is State.LOST:
        return f"lost: {run.reason or 'nobody knows how it ended'}"
    if run.outcome is Outcome.START_FAILED:
        return f"never began: {run.reason or 'the reason is not on record'}"
    words = _process_in_words(run)
    if record is not None and record.stopped:
        return f"stopped as asked: {words}"
    if run.stop_reason is not None:
        return f"{words}, before the stop that was asked for reached it"
    return words


def _process_in_words(run: Run) -> str:
    if run.signal is not None:
        return f"killed by {signal_name(run.signal)}"
    if run.exit_code is not None:
        return f"exited with code {run.exit_code}"
    return "it had no process"


def signal_name(number: int) -> str:
    """Return `SIGKILL (signal 9)`, or only the number of one that has no name."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, slots=True)
class Memory:
    """Whether the kernel killed for want of memory. `killed` None: that is unknown."""

    killed: bool | None
    evidence: str


def may_be_memory(run: Run, record: ExitRecord | None) -> bool:
    """Say whether a run ended as one that the kernel killed, and no cgroup tells."""
    counted = record is not None and record.oom_kills is not None
    return not counted and (run.signal == signal.SIGKILL or run.state is State.LOST)


def memory_of(run: Run, record: ExitRecord | None, logged: str | None) -> Memory:
    """Say whether want of memory ended a run, as far as its cgroup and the kernel's log tell."""
    if logged:
        return Memory(True, f"the kernel's log: {logged}")
    kills = None if record is None else record.oom_kills
    if kills:
        return Memory(True, f"the kernel killed {kills} of its processes for want of memory")
    if kills == 0:
        return Memory(False, "its cgroup counts no process that was killed for want of memory")
    if may_be_memory(run, record):
        log = "cannot be read by us ('dmesg | grep -i oom')" if logged is None else "says nothing of it"
        return Memory(None, f"no cgroup counted it, and the kernel's log {log}")
    return Memory(None, "no cgroup counted it; nothing hints at it")


@dataclass(frozen=True, slots=True)
class Edge:
    """A limit that a run was near at its end, or had reached."""

    limit: str
    value: float
    used: float
    of: str  # run, task or machine


def near(*edges: Edge) -> Iterator[Edge]:
    """Yield those that were near; a limit of 0 is none."""
    return (each for each in edges if each.value > 0 and each.used >= NEAR * each.value)


def of_the_run(run: Run, record: ExitRecord | None, policy: Mapping[str, Any]) -> Iterator[Edge]:
    """Yield the limits of the run itself that it was near; `policy` has those of the watchdog."""
    account = run.account or {}
    used: list[tuple[str, object, object]] = [
        ("max_turns", run.options.get("max_turns"), account.get("turns")),
        ("budget_usd", run.options.get("budget_usd"), account.get("cost_usd")),
    ]
    if run.started_at is not None and run.ended_at is not None:
        used.append(("wall_limit_s", policy.get("wall_limit_s"), run.ended_at - run.started_at))
    if record is not None:
        written = (record.output_bytes + record.stderr_bytes) / 1e6
        used.append(("memory_limit_mb", policy.get("memory_limit_mb"), record.max_rss_kb / 1024))
        used.append(("output_limit_mb", policy.get("output_limit_mb"), written))
        for stream, cut, size in (
            ("output", record.output_cut, record.output_bytes),
            ("stderr", record.stderr_cut, record.stderr_bytes),
        ):
            if cut:
                yield Edge(f"output_cap ({stream})", size - cut, size, "run")
    yield from near(*(Edge(name, float(most), float(had), "run") for name, most, had in _numbers(used)))


def _numbers(used: Sequence[tuple[str, object, object]]) -> Iterator[tuple[str, float, float]]:
    for name, most, had in used:
        if isinstance(most, int | float) and isinstance(had, int | float):
            yield name, most, had


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed in a checkout between two moments. `later` counts what was changed after them: whether
    it was changed before, too, cannot be told."""

    files: tuple[str, ...]  # the first ones
    count: int
    later: int
    whole: bool  # False: there was more than could be looked at


def entry_facts(entry: Entry, size: int) -> dict[str, object]:
    """Return an entry as it is kept; `size` is that of its data as JSON."""
    facts: dict[str, object] = {"kind": str(entry.kind), "text": entry.text[:TEXT_MAX]}
    if len(entry.text) > TEXT_MAX:
        facts["characters_left_out"] = len(entry.text) - TEXT_MAX
    if entry.data and size <= TEXT_MAX:
        facts["data"] = dict(entry.data)
    return facts
