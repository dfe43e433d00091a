"""Wait for agents. Time running out is an answer, and the answer can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headcount.domain.errors import InvalidInput
from headcount.domain.ids import check_id
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import Run
from headcount.services import agents, given, rights, settle
from headcount.services.answers import Waited
from headcount.services.context import Context
from headcount.store.registry import Tx

UNTIL: Final = ("ended", "reported", "done", "blocked", "finding")
POLL: Final = (0.01, 0.2)
"""Seconds between looks: the first, and the longest after growing."""

_ENDS: Final = ("run_ended", "run_lost")
_SAYS: Final = ("reported", "finding")


@dataclass(frozen=True, slots=True)
class Wish:
    """What to wait for. `until`: ended; reported (any report or finding since the start of the wait or
    since `cursor`); done or blocked (the last report says so); finding. An agent that has ended
    satisfies every condition: nothing more will come from it."""

    agent_ids: tuple[str, ...]
    task_id: str | None
    any: bool
    until: str
    timeout: float
    cursor: str | None


@dataclass(frozen=True, slots=True)
class _Look:
    """The agents that are waited for. `pending` and `met` are live: for the one the condition does not hold
    yet, for the other it does. `over` has ended ones; of a task only as many as tell whether it is done."""

    pending: tuple[Run, ...]
    met: tuple[Run, ...]
    over: tuple[Run, ...]
    upto: int | None = None  # the end of what was read of the journal, if that was not all

    def done(self, wish: Wish) -> bool:
        return not self.pending or (wish.any and bool(self.met or self.over))


def wait(context: Context, wish: Wish) -> Waited:
    """Wait at most `timeout` seconds.

    Raises:
        InvalidInput: neither agents nor a task, an unknown condition.
        NotFound: one of them does not exist.
    """
    since = _check(context, wish)
    began = context.clock.monotonic()
    pause = POLL[0]
    while True:
        settle.observe(context)
        with context.registry.read() as tx:
            look = _look(tx, wish, since)
            passed = context.clock.monotonic() - began
            if look.done(wish) or passed >= wish.timeout:
                return _answer(context, tx, wish, look, passed=passed, since=since)
        context.clock.pause(min(pause, max(0.0, wish.timeout - passed)))
        pause = min(pause * 1.3, POLL[1])


def _check(context: Context, wish: Wish) -> int:
    """Return the place in the journal from which "since" counts."""
    if bool(wish.agent_ids) == (wish.task_id is not None):
        raise InvalidInput("name either agents or a task to wait for")
    if given.text("until", wish.until) not in UNTIL:
        raise InvalidInput(f"cannot wait until {wish.until[:40]!r}", hint=f"one of {', '.join(UNTIL)}")
    given.number("timeout", wish.timeout, most=given.SPAN_MAX)
    for agent_id in wish.agent_ids:
        check_id("agent", agent_id)
    if wish.cursor is not None and not given.text("cursor", wish.cursor, most=19).isdecimal():
        raise InvalidInput(f"cursor {wish.cursor[:40]!r} is not one that an earlier wait gave")
    with context.registry.read() as tx:
        if wish.task_id is not None:
            rights.existing_task(tx, wish.task_id)
        return int(wish.cursor) if wish.cursor is not None else tx.events.last()


def _look(tx: Tx, wish: Wish, since: int) -> _Look:
    upto = None
    if wish.task_id is None:
        runs = [rights.existing(tx, agent_id) for agent_id in wish.agent_ids]
        live, over = [run for run in runs if run.live], [run for run in runs if not run.live]
        if _next(wish):
            happened = _happened(tx, [run.key.agent_id for run in over], since, _ENDS)
            over = [run for run in over if run.key.agent_id in happened]
    else:
        live = tx.runs.live_of_task(wish.task_id)
        if _next(wish):
            over, upto = _ended_since(tx, wish.task_id, since)
        else:  # one more than are live: if any is over, there is one that is
            over = _over(tx, wish.task_id, len(live) + 1)
    met = _met(tx, wish.until, live, since)
    pending = tuple(run for run in live if run.key.agent_id not in met)
    return _Look(pending, tuple(run for run in live if run.key.agent_id in met), tuple(over), upto)


def _next(wish: Wish) -> bool:
    """Say whether only what ends behind the cursor counts."""
    return wish.any and wish.cursor is not None


def _over(tx: Tx, task_id: str, newest: int) -> list[Run]:
    """Return those of the newest agents of a task that are over."""
    return [run for run in tx.runs.page(task_id, all=True, limit=newest, after=None) if not run.live]


def _ended_since(tx: Tx, task_id: str, since: int) -> tuple[list[Run], int | None]:
    """Return agents of a task that ended since, and how far the journal was read if there may be more."""
    ends = tx.events.since(since, limit=agents.LIMIT_MAX, task_id=task_id, kinds=_ENDS)
    runs = (tx.runs.get(each) for each in dict.fromkeys(end.agent_id for end in ends) if each is not None)
    upto = ends[-1].seq if len(ends) == agents.LIMIT_MAX else None
    return [run for run in runs if run is not None and not run.live], upto


def _met(tx: Tx, until: str, live: Sequence[Run], since: int) -> set[str]:
    """Return the live agents for which the condition holds."""
    names = [run.key.agent_id for run in live]
    match until:
        case "ended":
            return set()
        case "reported":
            return _happened(tx, names, since, _SAYS)
        case "finding":
            return _happened(tx, names, since, ("finding",))
        case status:
            return {each for each in names if _last_said(tx, each) == status}


def _happened(tx: Tx, agent_ids: Sequence[str], since: int, kinds: tuple[str, ...]) -> set[str]:
    """Return those with such an event since; asked one by one, whatever else the journal has is not read."""
    return {each for each in agent_ids if tx.events.since(since, limit=1, agent_id=each, kinds=kinds)}


def _last_said(tx: Tx, agent_id: str) -> str | None:
    said = tx.reports.latest(agent_id)
    return said.status if said else None


def _answer(context: Context, tx: Tx, wish: Wish, look: _Look, *, passed: float, since: int) -> Waited:
    done, over = look.done(wish), look.over
    if wish.task_id is not None and not _next(wish):
        over = tuple(_over(tx, wish.task_id, agents.LIMIT_MAX))
        counts = tx.runs.counts(wish.task_id)
        ended, completed = counts["total"] - counts["live"], counts[Outcome.COMPLETED]
    else:
        ended, completed = len(over), sum(run.outcome is Outcome.COMPLETED for run in over)
    going_on = look.met if wish.any and done else (*look.pending, *look.met)
    # what is not done goes on from where it began: who has reported need not do so twice
    cursor = (look.upto or tx.events.last()) if done else since
    return Waited(
        done=done,
        until=wish.until,
        agents=tuple(agents.of(context, tx, run) for run in (*going_on, *over)),
        pending=tuple(run.key.agent_id for run in look.pending),
        waited_s=round(passed, 3),
        cursor=str(cursor),
        hint="" if done else "still running: call again with this cursor, or read get_task_status",
        ended=ended,
        failed=ended - completed,
    )
