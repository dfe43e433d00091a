"""Stop one agent, or all of them. The intent is on record before anything is signalled."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from headcount.domain.errors import HeadcountError, Infrastructure, NotAllowed
from headcount.domain.lifecycle import State
from headcount.domain.model import LiveRun, LockState, Presence, Process, Run, RunKey, Seen
from headcount.services import given, rights, settle
from headcount.services.answers import Halted, Stopped
from headcount.services.context import Context
from headcount.store.registry import Tx

SETTLE_TIME: Final = 5.0
"""Seconds beyond the grace in which a runner ends what it must kill and writes its exit record."""

STILL_ENDING: Final = "it has not ended yet; it is killed as soon as it can be"
POLL: Final = (0.001, 0.05)
"""Seconds between looks while a run ends: the first, and the longest after doubling."""


def stop(context: Context, agent_id: str, *, reason: str, grace: float | None) -> Stopped:
    """End an agent and its whole tree; return when that is recorded, or what survives.

    Killed after the intent is recorded: the next headcount sends the stop again.

    Raises:
        InvalidInput: a grace that is not 0 seconds to a day.
        NotFound: no such agent.
        NotAllowed: an agent asks for one that is not below it.
    """
    grace = context.settings.grace if grace is None else given.number("grace", grace, most=given.SPAN_MAX)
    given.text("reason", reason)
    run = _intend(context, agent_id, reason or ("killed" if grace == 0 else "stopped"))
    if not run.live:
        return stopped(run, was_live=False, note="it was over already")
    return end(context, run, grace=grace)


def _intend(context: Context, agent_id: str, reason: str) -> Run:
    with context.registry.write("stop") as tx:
        run = rights.existing(tx, agent_id)
        rights.over(context, tx, run)
        forgo_restarts(context, tx, agent_id)
        if run.live and run.state is not State.STOPPING:
            mark(context, tx, run.key, run.task_id, reason)
            return rights.existing(tx, agent_id)
        return run


def forgo_restarts(context: Context, tx: Tx, agent_id: str | None) -> None:
    """Record that what the watchdog has yet to restart, of one agent or of all, stays as it is."""
    tx.flags.forgo(agent_id, reason="it was stopped", now=context.clock.now())


def mark(context: Context, tx: Tx, key: RunKey, task_id: str, reason: str, *, by: str | None = None) -> bool:
    """Record that a run is to stop, and who wants it: the caller, if `by` names nobody else."""
    by, now = by or _asker(context, tx), context.clock.now()
    changed = tx.runs.stop_asked(key, reason=reason, by=by, now=now)
    if changed:
        tx.events.add(
            "stop_asked",
            task_id=task_id,
            agent_id=key.agent_id,
            run=key.n,
            reason=reason,
            data={"by": by},
            now=now,
        )
    return changed


def _asker(context: Context, tx: Tx) -> str:
    own = rights.caller_run(context, tx)
    return rights.PERSON if own is None else own.key.agent_id


def end(context: Context, run: Run, *, grace: float) -> Stopped:
    """Signal a run whose stop is on record, wait until it is over, settle its row.

    One that is just being deployed is ended by its deployer, which sees the row at its next step.
    """
    context.placement.signal_stop(run.key, run.path, grace=grace)
    seen = until_over(context, run.key, run.path, grace=grace, deployer=run.deployer)
    looked = settle.refine(context, {seen.key: seen}, act=True)
    with context.registry.write("stop") as tx:
        rows = [row for row in tx.runs.live() if row.key == run.key]
        settle.record(context, tx, looked, rows)
        after = rights.existing(tx, run.key.agent_id, run.key.n)
    if not after.live:
        context.placement.unmark(run.key)
        context.views.hide(run.key.agent_id)
    return stopped(after, was_live=True, note=STILL_ENDING if after.live else "")


def until_over(
    context: Context, key: RunKey, path: str, *, grace: float, deployer: Process | None = None
) -> Seen:
    """Wait until nothing of a run can live any more, at most grace + SETTLE_TIME; return the last look.

    A free lock says so if there is a record beside it, or nobody (`deployer`) who is about to start it.
    """
    deadline = context.clock.monotonic() + grace + SETTLE_TIME
    pause = POLL[0]
    while True:
        seen = context.placement.look_at(key, path)
        settled = seen.start or seen.exit or seen.void or deployer is None
        if seen.lock is LockState.FREE and (
            settled or (deployer and context.placement.presence(deployer) is Presence.DEAD)
        ):
            return seen
        if context.clock.monotonic() >= deadline:
            return seen
        context.clock.pause(pause)
        pause = min(pause * 1.5, POLL[1])


def stopped(run: Run, *, was_live: bool, note: str = "") -> Stopped:
    """Return what became of a run that was to stop."""
    return Stopped(
        agent_id=run.key.agent_id,
        run=run.key.n,
        state=run.state.value,
        outcome=run.outcome.value if run.outcome else None,
        exit_code=run.exit_code,
        signal=run.signal,
        survivors=run.survivors,
        was_live=was_live,
        note=note,
    )


def halt(context: Context, *, reason: str) -> Halted:
    """End every live agent at once and refuse deploys until `release`.

    The halt file comes first, then the kill of all that is marked live, then the rows, then the kill once
    more: a deploy that reserved before the file is among the rows, a later one sees the file. Works
    without the daemon, and waits for nobody before the first kill, however long the registry is held.

    Raises:
        NotAllowed: an agent asks.
    """
    person_only(context, "halt the fleet")
    notes = [_raise_flag(context, reason)]
    killed = _kill_marked(context)
    runs: list[Run] | None = None
    try:
        runs = _intend_all(context, reason or "halt", killed)
    except HeadcountError as error:
        notes.append(
            f"the registry could not be written ({error.message}); runs were killed by their directories"
        )
    killed |= _kill_marked(context)
    ended = _end_unrecorded(context, killed.values()) if runs is None else end_all(context, runs, grace=0.0)
    return Halted(True, ended, "; ".join(filter(None, notes)))


def _kill_marked(context: Context) -> dict[RunKey, Seen]:
    marked = {each.key: each for each in context.placement.look()}
    for key, seen in marked.items():
        context.placement.signal_stop(key, seen.path, grace=0.0)
    return marked


def person_only(context: Context, what: str) -> None:
    """Raise NotAllowed if it is an agent that asks for `what`."""
    if context.token is not None or context.caller.agent_id is not None:
        raise NotAllowed(f"only a person may {what}")


def _raise_flag(context: Context, reason: str) -> str:
    """Let deploys be refused from now on; return what is to be said if that could not be done. The file
    counts, not the words in it: for those a full disk may have no room."""
    try:
        flag = os.open(context.home.halted, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        return f"new deploys are not refused: {context.home.halted} cannot be written ({error.strerror})"
    try:
        with contextlib.suppress(OSError):
            os.write(flag, (reason[:500] + "\n").encode())
            os.fsync(flag)
    finally:
        os.close(flag)
    return ""


def _intend_all(context: Context, reason: str, killed: Iterable[RunKey]) -> list[Run]:
    """Record the intent on every live row; return these runs, and those of `killed` that have a row."""
    with context.registry.write("halt") as tx:
        forgo_restarts(context, tx, None)
        live = tx.runs.live()
        for row in live:
            mark(context, tx, row.key, row.task_id, reason)
        tx.events.add("halted", reason=reason, data={"live": len(live)}, now=context.clock.now())
        found = [
            tx.runs.get(key.agent_id, key.n) for key in dict.fromkeys((*(row.key for row in live), *killed))
        ]
    return [run for run in found if run is not None]


def end_all(context: Context, runs: Sequence[Run], *, grace: float) -> tuple[Stopped, ...]:
    """End runs whose stop is on record side by side: each waits for its own runner."""
    if not runs:
        return ()
    with ThreadPoolExecutor(max_workers=min(16, len(runs))) as pool:
        return tuple(pool.map(lambda run: end(context, run, grace=grace), runs))


def _end_unrecorded(context: Context, marked: Iterable[Seen]) -> tuple[Stopped, ...]:
    """Wait for runs that were told to end, where no row can be written; say what their directories say."""
    return tuple(_unrecorded(context, each) for each in marked)


def _unrecorded(context: Context, marked: Seen) -> Stopped:
    seen = until_over(context, marked.key, marked.path, grace=0.0)
    looked = settle.refine(context, {seen.key: seen}, act=True)
    found, over = seen.exit, seen.lock is LockState.FREE
    return Stopped(
        agent_id=seen.key.agent_id,
        run=seen.key.n,
        state=(State.ENDED if found or seen.void else State.LOST if over else State.STOPPING).value,
        outcome=None,
        exit_code=found.code if found else None,
        signal=found.signal if found else None,
        survivors=found.survivors if found else looked.reaped.get(seen.key, ()),
        was_live=True,
        note="its end is recorded by the next headcount" if over else STILL_ENDING,
    )


def release(context: Context) -> Halted:
    """Lift the emergency stop.

    Raises:
        NotAllowed: an agent asks.
        Infrastructure: the home cannot be written; it is still in force.
    """
    person_only(context, "lift a halt")
    try:
        context.home.halted.unlink(missing_ok=True)
    except OSError as error:
        raise Infrastructure(
            f"{context.home.halted} cannot be removed: {error.strerror}",
            hint="make its directory one that you can write to",
        ) from error
    with context.registry.write("release halt") as tx:
        tx.events.add("halt_released", data={}, now=context.clock.now())
    return Halted(False)


def resend(context: Context, row: LiveRun) -> None:
    """Send a recorded stop again: its sender may have died before it was sent."""
    context.placement.signal_stop(row.key, row.path, grace=context.settings.grace)
