"""Wait for agents. Time running out is an answer, and the answer can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headcount.domain.errors import InvalidInput
from headcount.domain.ids import check_id
from headcount.domain.lifecycle import LIVE
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
            runs = _runs(tx, wish)
            satisfied = _satisfied(tx, wish, runs, since)
            passed = context.clock.monotonic() - began
            done = _done(wish, runs, satisfied)
            if done or passed >= wish.timeout:
                # what is not done goes on from where it began: who has reported need not do so twice
                cursor = tx.events.last() if done else since
                return _answer(
                    context, tx, wish, runs, satisfied, done=done, passed=passed, cursor=str(cursor)
                )
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


def _runs(tx: Tx, wish: Wish) -> list[Run]:
    if wish.task_id is None:
        return [rights.existing(tx, agent_id) for agent_id in wish.agent_ids]
    return tx.runs.page(wish.task_id, all=True, limit=agents.LIMIT_MAX, after=None)


def _satisfied(tx: Tx, wish: Wish, runs: Sequence[Run], since: int) -> set[str]:
    """Return the agents for which the condition holds."""
    ended = {run.key.agent_id for run in runs if run.state not in LIVE}
    going_on = [run.key.agent_id for run in runs if run.state in LIVE]
    if wish.any and wish.cursor is not None:
        ended = _happened(tx, sorted(ended), since, _ENDS)
    match wish.until:
        case "ended":
            return ended
        case "reported":
            return ended | _happened(tx, going_on, since, _SAYS)
        case "finding":
            return ended | _happened(tx, going_on, since, ("finding",))
        case status:
            return ended | {run.key.agent_id for run in runs if run.live and _last_said(tx, run) == status}


def _happened(tx: Tx, agent_ids: Sequence[str], since: int, kinds: tuple[str, ...]) -> set[str]:
    """Return those with such an event since; asked one by one, whatever else the journal has is not read."""
    return {each for each in agent_ids if tx.events.since(since, limit=1, agent_id=each, kinds=kinds)}


def _last_said(tx: Tx, run: Run) -> str | None:
    said = tx.reports.latest(run.key.agent_id)
    return said.status if said else None


def _done(wish: Wish, runs: Sequence[Run], satisfied: set[str]) -> bool:
    names = {run.key.agent_id for run in runs}
    return bool(satisfied & names) if wish.any and names else names <= satisfied


def _answer(
    context: Context,
    tx: Tx,
    wish: Wish,
    runs: Sequence[Run],
    satisfied: set[str],
    *,
    done: bool,
    passed: float,
    cursor: str,
) -> Waited:
    pending = tuple(run.key.agent_id for run in runs if run.key.agent_id not in satisfied)
    shown = [run for run in runs if run.key.agent_id in satisfied] if wish.any and done else runs
    hint = "" if done else "still running: call again with this cursor, or read get_task_status"
    return Waited(
        done=done,
        until=wish.until,
        agents=tuple(agents.of(context, tx, run) for run in shown),
        pending=pending,
        waited_s=round(passed, 3),
        cursor=cursor,
        hint=hint,
    )
