"""Look at what runs and bring the rows up to it: the step that every deploy, tick and repair shares.

The order is the rule: look, then deal with dead runners and dead deployers in their run directories,
then read rows and record. Nothing here starts an agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headcount.domain.account import Ending, ending_of
from headcount.domain.errors import HeadcountError
from headcount.domain.lifecycle import LIVE, Outcome, State
from headcount.domain.model import (
    ExitRecord,
    Form,
    LiveRun,
    LockState,
    Presence,
    Process,
    Run,
    RunKey,
    Seen,
    Started,
    StartRecord,
)
from headcount.domain.plan import (
    Adopt,
    Correct,
    Reap,
    RecordEnd,
    RecordLost,
    RecordVoid,
    RowAction,
    plan_files,
    plan_rows,
)
from headcount.domain.policy import Act
from headcount.domain.watchdog import Signal, outcome_of_stop
from headcount.harnesses.base import Verdict
from headcount.services import result
from headcount.services.context import Context
from headcount.store.registry import Tx

VERDICT_TAIL = 256 * 1024
"""Bytes of output that a harness may judge by; a result line of the known CLIs is far shorter."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and which dead runners' trees are gone.

    `began` is when the look began, by the clock of `LiveRun.reserved_boottime`.
    """

    seen: Mapping[RunKey, Seen]
    reaped: Mapping[RunKey, tuple[int, ...]] = field(default_factory=dict)
    verdicts: Mapping[RunKey, Verdict] = field(default_factory=dict)  # of those that have ended
    # what was left of dead runners' trees when they were found
    outlived: Mapping[RunKey, Sequence[int]] = field(default_factory=dict)
    began: float = float("inf")


@dataclass(frozen=True, slots=True)
class Settled:
    """A change of state that was recorded."""

    row: LiveRun
    action: RowAction


def look(context: Context, *, act: bool) -> Look:
    """Look at all live runs. With `act`, what dead runners left is killed and what dead deployers left
    is voided; without, a dead runner's run counts as gone only if nothing of it is left."""
    began = context.clock.boottime()
    return replace(refine(context, glance(context), act=act), began=began)


def glance(context: Context) -> dict[RunKey, Seen]:
    """Look at all live runs, and no further."""
    return {each.key: each for each in context.placement.look()}


def refine(context: Context, seen: Mapping[RunKey, Seen], *, act: bool) -> Look:
    """Deal with dead runners and deployers among `seen`."""
    verdicts = _verdicts(context, seen.values())
    if not act:
        return Look(seen, dict.fromkeys(_without_remains(context, seen.values()), ()), verdicts)
    known = dict(seen)
    for key in context.given_up & seen.keys():
        known[key] = replace(seen[key], deployer=Presence.DEAD)
    reaped: dict[RunKey, tuple[int, ...]] = {}
    outlived: dict[RunKey, Sequence[int]] = {}
    for action in plan_files(tuple(known.values())):
        key = action.seen.key
        if isinstance(action, Reap):
            outlived |= context.placement.remains((action.seen,))
            survivors = context.placement.reap(action.seen)
            if survivors is not None:
                reaped[key] = tuple(survivors)
        else:
            known[key] = context.placement.void(
                key, action.seen.path, reason="the deployer died before the runner started"
            )
    return Look(known, reaped, verdicts, outlived)


def _verdicts(context: Context, seen: Iterable[Seen]) -> dict[RunKey, Verdict]:
    """Judge runs that have ended, before anybody waits for us: an answer may be long, and a schema slow.

    Without a registry that can be read nothing is judged: whoever records an end then judges it himself.
    """
    ended = [each for each in seen if each.exit is not None and each.lock is LockState.FREE]
    if not ended:
        return {}
    try:
        with context.registry.read() as tx:
            runs = [(each, tx.runs.get(each.key.agent_id, each.key.n)) for each in ended]
    except HeadcountError:
        return {}
    return {
        each.key: judge(context, run, each.exit)
        for each, run in runs
        if run is not None and run.live and each.exit
    }


def _without_remains(context: Context, seen: Iterable[Seen]) -> list[RunKey]:
    """Return the runs whose runner was killed and of which nothing is left: the agent's own end is not
    enough, what it started may live on."""
    dead = [each.seen for each in plan_files(seen) if isinstance(each, Reap)]
    gone = [each for each in dead if each.start and _is_dead(context, each.start.process)]
    return [key for key, left in context.placement.remains(gone).items() if not left] if gone else []


def _is_dead(context: Context, process: Process) -> bool:
    return context.placement.presence(process) is Presence.DEAD


def record(context: Context, tx: Tx, looked: Look, rows: Sequence[LiveRun]) -> list[Settled]:
    """Record in `tx` what the look says of `rows`, each by compare-and-set with its event."""
    now = context.clock.now()
    done = []
    for action in plan(context, looked, rows):
        if _apply(context, tx, action, looked.verdicts, now):
            done.append(Settled(action.row, action))
            if left := looked.outlived.get(action.row.key):
                _flag_outlived(tx, action.row, left, now)
    return done


def _flag_outlived(tx: Tx, row: LiveRun, left: Sequence[int], now: float) -> None:
    """Have it on record that an agent's tree lived on without its runner, until it was ended."""
    evidence = {"runner_pid": row.runner.pid if row.runner else None, "pids": list(left)}
    if tx.flags.put(row.key, Signal.RUNNER_GONE, evidence=evidence, action=Act.FLAG, now=now):
        _event(tx, "flag_raised", row, now, reason=Signal.RUNNER_GONE, data=evidence)


def plan(context: Context, looked: Look, rows: Sequence[LiveRun]) -> list[RowAction]:
    """Return what `record` would do. Rows without a mark in `live/` are looked at directly, their
    deployers first: what a dead one left is final, what a living one left may not be. Not judged are
    rows that were reserved since the look began: in a crowd of deploys that would be most rows, each of
    them being started by somebody."""
    boot_id = context.placement.self_process().boot_id
    rows = [row for row in rows if row.reserved_boottime <= looked.began or row.deployer.boot_id != boot_id]
    undecided = [row for row in rows if row.runner is None and row.state in LIVE]
    deployers = {row.key: _deployer(context, row) for row in undecided}
    seen = dict(looked.seen)
    for row in rows:
        if row.key not in seen:
            seen[row.key] = context.placement.look_at(row.key, row.path)
        seen[row.key] = _if_taken_away(context, row, seen[row.key])
    return plan_rows(rows, seen, deployers=deployers, reaped=looked.reaped, boot_id=boot_id)


def _if_taken_away(context: Context, row: LiveRun, seen: Seen) -> Seen:
    """Return what to make of a confirmed run without any record: somebody has taken its directory away,
    lock and all, and only the death of its runner says that it is over. It is looked at again first: it may
    have been started, and its runner killed, between the look and the reading of the row."""
    if row.runner is None or not _is_bare(seen):
        return seen
    seen = context.placement.look_at(row.key, row.path)
    if not _is_bare(seen):
        return seen
    if _is_dead(context, row.runner):
        return replace(seen, marked=False)
    return replace(seen, lock=LockState.UNKNOWN, error="its run directory is gone, but its runner lives")


def _is_bare(seen: Seen) -> bool:
    return seen.lock is LockState.FREE and not (seen.start or seen.exit or seen.void)


def _deployer(context: Context, row: LiveRun) -> Presence:
    return Presence.DEAD if row.key in context.given_up else context.placement.presence(row.deployer)


def _apply(
    context: Context, tx: Tx, action: RowAction, verdicts: Mapping[RunKey, Verdict], now: float
) -> bool:
    match action:
        case Adopt(row, start):
            return confirm(
                tx, row, Started(start.runner, start.process, start.started_at), now=now, adopted=True
            )
        case Correct(row, start):
            return correct(tx, row, start, now=now)
        case RecordEnd(row, exit_record, start):
            if row.runner is None and start is not None:
                confirm(
                    tx, row, Started(start.runner, start.process, start.started_at), now=now, adopted=True
                )
            return end(context, tx, row, exit_record, verdict=verdicts.get(row.key), now=now)
        case RecordVoid(row, reason):
            return start_failed(tx, row, reason, now=now)
        case RecordLost(row, reason, survivors):
            changed = tx.runs.lost(row.key, reason=reason, survivors=survivors, now=now)
            if changed:
                _event(tx, "run_lost", row, now, reason=reason, data={"survivors": list(survivors)})
            return changed


def confirm(tx: Tx, row: LiveRun, started: Started, *, now: float, adopted: bool = False) -> bool:
    """Record that a reserved run is running; False if it is no longer reserved."""
    changed = tx.runs.confirm(
        row.key, runner=started.runner, process=started.process, started_at=started.started_at, now=now
    )
    if changed:
        data = {"pid": started.process.pid, "runner_pid": started.runner.pid, "adopted": adopted}
        _event(tx, "run_started", row, now, data=data)
        _told(tx, row, now)
    return changed


def _told(tx: Tx, row: LiveRun, now: float) -> None:
    """Record that what was in the prompt of a run has reached its agent, which is known to have begun."""
    if row.key.n > 1:  # only then there can be messages in its prompt
        for number in tx.messages.begun(row.key, now=now):
            _event(tx, "message_delivered", row, now, data={"message": number, "way": "resume"})


def correct(tx: Tx, row: LiveRun, start: StartRecord, *, now: float) -> bool:
    """Have a live row name the processes that its start record does; False if it has changed meanwhile."""
    changed = row.runner is not None and tx.runs.correct(
        row.key, was=row.runner, runner=start.runner, process=start.process
    )
    if changed and row.runner is not None:
        data = {"pid": start.process.pid, "runner_pid": start.runner.pid, "was_runner_pid": row.runner.pid}
        _event(tx, "run_corrected", row, now, reason="its start record names other processes", data=data)
    return changed


def end(
    context: Context, tx: Tx, row: LiveRun, record: ExitRecord, *, verdict: Verdict | None = None, now: float
) -> bool:
    """Record an exit with the harness's verdict; False if somebody else did."""
    verdict = _as_asked(verdict or judge(context, row, record), row, record)
    changed = tx.runs.end(
        row.key,
        outcome=verdict.outcome,
        exit=record,
        reason=verdict.reason,
        ending=verdict.ending or ending_of(verdict.outcome, record),
        result=verdict.result,
        usage=verdict.usage,
        survivors=record.survivors,
        now=now,
    )
    if changed:
        data = {"outcome": verdict.outcome.value, "exit_code": record.code, "signal": record.signal}
        _event(tx, "run_ended", row, now, reason=verdict.reason, data=data)
        if record.error is None:
            _told(tx, row, now)  # it may have begun without being confirmed: a stop came in between
        else:
            _untold(tx, row)
    return changed


def start_failed(tx: Tx, row: LiveRun, reason: str, *, now: float) -> bool:
    """Record that a run never began; False if somebody else settled it."""
    outcome = Outcome.STOPPED if row.state is State.STOPPING else Outcome.START_FAILED
    changed = tx.runs.end(
        row.key,
        outcome=outcome,
        exit=None,
        reason=reason,
        ending=ending_of(outcome, None),
        result=None,
        usage=None,
        survivors=(),
        now=now,
    )
    if changed:
        _event(tx, "run_ended", row, now, reason=reason, data={"outcome": outcome.value})
        _untold(tx, row)
    return changed


def _untold(tx: Tx, row: LiveRun) -> None:
    """Let what was in the prompt of a run that never began wait again. After a stop, which is final, it waits
    for somebody who resumes the agent, and does not do that itself."""
    if row.key.n > 1:
        tx.messages.release(row.key, stopped=row.state is State.STOPPING)


def judge(context: Context, row: LiveRun | Run, record: ExitRecord) -> Verdict:
    """Return what the run's own output and its exit record say."""
    if record.error is not None:
        return Verdict(Outcome.START_FAILED, record.error)
    tail = context.placement.read_output(row.path, offset=-VERDICT_TAIL, limit=VERDICT_TAIL).data
    harness = context.harness(row.read_by)
    verdict = harness.verdict(record, tail)
    schema = row.options.get("result_schema") if row.form is Form.HEADLESS else None
    if verdict.outcome is Outcome.COMPLETED and not record.stopped and isinstance(schema, dict):
        return result.held_to(schema, verdict, harness, tail)
    return verdict


def _as_asked(verdict: Verdict, row: LiveRun, record: ExitRecord) -> Verdict:
    """That we stopped it stands above whatever exit code came of it."""
    if record.stopped and record.error is None:
        outcome, reason = outcome_of_stop(row.stop_reason), row.stop_reason or "stopped"
        return replace(verdict, outcome=outcome, reason=reason, ending=Ending.STOPPED)
    return verdict


def tidy(context: Context, settled: Iterable[Settled], *, close_views: bool) -> None:
    """After the commit: take what is over out of `live/`, and its view away."""
    for each in settled:
        if isinstance(each.action, (Adopt, Correct)):
            continue
        context.placement.unmark(each.row.key)
        if close_views:
            context.views.hide(each.row.key.agent_id)


def observe(context: Context) -> list[Settled]:
    """Record what can be seen, killing and creating nothing: what a status call does first.

    Opens a write transaction only if there is something to record.
    """
    looked = look(context, act=False)
    with context.registry.read() as tx:
        rows = tx.runs.live()
    if not plan(context, looked, rows):
        return []
    with context.registry.write("observe") as tx:
        settled = record(context, tx, looked, tx.runs.live())
    tidy(context, settled, close_views=False)
    return settled


def held(seen: Seen | None) -> bool:
    """Say whether a runner holds the run's lock, as far as was seen."""
    return seen is not None and seen.lock is LockState.HELD


def _event(
    tx: Tx, kind: str, row: LiveRun, now: float, *, reason: str | None = None, data: Mapping[str, object]
) -> None:
    tx.events.add(
        kind, task_id=row.task_id, agent_id=row.key.agent_id, run=row.key.n, reason=reason, data=data, now=now
    )
