"""What a look at a live run shows, what follows for its policy, and what is to be done. Pure.

Time here is what the daemon has watched: it stands still while the machine sleeps or the daemon is halted,
and begins when the daemon first looked. So nothing fires for a time in which nobody could see anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ReportStatus
from headcount.domain.policy import ENDS, Act, Policy

IDLE: Final = 0.02
"""Share of one processor up to which a silent tree counts as idle: programs that wait for an answer use less,
compilers and tests more."""
MB: Final = 1_000_000
FINAL: Final = frozenset({ReportStatus.DONE, ReportStatus.FAILED})


class Signal(StrEnum):
    """What can be wrong with a run."""

    STOPPED = "stopped"  # halted by a signal
    STALLED = "stalled"  # neither output nor report
    WALL_TIME = "wall_time"
    MEMORY = "memory"
    OUTPUT = "output"
    LINGERS = "lingers"  # it says that it is done, and lives on
    RUNNER_GONE = "runner_gone"  # its runner was killed, and it lived on
    UNREPORTED = "unreported"  # it ended without a final report


BY: Final = "watchdog"
"""Who asked for a stop that the watchdog asked for."""
WORDS: Final[Mapping[Signal, str]] = {
    Signal.STOPPED: "its process is halted by a signal",
    Signal.STALLED: "it has written and reported nothing",
    Signal.WALL_TIME: "it has run longer than it may",
    Signal.MEMORY: "it uses more memory than it may",
    Signal.OUTPUT: "it has written more than it may",
    Signal.LINGERS: "it said that it is done, and goes on living",
    Signal.RUNNER_GONE: "its runner was killed while it lived",
    Signal.UNREPORTED: "it ended without a final report",
}


def stop_reason(signal: Signal) -> str:
    """Return the reason of a stop that the watchdog asks for."""
    return f"{BY}: {WORDS[signal]}"


def outcome_of_stop(reason: str | None) -> Outcome:
    """Return the outcome of a run that was stopped for this reason."""
    return Outcome.TIMED_OUT if reason == stop_reason(Signal.WALL_TIME) else Outcome.STOPPED


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a look at the machine shows of one run. None: it cannot be told."""

    alive: bool | None = None  # the agent's own process
    halted: bool | None = None  # likewise, by a signal
    processes: int | None = None
    cpu_s: float | None = None  # of the whole tree, and of what it has waited for
    memory_mb: float | None = None
    age_s: float | None = None  # by the kernel, time asleep included
    output: int = 0  # bytes of both streams, ever
    written_at: float | None = None  # when the last of it was, by the wall clock


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at one run. `at`: seconds watched; `awake_s`: at least so long has it run while awake."""

    at: float
    awake_s: float
    vitals: Vitals
    report: int = 0  # the number of its last report, 0 for none
    said: ReportStatus | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """What is remembered of the looks before: since when it is silent, and since when each signal stands."""

    output: int
    report: int
    quiet_since: float
    quiet_cpu: float | None
    awake_at_first: float
    first_at: float
    since: Mapping[Signal, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Detection:
    """A signal that is there now. `confirmed`: a second witness says so too."""

    signal: Signal
    held_s: float  # since it was first seen
    evidence: Mapping[str, Any]
    confirmed: bool
    act: Act

    def may_act(self, policy: Policy) -> bool:
        """Say whether what is to be done may be done now."""
        if self.act not in ENDS:
            return self.act is not Act.FLAG
        return self.confirmed and self.held_s >= policy.act_after_s


def look(before: Track | None, sight: Sight, policy: Policy) -> tuple[Track, tuple[Detection, ...]]:
    """Return what is remembered after a look, and what is seen now."""
    track = _track(before, sight)
    found = [each for each in _found(track, sight, policy) if each is not None]
    since = {each.signal: track.since.get(each.signal, sight.at) for each in found}
    seen = tuple(replace(each, held_s=sight.at - since[each.signal]) for each in found)
    return replace(track, since={**_pending(track, sight), **since}), seen


def _track(before: Track | None, sight: Sight) -> Track:
    output, cpu = sight.vitals.output, sight.vitals.cpu_s
    if before is None:
        return Track(output, sight.report, sight.at, cpu, sight.awake_s, sight.at)
    if (before.output, before.report) != (output, sight.report):
        return replace(before, output=output, report=sight.report, quiet_since=sight.at, quiet_cpu=cpu)
    return before


def _pending(track: Track, sight: Sight) -> dict[Signal, float]:
    """Return since when it is halted, also as long as that is too short to be said."""
    if sight.vitals.halted:
        return {Signal.STOPPED: track.since.get(Signal.STOPPED, sight.at)}
    return {}


def _found(track: Track, sight: Sight, policy: Policy) -> Iterable[Detection | None]:
    yield _stopped(track, sight, policy)
    yield _stalled(track, sight, policy)
    yield _wall(track, sight, policy)
    yield _memory(track, sight, policy)
    yield _output(sight, policy)
    yield _lingers(track, sight, policy)


def _stopped(track: Track, sight: Sight, policy: Policy) -> Detection | None:
    if not policy.stopped_after_s or not sight.vitals.halted:
        return None
    halted = sight.at - track.since.get(Signal.STOPPED, sight.at)
    if halted < policy.stopped_after_s:
        return None
    evidence = {"halted_s": round(halted, 1), "limit_s": policy.stopped_after_s}
    return Detection(Signal.STOPPED, 0.0, evidence, halted > 0, policy.on_stopped)


def _stalled(track: Track, sight: Sight, policy: Policy) -> Detection | None:
    silent = sight.at - track.quiet_since
    if not policy.stall_after_s or silent < policy.stall_after_s or sight.said in FINAL:
        return None  # one that says that it is done is not stalled: it lingers
    evidence = {"silent_s": round(silent, 1), "limit_s": policy.stall_after_s, **_worked(track, sight)}
    return Detection(Signal.STALLED, 0.0, evidence, _idle(track, sight), policy.on_stall)


def awake(track: Track, sight: Sight) -> float:
    """Return for how long at least a run has been running while the machine was awake."""
    return track.awake_at_first + sight.at - track.first_at


def _wall(track: Track, sight: Sight, policy: Policy) -> Detection | None:
    ran = awake(track, sight)
    if not policy.wall_limit_s or ran < policy.wall_limit_s:
        return None
    age = sight.vitals.age_s
    evidence = {"ran_s": round(ran, 1), "limit_s": policy.wall_limit_s, "age_s": age and round(age, 1)}
    return Detection(
        Signal.WALL_TIME, 0.0, evidence, age is not None and age >= policy.wall_limit_s, policy.on_wall
    )


def _memory(track: Track, sight: Sight, policy: Policy) -> Detection | None:
    used = sight.vitals.memory_mb
    if not policy.memory_limit_mb or used is None or used <= policy.memory_limit_mb:
        return None
    evidence = {
        "memory_mb": round(used, 1),
        "limit_mb": policy.memory_limit_mb,
        "processes": sight.vitals.processes,
    }
    confirmed = track.since.get(Signal.MEMORY, sight.at) < sight.at  # by the look before
    return Detection(Signal.MEMORY, 0.0, evidence, confirmed, policy.on_memory)


def _output(sight: Sight, policy: Policy) -> Detection | None:
    written = sight.vitals.output / MB
    if not policy.output_limit_mb or written <= policy.output_limit_mb:
        return None
    evidence = {"output_mb": round(written, 1), "limit_mb": policy.output_limit_mb}
    return Detection(Signal.OUTPUT, 0.0, evidence, bool(sight.vitals.alive), policy.on_output)


def _lingers(track: Track, sight: Sight, policy: Policy) -> Detection | None:
    silent = sight.at - track.quiet_since
    if not policy.linger_after_s or sight.said not in FINAL or silent < policy.linger_after_s:
        return None
    evidence = {
        "said": sight.said,
        "silent_s": round(silent, 1),
        "limit_s": policy.linger_after_s,
        **_worked(track, sight),
    }
    return Detection(Signal.LINGERS, 0.0, evidence, _idle(track, sight), policy.on_linger)


def _worked(track: Track, sight: Sight) -> dict[str, Any]:
    used = _used(track, sight)
    return {"cpu_s": None if used is None else round(used, 2)}


def _used(track: Track, sight: Sight) -> float | None:
    """Return the processor time since the silence began; None: nobody can say."""
    if sight.vitals.cpu_s is None or track.quiet_cpu is None:
        return None
    return max(0.0, sight.vitals.cpu_s - track.quiet_cpu)


def _idle(track: Track, sight: Sight) -> bool:
    """Say whether the tree has done next to nothing since it is silent: the second witness of a stall."""
    used = _used(track, sight)
    return used is not None and used <= IDLE * (sight.at - track.quiet_since) + 0.01


# ---------------------------------------------------------------- the flags


def changes(
    found: Mapping[Signal, Detection], open_: Iterable[Signal]
) -> tuple[tuple[Detection, ...], tuple[Signal, ...]]:
    """Return what is to be flagged, and which flags are no longer true."""
    standing = set(open_)
    return (
        tuple(each for signal, each in found.items() if signal not in standing),
        tuple(signal for signal in standing if signal not in found),
    )


# ---------------------------------------------------------------- restarts


def restart_at(policy: Policy, earlier: Sequence[float], *, ended_at: float, now: float) -> float | None:
    """Return when an agent may go on after a stop of the watchdog's, None: it was restarted as often as it
    may within the window. A restart from the future (the clock was set back) counts."""
    recent = [at for at in earlier if at > now - policy.restart_window_s]
    if len(recent) >= policy.restarts:
        return None
    return float(min(ended_at, now) + policy.restart_backoff_s * 2 ** len(recent))
