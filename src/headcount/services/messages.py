"""Tell an agent something after its deploy: in its work, with its next report, or by a further run.

A message is on record before anything is done with it, and each step that brings it nearer is
compare-and-set: whoever comes after a crash goes on where it stands, and nothing is handed over twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headcount.domain.errors import HeadcountError, Infrastructure, InvalidInput, NotAllowed, Refused
from headcount.domain.lifecycle import State
from headcount.domain.model import AgentMessage, Form, Run, RunKey, Way, Why
from headcount.domain.options import Ability
from headcount.services import given, once, resume, rights
from headcount.services.answers import Cancelled, MessageFacts, MessageList, Sent, iso
from headcount.services.context import Context
from headcount.services.request import Again
from headcount.store.registry import Tx

TEXT_MAX: Final = 4_000
"""Characters of a message: with the answer to a report it has to be on one page."""
HANDED_OVER: Final = 5_000
"""Characters of the messages that one report is answered with; the others come with the next."""
PATIENCE: Final = 2.0
"""Seconds in which a driver that is told something mostly has answered; afterwards it is still waited for."""
POLL: Final = 0.02

PASSING: Final = frozenset(
    {
        "halted",
        "task_paused",
        "duplicate_role",
        "same_work",
        "max_live",
        "machine_max_live",
        "spawn_rate",
        "min_disk_mb",
        "min_memory_mb",
    }
)
"""Refusals that time mends: a message that met one still waits for its resume."""


def send(context: Context, agent_id: str, text: str, *, resume: bool = True) -> Sent:
    """Record a message and bring it on its way; say which that is.

    Killed after the record, it waits, and the daemon brings it on its way.

    Raises:
        InvalidInput: a blank or too long text.
        NotFound: no such agent.
        NotAllowed: an agent of another task asks, or the agent itself.
    """
    _check(text)
    given.flag("resume", resume)
    if context.remote is not None:
        arguments = {"agent_id": agent_id, "text": text, "resume": resume}
        return Sent(**context.remote.call("send_message", arguments))  # type: ignore[arg-type]  # its fields
    with context.registry.write("send message") as tx:
        run = rights.existing(tx, agent_id)
        _may_send(context, tx, run)
        asked = ("send", agent_id, text, resume)
        wrote = once.written(context, tx, asked, lambda: record(context, tx, run, text, resume=resume))
    note = bring(context, int(str(wrote["message"])))
    return _sent(context, int(str(wrote["message"])), note or str(wrote["note"]))


def _check(text: object) -> None:
    if not given.text("text", text).strip():
        raise InvalidInput("the message is blank", hint="say what the agent is to know")
    if len(str(text)) > TEXT_MAX:
        raise InvalidInput(
            f"the message has {len(str(text))} characters, the limit is {TEXT_MAX}",
            hint="write the details into a file and name it",
        )


def _may_send(context: Context, tx: Tx, run: Run) -> None:
    own = rights.caller_run(context, tx)
    if own is None:
        return
    if own.task_id != run.task_id or own.key.agent_id == run.key.agent_id:
        raise NotAllowed(
            f"{own.key.agent_id} may not send to {run.key.agent_id}",
            hint="an agent writes to others of its task",
        )


def record(context: Context, tx: Tx, run: Run, text: str, *, resume: bool) -> Mapping[str, object]:
    """Record a message in `tx`; somebody brings it on its way after the commit, at the latest the daemon."""
    own, now = rights.caller_run(context, tx), context.clock.now()
    way, note = _way(context, tx, run, resume=resume)
    sender = own.key.agent_id if own else None
    number = tx.messages.add(run.task_id, run.key.agent_id, sender=sender, text=text, way=way, now=now)
    if way is Way.STEER:
        tx.messages.route(number, way, run=run.key.n)
    _event(
        tx, "message_sent", run.task_id, run.key, {"message": number, "sender": sender, "way": way}, now=now
    )
    return {"message": number, "note": note}


def _way(context: Context, tx: Tx, run: Run, *, resume: bool) -> tuple[Way | None, str]:
    """Return how a message can reach an agent as it stands, and what there is to say of that."""
    if run.live:
        if steerable(context, run):
            return Way.STEER, ""
        return Way.REPORT, "it is handed over with the answer to the agent's next report"
    why = _why_not(context, tx, run) if resume else "as asked, the agent is not resumed for it"
    return (None, f"it waits until the agent is resumed: {why}") if why else (Way.RESUME, "")


def _why_not(context: Context, tx: Tx, run: Run) -> str:
    try:
        rights.over(context, tx, run)
    except NotAllowed as error:
        return error.message
    if Ability.RESUME not in context.harness(run.harness).abilities:
        return f"harness {run.harness} has no conversations to go on with"
    return ""


def steerable(context: Context, run: Run) -> bool:
    """Say whether a run was started so that it can be told something in the middle of its work."""
    if run.form is Form.INTERACTIVE:
        return False  # a person has taken it over
    return bool(run.options.get("steer")) and Ability.STEER in context.harness(run.harness).abilities


# ---------------------------------------------------------------- on its way


def bring(context: Context, number: int, *, wait: bool = True) -> str:
    """Bring a recorded message as far as it can be brought now; return what there is to say of that.

    Repeats well: what was done before is not done again.
    """
    with context.registry.read() as tx:
        message = tx.messages.get(number)
    if message is None or message.state != "queued":
        return ""
    if message.way is Way.RESUME:
        return _by_resume(context, message)
    if message.way is Way.STEER:
        _by_steering(context, message, wait=wait)
    return ""


def _by_resume(context: Context, message: AgentMessage) -> str:
    try:
        resume.resume(context, Again(message.agent_id, None, why=Why.MESSAGE))
    except Refused as error:
        if error.code in ("agent_live", "nothing_to_tell"):  # it goes on already, perhaps with this message
            return _otherwise(context, message)
        if error.code == "stopped_meanwhile":  # the end of that run says whether it was told
            return error.message
        if error.code in PASSING:
            return f"it waits until the agent can be resumed: {error.message}"
        _fail(context, message, error.message)
    except HeadcountError as error:
        _fail(context, message, error.message)
    return ""


def _otherwise(context: Context, message: AgentMessage) -> str:
    """Let a message wait for the next report if it is not in the prompt of the run that lives."""
    with context.registry.write("message") as tx:
        found, run = tx.messages.get(message.id), tx.runs.get(message.agent_id)
        if found is None or found.state != "queued" or run is None or not run.live or found.run == run.key.n:
            return ""
        tx.messages.route(message.id, Way.REPORT, run=None)
    return "it is handed over with the answer to the agent's next report"


def _by_steering(context: Context, message: AgentMessage, *, wait: bool) -> None:
    """Tell the driver of a run, and perhaps wait a moment for its answer."""
    with context.registry.read() as tx:
        run = tx.runs.get(message.agent_id, message.run)
    if run is None:
        return
    _tell(context, run, str(message.id), kind="message", text=message.text, sender=message.sender)
    if wait:
        _await_answer(context, run, str(message.id))
    collect(context, message.agent_id)


def _tell(context: Context, run: Run, name: str, **facts: str | None) -> None:
    try:
        context.placement.put_note(run.path, name, {"id": name, **facts})
    except OSError as error:
        raise Infrastructure(f"the run directory {run.path} cannot be written: {error.strerror}") from error


def _await_answer(context: Context, run: Run, name: str) -> Mapping[str, Any] | None:
    deadline = context.clock.monotonic() + PATIENCE
    while (found := context.placement.note_answer(run.path, name)) is None:
        if context.clock.monotonic() >= deadline:
            return None
        context.clock.pause(POLL)
    return found


def collect(context: Context, agent_id: str) -> None:
    """Record what drivers have answered; what a run that is over was not told waits again."""
    with context.registry.read() as tx:
        steered = [each for each in tx.messages.queued(agent_id) if each.way is Way.STEER and each.run]
        runs = {each.run: tx.runs.get(agent_id, each.run) for each in steered}
    found = []
    for each in steered:
        run = runs[each.run]
        answered = context.placement.note_answer(run.path, str(each.id)) if run else None
        if answered is not None or run is None or not run.live:
            found.append((each, answered))
    if found:
        with context.registry.write("messages") as tx:
            for message, answered in found:
                _settle(context, tx, message, answered)


def _settle(context: Context, tx: Tx, message: AgentMessage, answered: Mapping[str, Any] | None) -> None:
    now, n = context.clock.now(), message.run or 0
    key = RunKey(message.agent_id, n)
    if answered is None:
        tx.messages.route(message.id, None, run=None)
    elif answered.get("state") == "delivered":
        if tx.messages.deliver(message.id, Way.STEER, run=n, now=now):
            data = {"message": message.id, "way": Way.STEER}
            _event(tx, "message_delivered", message.task_id, key, data, now=now)
    else:
        _failed(tx, message, str(answered.get("reason") or "its program did not take it"), now)


def _fail(context: Context, message: AgentMessage, reason: str) -> None:
    """Give a message up, unless a run that has it in its prompt lives: the end of that tells."""
    with context.registry.write("message") as tx:
        found = tx.messages.get(message.id)
        run = tx.runs.get(message.agent_id, found.run) if found is not None and found.run else None
        if run is None or not run.live:
            _failed(tx, message, reason, context.clock.now())


def _failed(tx: Tx, message: AgentMessage, reason: str, now: float) -> None:
    if tx.messages.fail(message.id, reason):
        key = RunKey(message.agent_id, message.run or 0)
        _event(tx, "message_failed", message.task_id, key, {"message": message.id}, now=now, reason=reason)


def hand_over(context: Context, tx: Tx, run: Run) -> list[int]:
    """Return the messages that the answer to a report takes along, recorded as delivered by it."""
    if not run.live:
        return []
    now, room = context.clock.now(), HANDED_OVER
    taken: list[int] = []
    for each in tx.messages.queued(run.key.agent_id):
        if each.run is not None:
            continue  # on its way to a run by another way
        room -= len(each.text)
        if taken and room < 0:
            break
        if tx.messages.deliver(each.id, Way.REPORT, run=run.key.n, now=now):
            _event(
                tx,
                "message_delivered",
                run.task_id,
                run.key,
                {"message": each.id, "way": Way.REPORT},
                now=now,
            )
            taken.append(each.id)
    return taken


def _event(
    tx: Tx,
    kind: str,
    task_id: str,
    key: RunKey,
    data: Mapping[str, object],
    *,
    now: float,
    reason: str | None = None,
) -> None:
    run = key.n or None
    tx.events.add(kind, task_id=task_id, agent_id=key.agent_id, run=run, reason=reason, data=data, now=now)


# ---------------------------------------------------------------- what became of them


def _sent(context: Context, number: int, note: str) -> Sent:
    with context.registry.read() as tx:
        message = tx.messages.get(number)
    assert message is not None, "it was recorded"
    return Sent(
        id=message.id,
        agent_id=message.agent_id,
        state=message.state.value,
        way=message.way.value if message.way else None,
        run=message.run,
        note=message.reason or ("" if message.state == "delivered" else note),
    )


def page(context: Context, agent_id: str, *, limit: int, cursor: int | None) -> MessageList:
    """Return the messages for an agent, the latest first, after recording what drivers have answered.

    Raises:
        NotFound: no such agent.
    """
    limit = given.whole("limit", limit, least=1, most=1000)
    given.maybe_whole("cursor", cursor)
    with context.registry.read() as tx:
        rights.existing(tx, agent_id)
    collect(context, agent_id)
    with context.registry.read() as tx:
        found = tx.messages.of_agent(agent_id, limit=limit + 1, before=cursor or given.INTEGER_MAX)
    shown = tuple(map(facts, found[:limit]))
    return MessageList(agent_id, shown, shown[-1].id if len(found) > limit else None)


def facts(message: AgentMessage) -> MessageFacts:
    """Return a message as doors show it."""
    return MessageFacts(
        id=message.id,
        agent_id=message.agent_id,
        sender=message.sender,
        text=message.text,
        state=message.state.value,
        way=message.way.value if message.way else None,
        run=message.run,
        reason=message.reason,
        at=iso(message.at) or "",
        delivered_at=iso(message.delivered_at),
    )


# ---------------------------------------------------------------- a turn


def cancel(context: Context, agent_id: str) -> Cancelled:
    """End what an agent does at the moment, without its conversation: it goes on with what it is told next.

    Raises:
        NotFound, NotAllowed: nothing was asked for.
        Refused: it is not live, or its program cannot do that.
    """
    if context.remote is not None:
        answered = context.remote.call("cancel_turn", {"agent_id": agent_id})
        return Cancelled(**answered)  # type: ignore[arg-type]  # the daemon's answer has these very fields
    with context.registry.write("cancel turn") as tx:
        run = rights.existing(tx, agent_id)
        rights.over(context, tx, run)
        _check_cancel(context, run)
        now = context.clock.now()
        _event(tx, "cancel_asked", run.task_id, run.key, {"by": context.caller.agent_id or "person"}, now=now)
    name = f"cancel-{context.clock.chance():x}"
    _tell(context, run, name, kind="cancel", text="", sender=context.caller.agent_id)
    answered = _await_answer(context, run, name) or {"state": "asked"}
    state = "cancelled" if answered.get("state") == "delivered" else str(answered.get("state"))
    return Cancelled(agent_id, run.key.n, state, str(answered.get("reason") or ""))


def _check_cancel(context: Context, run: Run) -> None:
    if run.state is not State.RUNNING:
        raise Refused(
            f"agent {run.key.agent_id} is {run.state}",
            code="not_running",
            limit="state",
            hint="nothing to cancel",
        )
    if not steerable(context, run) or Ability.CANCEL not in context.harness(run.harness).abilities:
        raise Refused(
            f"the turn of {run.key.agent_id} cannot be cancelled",
            code="cannot_cancel",
            limit="steer",
            hint="only of an agent that was deployed with steer, by a harness that can; else stop it",
        )
