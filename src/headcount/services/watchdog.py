"""Look at live runs, flag what is wrong with them, and do about it what their policy says.

What ends a run is done only when a second witness says the same, after a time, and after one more look at the
moment itself. Intent stands above it: what a person or parent stopped, paused or halted is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from headcount.domain.errors import NotFound, PlacementFailed, Refused
from headcount.domain.lifecycle import Outcome, State
from headcount.domain.model import Form, Run, RunKey, TaskState
from headcount.domain.options import Ability
from headcount.domain.policy import ENDS, Act, Policy
from headcount.domain.watchdog import (
    BY,
    FINAL,
    WORDS,
    Detection,
    Sight,
    Signal,
    Track,
    changes,
    look,
    restart_at,
    stop_reason,
)
from headcount.services import admit, messages, resume, stop
from headcount.services.answers import Deployed
from headcount.services.context import Context
from headcount.services.policies import policy
from headcount.services.request import Again
from headcount.store.flags import Flag, Watched
from headcount.store.registry import Tx

ENDS_BEHIND: Final = 1000
"""Events before its start that a daemon looks through for runs that ended meanwhile."""
NEWS: Final = 86_400.0
"""Seconds for which it is told that a run ended without a final report."""
RESTART_DUE: Final = 3600.0
"""Seconds after a stop in which its restart is made; what is longer over was seen by somebody."""


@dataclass(slots=True)
class Memory:
    """What a daemon remembers from one look to the next."""

    tracks: dict[RunKey, Track] = field(default_factory=dict)
    cursor: int | None = None  # of the journal


@dataclass(frozen=True, slots=True)
class Subject:
    """One run that was looked at."""

    run: Run
    policy: Policy
    track: Track
    found: Mapping[Signal, Detection]


@dataclass(frozen=True, slots=True)
class Due:
    """A flag about which something is to be done now."""

    flag: Flag
    subject: Subject


# ---------------------------------------------------------------- a look


def tick(context: Context, memory: Memory, at: float) -> list[Due]:
    """Look at every live run and bring the flags up to that; return about which something is to be done.

    `at` is how many seconds were watched until now.
    """
    with context.registry.read() as tx:
        watched = tx.flags.watched()
    subjects = _look(context, watched, memory.tracks, at)
    memory.tracks = {key: each.track for key, each in subjects.items()}
    over = _ended(context, memory)
    with context.registry.read() as tx:
        flags = tx.flags.open()
        stale = [each for each in flags if _is_stale(context, tx, each)]
    if stale or over or _differ(subjects, flags):
        flags = _record(context, subjects, stale, over)
    return [due for flag in flags if (due := _due(flag, subjects)) is not None]


def _look(
    context: Context, watched: Sequence[Watched], tracks: Mapping[RunKey, Track], at: float
) -> dict[RunKey, Subject]:
    if not watched:
        return {}
    policies = {each.run.key: policy(context, each.run, each.policies) for each in watched}
    boot_id = context.placement.self_process().boot_id
    runs = [each.run for each in watched]
    weigh = {key for key, each in policies.items() if each.memory_limit_mb}
    vitals = context.placement.vitals(runs, weigh=weigh)
    with context.registry.read() as tx:  # after the look at the machine: what was said before it is known
        said = tx.reports.latest_of(policies)
    found = {}
    for each in watched:
        key = each.run.key
        report = said.get(key)
        sight = Sight(
            at,
            _awake(context, each, boot_id),
            vitals[key],
            report.id if report else 0,
            report.status if report else None,
        )
        track, seen = look(tracks.get(key), sight, policies[key])
        found[key] = Subject(each.run, policies[key], track, {one.signal: one for one in seen})
    return found


def _awake(context: Context, watched: Watched, boot_id: str) -> float:
    """Return for how long at least a run has been running while the machine was awake: since its start, less
    all the time that the machine has slept since its boot."""
    if watched.run.deployer.boot_id != boot_id or not watched.reserved_boottime:
        return 0.0
    boottime = context.clock.boottime()
    slept = max(0.0, boottime - context.clock.monotonic())
    return max(0.0, boottime - watched.reserved_boottime - slept)


def _ended(context: Context, memory: Memory) -> list[Run]:
    """Return the runs that have ended since the last look without the final report they were asked for."""
    with context.registry.read() as tx:
        last = tx.events.last()
        if memory.cursor is None:
            memory.cursor = max(0, last - ENDS_BEHIND)
        if last == memory.cursor:
            return []
        events = tx.events.since(memory.cursor, limit=ENDS_BEHIND, kinds=("run_ended",))
        memory.cursor = events[-1].seq if len(events) == ENDS_BEHIND else last
        runs = [tx.runs.get(each.agent_id or "", each.run) for each in events]
        known = {flag.key for flag in tx.flags.open() if flag.kind is Signal.UNREPORTED}
        return [run for run in runs if run and run.key not in known and _unreported(context, tx, run)]


def _unreported(context: Context, tx: Tx, run: Run) -> bool:
    """Say whether a run is the last of its agent, was told to report at its end, and did not."""
    if run.live or run.stop_reason is not None or run.form is not Form.HEADLESS:
        return False
    if run.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
        return False
    if run.ended_at is not None and run.ended_at < context.clock.now() - NEWS:
        return False
    if not context.harness(run.harness).wraps_prompt:
        return False
    latest, said = tx.runs.get(run.key.agent_id), tx.reports.latest_of((run.key,)).get(run.key)
    return (latest is None or latest.key == run.key) and (said is None or said.status not in FINAL)


# ---------------------------------------------------------------- the flags


def _is_stale(context: Context, tx: Tx, flag: Flag) -> bool:
    """Say whether a flag of a run that is not looked at is no longer true."""
    if flag.live:
        return False
    if flag.kind is not Signal.UNREPORTED:
        return True
    run = tx.runs.get(flag.key.agent_id, flag.key.n)
    return run is None or not _unreported(context, tx, run)


def _differ(subjects: Mapping[RunKey, Subject], flags: Iterable[Flag]) -> bool:
    standing = _standing(flags)
    return any(any(changes(each.found, standing.get(key, ()))) for key, each in subjects.items())


def _standing(flags: Iterable[Flag]) -> dict[RunKey, dict[Signal, Flag]]:
    found: dict[RunKey, dict[Signal, Flag]] = {}
    for flag in flags:
        found.setdefault(flag.key, {})[flag.kind] = flag
    return found


def _record(
    context: Context, subjects: Mapping[RunKey, Subject], stale: Iterable[Flag], over: Iterable[Run]
) -> list[Flag]:
    """Raise and clear flags, each with its event; return those that are open then."""
    with context.registry.write("watchdog") as tx:
        standing = _standing(tx.flags.open())
        for flag in stale:
            _clear(context, tx, flag)
        for key, each in subjects.items():
            now = tx.runs.get(key.agent_id, key.n)
            if now is None or now.state is not State.RUNNING:
                continue  # it ended, or is being ended, since it was looked at
            found, gone = changes(each.found, standing.get(key, ()))
            for detection in found:
                _put(context, tx, each.run, detection)
            for signal in gone:
                _clear(context, tx, standing[key][signal])
        for run in over:
            act = policy(context, run, tx.flags.policies(run.key.agent_id)).on_unreported
            seen = Detection(Signal.UNREPORTED, 0.0, {"outcome": run.outcome}, confirmed=True, act=act)
            _put(context, tx, run, seen)
        return tx.flags.open()


def _put(context: Context, tx: Tx, run: Run, seen: Detection) -> None:
    """Raise a flag, unless it is raised already."""
    now = context.clock.now()
    if tx.flags.put(run.key, seen.signal, evidence=seen.evidence, action=seen.act, now=now):
        _event(tx, "flag_raised", run, seen.signal, {**seen.evidence, "action": seen.act}, now=now)


def _clear(context: Context, tx: Tx, flag: Flag) -> None:
    """Clear a flag that is no longer true."""
    now = context.clock.now()
    if tx.flags.clear(flag.id, now=now):
        _event(tx, "flag_cleared", flag, flag.kind, {}, now=now)


def _event(tx: Tx, kind: str, of: Run | Flag, reason: str, data: Mapping[str, object], *, now: float) -> None:
    tx.events.add(
        kind, task_id=of.task_id, agent_id=of.key.agent_id, run=of.key.n, reason=reason, data=data, now=now
    )


# ---------------------------------------------------------------- acts


def _due(flag: Flag, subjects: Mapping[RunKey, Subject]) -> Due | None:
    subject = subjects.get(flag.key)
    if flag.acted_at is not None or flag.action is Act.FLAG:
        return None
    if subject is None:
        return None
    seen = subject.found.get(flag.kind)
    return Due(flag, subject) if seen is not None and seen.may_act(subject.policy) else None


def tell_of_ended(context: Context) -> None:
    """Tell parents of children that ended without a final report, where that is the policy."""
    with context.registry.read() as tx:
        flags = [each for each in tx.flags.open() if each.kind is Signal.UNREPORTED]
    for flag in flags:
        if flag.action is Act.TELL_PARENT and flag.acted_at is None:
            _tell(context, flag)


def act(context: Context, due: Due, at: float, *, remember: Callable[[Run], None]) -> None:
    """Do about a flag what the policy says.

    `remember` keeps, of a run that is to be restarted, what only its process knows.
    """
    if due.flag.action not in ENDS:
        _tell(context, due.flag)
        return
    if not _still(context, due, at):
        return
    if due.flag.action is Act.RESTART:
        why = _why_no_restart(context, due.subject.run)
        if why:
            _give_up(context, due.flag, why)
            return
        remember(due.subject.run)
    _end(context, due)


def _still(context: Context, due: Due, at: float) -> bool:
    """Look once more at this one run, at the moment of acting."""
    key = due.flag.key
    with context.registry.read() as tx:
        watched = [each for each in tx.flags.watched() if each.run.key == key]
    again = _look(context, watched, {key: due.subject.track}, at).get(key)
    seen = again and again.found.get(due.flag.kind)
    return bool(again and seen and seen.may_act(again.policy))


def _end(context: Context, due: Due) -> None:
    """Stop a run, unless somebody's intent forbids it. Killed after the record, the headcount sends it."""
    flag, run = due.flag, due.subject.run
    with context.registry.write("watchdog stop") as tx:
        row, task, now = tx.runs.get(flag.key.agent_id), tx.tasks.get(flag.task_id), context.clock.now()
        if row is None or row.key != flag.key or row.state is not State.RUNNING:
            return
        if task is None or task.state is not TaskState.OPEN or context.home.halted.exists():
            return  # a person has said what is to become of it
        if not tx.flags.act(flag.id, now=now):
            return
        stop.mark(context, tx, flag.key, flag.task_id, stop_reason(flag.kind), by=BY)
        _event(tx, "flag_acted", flag, flag.kind, {"action": flag.action}, now=now)
        if flag.action is Act.STOP:
            tx.flags.finish(flag.id, now=now)
    context.placement.signal_stop(flag.key, run.path, grace=context.settings.grace)


def _tell(context: Context, flag: Flag) -> None:
    """Leave a message for the agent or its parent, once."""
    with context.registry.write("watchdog message") as tx:
        now, run = context.clock.now(), tx.runs.get(flag.key.agent_id, flag.key.n)
        if run is None or not tx.flags.act(flag.id, now=now):
            return
        whom = run if flag.action is Act.TELL_AGENT else run.parent and tx.runs.get(run.parent)
        if not whom:
            tx.flags.finish(flag.id, now=now, reason="it has no parent")
            return
        who = "you" if whom is run else f"{flag.key}, which you deployed"
        messages.record(context, tx, whom, _words(flag, who), resume=False)
        tx.flags.finish(flag.id, now=now)
        _event(tx, "flag_acted", flag, flag.kind, {"action": flag.action}, now=now)


def _words(flag: Flag, who: str) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in flag.evidence.items() if value is not None)
    return f"Headcount's watchdog, about {who}: {WORDS[flag.kind]} ({facts})."


# ---------------------------------------------------------------- restarts


def _why_no_restart(context: Context, run: Run) -> str:
    """Return why an agent could not go on after a stop; then it is not stopped."""
    if Ability.RESUME not in context.harness(run.harness).abilities:
        return f"harness {run.harness} has no conversations to go on with"
    with context.registry.read() as tx:
        runs = tx.runs.of_agent(run.key.agent_id)
    resume.learn(context, runs)
    try:
        with context.registry.read() as tx:
            admit.began_in(tx.runs.of_agent(run.key.agent_id))
    except Refused as error:
        return error.message
    return ""


def owed(context: Context) -> list[Flag]:
    """Return the restarts that were begun and are not through."""
    with context.registry.read() as tx:
        return tx.flags.owed()


def restart(context: Context, flag: Flag, *, env: tuple[str, ...] = ()) -> Deployed | None:
    """Let an agent that the watchdog stopped go on, if it is time; None: not now, or not at all.

    Raises:
        HeadcountError: as `resume`, where time mends it.
    """
    with context.registry.read() as tx:
        run = tx.runs.get(flag.key.agent_id)
        held = tx.flags.policies(flag.key.agent_id)
    if run is None or run.key != flag.key:
        _give_up(context, flag, "it goes on already")
        return None
    if run.live:
        return None
    due = _restart_at(context, flag, run, policy(context, run, held))
    if due is None:
        return None
    try:
        return resume.resume(replace(context, call=None), _again(context, flag, run, env))
    except (Refused, NotFound, PlacementFailed) as error:
        if error.code in messages.PASSING:
            raise
        _give_up(context, flag, error.message)
        return None


def _restart_at(context: Context, flag: Flag, run: Run, held: Policy) -> float | None:
    """Return when an agent may go on if that has come; give it up if it never does."""
    now = context.clock.now()
    with context.registry.read() as tx:
        earlier = tx.flags.restarted(flag.key.agent_id, since=now - held.restart_window_s)
    ended = run.ended_at or now
    due = restart_at(held, earlier, ended_at=ended, now=now)
    if due is None:
        window = f"{held.restart_window_s:.0f} s"
        _give_up(context, flag, f"it was restarted {len(earlier)} times within {window}")
    elif now > due + RESTART_DUE:
        _give_up(context, flag, "its time is over")
    elif due <= now:
        return due
    return None


def _again(context: Context, flag: Flag, run: Run, env: tuple[str, ...]) -> Again:
    if context.harness(run.harness).wraps_prompt:
        prompt: str | None = (
            f"Headcount's watchdog stopped you: {WORDS[flag.kind]}. Go on with your work from where it "
            "stood, and not in the way that brought you there."
        )
    else:
        with context.registry.read() as tx:
            agent = tx.runs.agent(run.key.agent_id)
        prompt = agent.prompt if agent else None
    return Again(run.key.agent_id, prompt, env, restart=flag.id)


def _give_up(context: Context, flag: Flag, reason: str) -> None:
    """Record, loudly, that an agent is not restarted."""
    with context.registry.write("watchdog") as tx:
        now = context.clock.now()
        if tx.flags.finish(flag.id, now=now, reason=reason):
            _event(tx, "restart_given_up", flag, reason, {"kind": flag.kind}, now=now)
