"""Tell somebody outside what happens: each event of the chosen kinds at least once.

1. Each event that a hook is to be told of becomes a row (a notice), in one transaction with the cursor that
   says how far in the journal that was done. Killed before the commit, it is done again from the same place.
2. A notice is told, then recorded as delivered. Killed in between, it is told again, with the same number.
3. What fails is tried again after a pause, so many times; then it is dead, with the reason.
"""

from __future__ import annotations

from typing import Final

from headcount.domain.errors import HeadcountError, NotFound
from headcount.domain.model import Event
from headcount.domain.notices import LONGEST_PAUSE, TEST_KIND, Hook, How, Notice, NoticeState, content
from headcount.services import stop
from headcount.services.answers import HookFacts, HookList, Tested, iso
from headcount.services.context import Context
from headcount.store.registry import Tx

BATCH: Final = 200
"""Events that become notices in one transaction."""
LAG: Final = 1_000
"""Events that are not for a hook and over which its cursor may stay behind: to move it is a write."""
KEPT: Final = 7 * 86_400.0
"""Seconds for which a settled notice is kept."""
FAR: Final = 2 * LONGEST_PAUSE
GONE: Final = "the settings have no such hook any more"


def begin(context: Context) -> None:
    """Take note of the hooks of the settings: a new one is told of what happens from now on; what was
    still to be told to one that is gone is dead."""
    now, names = context.clock.now(), {hook.name for hook in context.settings.notify}
    with context.registry.write("notify") as tx:
        for name in set(tx.notices.hooks()) - names:
            tx.notices.drop(name, reason=GONE, now=now)
        for name in names:
            if tx.notices.cursor(name) is None:
                tx.notices.move(name, tx.events.last())
        tx.notices.forget(now - KEPT)


def collect(context: Context, hook: Hook) -> int:
    """Make notices of the events that a hook has not been told of; return how many. All of them may take
    several calls: the next one is due at once if this one made some."""
    with context.registry.read() as tx:
        cursor, last = tx.notices.cursor(hook.name), tx.events.last()
        if cursor is None or last <= cursor:
            return 0
        if not _behind(tx, hook, cursor) and last - cursor < LAG:
            return 0
    with context.registry.write("notify") as tx:
        cursor, last = tx.notices.cursor(hook.name), tx.events.last()
        if cursor is None:
            return 0
        found = _behind(tx, hook, cursor)
        wanted = [event for event in found if hook.wants(event)]
        for event in wanted:
            tx.notices.add(hook.name, event.seq, now=context.clock.now())
        tx.notices.move(hook.name, found[-1].seq if len(found) == BATCH else last)
    return len(wanted)


def _behind(tx: Tx, hook: Hook, cursor: int) -> list[Event]:
    return tx.events.since(cursor, limit=BATCH, kinds=hook.kinds)


def due(context: Context, hook: Hook, most: int = BATCH) -> list[Notice]:
    """Return what a hook is to be told now."""
    now = context.clock.now()
    with context.registry.read() as tx:
        return tx.notices.due(hook.name, now=now, far=now + FAR, limit=most)


def queued(context: Context, hook: Hook) -> bool:
    """Say whether something is still to be told to a hook, now or later."""
    with context.registry.read() as tx:
        return tx.notices.queued(hook.name)


def deliver(context: Context, hook: Hook, notice: Notice) -> NoticeState:
    """Tell a hook of one event, and record what came of it."""
    with context.registry.read() as tx:
        event = tx.events.get(notice.event_id)
    state, why = NoticeState.DELIVERED, None
    if event is None:
        state, why = NoticeState.DEAD, "the journal does not have the event any more"
    else:
        try:
            context.tell(hook, content(hook, event, notice.id, iso(event.at)))
        except HeadcountError as error:
            again = notice.tries + 1 < hook.tries
            state, why = NoticeState.QUEUED if again else NoticeState.DEAD, error.message
    now = context.clock.now()
    next_at = now + hook.pause_after(notice.tries + 1) if state is NoticeState.QUEUED else now
    with context.registry.write("notify") as tx:
        tx.notices.tried(notice, state, next_at=next_at, reason=why)
    return state


# ---------------------------------------------------------------- for people


def page(context: Context) -> HookList:
    """Return the hooks of the settings, and how it stands with what they are told."""
    with context.registry.read() as tx:
        counts = tx.notices.counts()
        failures = {hook.name: tx.notices.last_failure(hook.name) for hook in context.settings.notify}
    return HookList(
        tuple(
            HookFacts(
                name=hook.name,
                how=hook.how.value,
                to=_target(hook),
                on=hook.on,
                tasks=hook.tasks,
                wrong=context.hook_wrong(hook),
                last_failure=failures[hook.name],
                **{each.value: counts.get(hook.name, {}).get(each.value, 0) for each in NoticeState},
            )
            for hook in context.settings.notify
        )
    )


def _target(hook: Hook) -> str:
    """Return whom a hook tells; what stands behind the host of a URL may be a secret."""
    if hook.how is How.WEBHOOK:
        return "/".join(hook.url.split("?")[0].split("/")[:3])
    return " ".join(hook.command) or "notify-send"


def test(context: Context, name: str) -> Tested:
    """Tell a hook something now, once, and say whether it took it.

    Raises:
        NotFound: the settings have no such hook.
        NotAllowed: an agent asks.
    """
    stop.person_only(context, "test a notification hook")
    hook = next((each for each in context.settings.notify if each.name == name), None)
    if hook is None:
        known = ", ".join(each.name for each in context.settings.notify) or "none"
        raise NotFound(
            f"no notification hook is called {str(name)[:80]}",
            hint=f"those of {context.home.settings_file}: {known}",
        )
    now = context.clock.now()
    event = Event(0, now, TEST_KIND, None, None, None, "a test of the hook, asked for by a person", {})
    try:
        context.tell(hook, content(hook, event, 0, iso(now)))
    except HeadcountError as error:
        return Tested(hook.name, hook.how.value, False, error.message)
    return Tested(hook.name, hook.how.value, True)
