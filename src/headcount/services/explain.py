"""Say why an agent stands as it does: which signals there are, since when, and what would change it.

It looks and writes nothing but what every look records. What it cannot tell it says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from signal import Signals

from headcount.domain.lifecycle import State
from headcount.domain.model import Agent, Event, LockState, Report, Run, Seen, Task, TaskState
from headcount.domain.options import Ability
from headcount.domain.policy import ENDS, Policy
from headcount.domain.watchdog import WORDS, Vitals
from headcount.services import policies, rights, settle
from headcount.services.answers import Explained, FlagFacts, SignalFacts, iso
from headcount.services.context import Context
from headcount.store.flags import Flag
from headcount.store.registry import Tx

FLAGS_SHOWN = 20
EVENTS_READ = 1000


@dataclass(frozen=True, slots=True)
class Known:
    """All that an explanation is made of."""

    run: Run
    agent: Agent
    task: Task
    held: Policy
    seen: Seen
    vitals: Vitals | None  # of a live run
    said: Report | None
    asked: Event | None  # the stop that was asked for
    flags: tuple[Flag, ...]
    halted: bool


def explain(context: Context, agent_id: str) -> Explained:
    """Explain the state of an agent, by its latest run.

    Raises:
        NotFound: no such agent.
    """
    settle.observe(context)
    with context.registry.read() as tx:
        run = rights.existing(tx, agent_id)
    seen = context.placement.look_at(run.key, run.path)
    vitals = context.placement.vitals((run,), weigh=(run.key,))[run.key] if run.live else None
    with context.registry.read() as tx:  # after the look
        known = _known(context, tx, run, seen, vitals)
    return Explained(
        agent_id=agent_id,
        run=run.key.n,
        state=run.state.value,
        outcome=run.outcome.value if run.outcome else None,
        ending=run.ending,
        why=_why(known),
        signals=tuple(_signals(context, known)),
        flags=tuple(map(flag_facts, known.flags)),
        changes=tuple(_changes(context, known)),
        policy=asdict(known.held),
    )


def _known(context: Context, tx: Tx, run: Run, seen: Seen, vitals: Vitals | None) -> Known:
    agent_id = run.key.agent_id
    agent = tx.runs.agent(agent_id)
    assert agent is not None, "a run has its agent"
    asked = [
        each
        for each in tx.events.since(agent_id=agent_id, kinds=("stop_asked",), limit=EVENTS_READ)
        if each.run == run.key.n
    ]
    return Known(
        run=run,
        agent=agent,
        task=rights.existing_task(tx, run.task_id),
        held=policies.policy(context, run, tx.flags.policies(agent_id)),
        seen=seen,
        vitals=vitals,
        said=tx.reports.latest_of((run.key,)).get(run.key),
        asked=asked[-1] if asked else None,
        flags=tuple(tx.flags.of_agent(agent_id, limit=FLAGS_SHOWN)),
        halted=context.home.halted.exists(),
    )


def flag_facts(flag: Flag) -> FlagFacts:
    """Return a flag as doors show it."""
    return FlagFacts(
        kind=flag.kind.value,
        means=WORDS[flag.kind],
        run=flag.key.n,
        evidence=flag.evidence,
        raised_at=iso(flag.raised_at) or "",
        cleared_at=iso(flag.cleared_at),
        action=flag.action.value,
        acted_at=iso(flag.acted_at),
        done_at=iso(flag.done_at),
        reason=flag.reason,
    )


# ---------------------------------------------------------------- in a sentence


def _why(known: Known) -> str:
    run = known.run
    match run.state:
        case State.RESERVED:
            return "its deploy was admitted, and its program is not confirmed to run yet"
        case State.RUNNING:
            return "its program was confirmed to run, and its runner holds the run's lock"
        case State.STOPPING:
            return f"a stop was asked for ({run.stop_reason}), and it is not over yet"
        case State.LOST:
            return f"it is over and nobody knows how it ended: {run.reason or 'there is no exit record'}"
        case State.ENDED:
            how = _ended(run)
            return f"it ended, {run.outcome}: {run.reason or how}" + (f" ({how})" if run.reason else "")


def _ended(run: Run) -> str:
    if run.signal is not None:
        return f"killed by {_signal(run.signal)}"
    return "no exit code" if run.exit_code is None else f"exit code {run.exit_code}"


def _signal(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


# ---------------------------------------------------------------- what there is


def _signals(context: Context, known: Known) -> Iterator[SignalFacts]:
    run = known.run
    yield SignalFacts("state", run.state.value, iso(run.ended_at or run.started_at or run.reserved_at))
    yield SignalFacts("lock", _lock(known.seen), None)
    if known.asked is not None:
        words = f"asked for by {known.asked.data.get('by')}: {known.asked.reason or 'no reason given'}"
        yield SignalFacts("stop", words, iso(known.asked.at))
    if run.live:
        yield from _living(context, known)
    else:
        yield from _dead(known)
    if known.said is not None:
        progress = "" if known.said.progress is None else f" {known.said.progress}%"
        yield SignalFacts(
            "report", f"{known.said.status}{progress}: {known.said.message}", iso(known.said.at)
        )
    else:
        yield SignalFacts("report", "none in this run", None)
    if known.task.state is not TaskState.OPEN:
        yield SignalFacts("task", known.task.state.value, iso(known.task.closed_at))
    if known.halted:
        yield SignalFacts("halt", "the emergency stop is in force", None)


def _lock(seen: Seen) -> str:
    if seen.lock is LockState.HELD:
        return f"held by its runner, pid {seen.runner_pid}" if seen.runner_pid else "held by its runner"
    if seen.lock is LockState.FREE:
        records = [name for name in ("start", "exit", "void") if getattr(seen, name) is not None]
        return f"free; records: {', '.join(records) or 'none'}"
    return f"unknown: {seen.error or 'it cannot be probed'}"


def _living(context: Context, known: Known) -> Iterator[SignalFacts]:
    run, vitals = known.run, known.vitals or Vitals()
    for name, process in (("deployer", run.deployer), ("runner", run.runner), ("process", run.process)):
        if process is None or (name == "deployer" and run.state is not State.RESERVED):
            continue
        word = context.placement.presence(process).value
        halted = ", halted by a signal" if name == "process" and vitals.halted else ""
        yield SignalFacts(name, f"pid {process.pid} is {word}{halted}", None)
    yield SignalFacts("output", f"{vitals.output} bytes", iso(vitals.written_at))
    yield SignalFacts("processes", _told(vitals.processes, ""), None)
    yield SignalFacts("memory", _told(vitals.memory_mb, " MB"), None)
    yield SignalFacts("cpu", _told(vitals.cpu_s, " s"), None)


def _told(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{round(value, 1):g}{unit}"


def _dead(known: Known) -> Iterator[SignalFacts]:
    run = known.run
    yield SignalFacts("exit", _ended(run) if run.state is State.ENDED else "unknown", iso(run.ended_at))
    if run.survivors:
        pids = ", ".join(map(str, run.survivors))
        yield SignalFacts("survivors", f"could not be ended: {pids}", iso(run.ended_at))


# ---------------------------------------------------------------- what would change it


def _changes(context: Context, known: Known) -> Iterator[str]:
    if known.run.live:
        yield from _of_live(known)
    else:
        yield from _of_over(context, known)
    if known.halted:
        yield "while the emergency stop is in force nothing begins: 'headcount halt --release' lifts it"
    if known.task.state is not TaskState.OPEN:
        yield f"its task is {known.task.state}: it takes no new runs"


def _of_live(known: Known) -> Iterator[str]:
    match known.run.state:
        case State.RESERVED:
            yield "its deployer confirms or undoes it; if that is dead, the next headcount settles it"
        case State.STOPPING:
            yield "its runner ends the tree, at the latest when the grace has run out"
        case _:
            yield "it ends with its program, or by 'headcount stop'"
            yield from _limits(known.held)
            yield from (_planned(flag, known.held) for flag in known.flags if flag.cleared_at is None)


def _limits(held: Policy) -> Iterator[str]:
    for limit, words, act in (
        (held.stall_after_s, "{:g} s without output and report", held.on_stall),
        (held.wall_limit_s, "{:g} s of running", held.on_wall),
        (held.memory_limit_mb, "more than {:g} MB of memory", held.on_memory),
        (held.output_limit_mb, "more than {:g} MB of output", held.on_output),
        (held.linger_after_s, "{:g} s of silence after its final report", held.on_linger),
        (held.stopped_after_s, "{:g} s halted by a signal", held.on_stopped),
    ):
        if limit:
            yield f"{words.format(limit)}: {act}"


def _planned(flag: Flag, held: Policy) -> str:
    what = f"{flag.kind} since {iso(flag.raised_at)}"
    if flag.reason:
        return f"{what}: {flag.action} was given up, {flag.reason}"
    if flag.done_at is not None:
        return f"{what}: {flag.action} is done"
    if flag.action in ENDS and flag.acted_at is None:
        return f"{what}: {flag.action} after {held.act_after_s:g} s, if a second witness says the same"
    return f"{what}: {flag.action}"


def _of_over(context: Context, known: Known) -> Iterator[str]:
    owed = next((each for each in known.flags if each.acted_at and not each.done_at), None)
    if owed is not None:
        yield f"the watchdog lets it go on, {known.held.restart_backoff_s:g} s or more after its end"
    given_up = next((each for each in known.flags if each.reason and each.key == known.run.key), None)
    if given_up is not None:
        yield f"it is not restarted: {given_up.reason}"
    if Ability.RESUME not in context.harness(known.run.harness).abilities:
        yield f"harness {known.run.harness} has no conversations: deploy a new agent for what is left"
    elif known.run.session_id is None:
        yield "nobody knows its conversation: deploy a new agent for what is left"
    else:
        yield f"'headcount resume {known.run.key.agent_id}' lets it go on with its conversation"
