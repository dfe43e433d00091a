"""What agents ask before they do it, and the answers of those who may give them.

A question is a file of its run: it stands whoever of ours is alive, until it is answered or expires.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from headcount.domain.errors import Infrastructure, InvalidInput, NotAllowed, NotFound, Refused
from headcount.domain.model import LiveRun, Run
from headcount.services import given, rights
from headcount.services.answers import ApprovalFacts, ApprovalList, Approved, iso
from headcount.services.context import Context
from headcount.store.registry import Tx

ARGUMENTS_MAX: Final = 2_000
"""Characters of a tool's arguments that are shown; the question's own file has all."""
PATIENCE: Final = 2.0
"""Seconds in which a driver mostly has acted on an answer."""
POLL: Final = 0.02


def page(context: Context, *, task_id: str | None = None) -> ApprovalList:
    """Return what live agents ask, the oldest first: to an agent, what its descendants ask.

    Raises:
        NotFound: no such task.
    """
    with context.registry.read() as tx:
        if task_id is not None:
            rights.existing_task(tx, task_id)
        rows = [row for row in tx.runs.live() if task_id in (None, row.task_id) and _may(context, tx, row)]
    asked = ((row, each) for row in rows for each in context.placement.asks(row.path))
    found = [facts(row, each) for row, each in asked if not each["answered"]]
    return ApprovalList(tuple(sorted(found, key=lambda each: (each.asked_at or "", each.id))))


def _may(context: Context, tx: Tx, row: LiveRun) -> bool:
    run = tx.runs.get(row.key.agent_id, row.key.n)
    try:
        return run is not None and _above(context, tx, run)
    except NotAllowed:
        return False


def _above(context: Context, tx: Tx, run: Run) -> bool:
    """Say whether the caller is one of those that an agent may ask: never itself.

    Raises:
        NotAllowed: it is another agent.
    """
    own = rights.caller_run(context, tx)
    rights.over(context, tx, run)
    return own is None or own.key.agent_id != run.key.agent_id


def answer(context: Context, approval_id: str, *, allow: bool, reason: str = "") -> Approved:
    """Allow or deny what an agent asks; return when its driver has acted on it, or after a moment.

    Raises:
        InvalidInput: it cannot be the id of a question.
        NotFound: nobody asks that.
        NotAllowed: an agent answers that is not above the one that asks.
        Refused: it was answered, expired or withdrawn before.
    """
    agent_id, n, name = _parse(approval_id)
    given.flag("allow", allow)
    given.text("reason", reason)
    if context.remote is not None:
        arguments = {"approval_id": approval_id, "allow": allow, "reason": reason}
        return Approved(**context.remote.call("answer_approval", arguments))  # type: ignore[arg-type]  # its fields
    with context.registry.read() as tx:
        run = rights.existing(tx, agent_id, n)
        if not _above(context, tx, run):
            raise NotAllowed(
                f"{agent_id} cannot answer itself", hint="its parent or a person answers what it asks"
            )
        own = rights.caller_run(context, tx)
    by = own.key.agent_id if own else rights.PERSON
    asked = _asked(context, run, approval_id, name)
    _write(context, run, name, {"allow": allow, "by": by, "reason": reason}, approval_id)
    _record(context, run, approval_id, asked, allow=allow, by=by, reason=reason)
    return _approved(context, run, approval_id, name)


def _parse(approval_id: object) -> tuple[str, int, str]:
    parts = given.text("approval_id", approval_id).rsplit(".", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()) or len(parts[1]) > 9:
        raise InvalidInput(
            f"{str(approval_id)[:80]!r} is no id of an approval", hint="see 'headcount approvals'"
        )
    return parts[0], int(parts[1]), parts[2]


def _asked(context: Context, run: Run, approval_id: str, name: str) -> Mapping[str, Any]:
    found = next((each for each in context.placement.asks(run.path) if each["id"] == name), None)
    if found is not None and not found["answered"] and run.live:
        return found
    done = context.placement.ask_outcome(run.path, name)
    if found is None and done is None:
        raise NotFound(f"{run.key.agent_id} does not ask {approval_id}", hint="see 'headcount approvals'")
    raise _over(approval_id, str((done or {}).get("state") or ("answered" if run.live else "withdrawn")))


def _over(approval_id: str, state: str) -> Refused:
    return Refused(
        f"{approval_id} is over: {state}",
        code="not_asked_any_more",
        limit="approval",
        hint="an approval is given once, and in time",
    )


def _write(
    context: Context, run: Run, name: str, given_answer: Mapping[str, object], approval_id: str
) -> None:
    try:
        first = context.placement.answer_ask(run.path, name, given_answer)
    except OSError as error:
        raise Infrastructure(f"the run directory {run.path} cannot be written: {error.strerror}") from error
    if not first:
        raise _over(approval_id, "answered")


def _record(
    context: Context,
    run: Run,
    approval_id: str,
    asked: Mapping[str, Any],
    *,
    allow: bool,
    by: str,
    reason: str,
) -> None:
    data = {"approval": approval_id, "by": by, "tool": asked.get("tool"), "title": asked.get("title")}
    with context.registry.write("answer approval") as tx:
        tx.events.add(
            "approval_allowed" if allow else "approval_denied",
            task_id=run.task_id,
            agent_id=run.key.agent_id,
            run=run.key.n,
            reason=reason or None,
            data=data,
            now=context.clock.now(),
        )


def _approved(context: Context, run: Run, approval_id: str, name: str) -> Approved:
    deadline = context.clock.monotonic() + PATIENCE
    while (done := context.placement.ask_outcome(run.path, name)) is None:
        if context.clock.monotonic() >= deadline:
            return Approved(approval_id, run.key.agent_id, "answered", "its driver has not acted on it yet")
        context.clock.pause(POLL)
    return Approved(approval_id, run.key.agent_id, str(done.get("state")))


def facts(row: LiveRun, asked: Mapping[str, Any]) -> ApprovalFacts:
    """Return a question as doors show it."""
    arguments = asked.get("arguments")
    shown = "" if not arguments else json.dumps(arguments, ensure_ascii=False)
    return ApprovalFacts(
        id=f"{row.key.agent_id}.{row.key.n}.{asked['id']}",
        agent_id=row.key.agent_id,
        run=row.key.n,
        task_id=row.task_id,
        tool=str(asked.get("tool") or ""),
        title=str(asked.get("title") or ""),
        kind=str(asked.get("kind") or "other"),
        arguments=shown[:ARGUMENTS_MAX],
        asked_at=iso(_time(asked.get("asked_at"))),
        expires_at=iso(_time(asked.get("expires_at"))),
    )


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
