"""What agents say: progress and findings. Nothing that they say moves the state of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from headcount.domain.errors import InvalidInput
from headcount.domain.model import Report, ReportStatus, Run, Severity
from headcount.services import given, messages, once, rights
from headcount.services.answers import Reported, ReportFacts, iso
from headcount.services.context import Context
from headcount.store.registry import Tx

MESSAGE_MAX: Final = 20_000
DATA_MAX: Final = 100_000
Word = TypeVar("Word", ReportStatus, Severity)
TYPE: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")


def progress(
    context: Context, *, status: str, message: str, progress: int | None, agent_id: str | None
) -> Reported:
    """Record a progress report of the calling agent.

    Raises:
        InvalidInput: unknown status, blank or too long message, progress outside 0 to 100.
        NotAllowed: for another agent, or by a run that a newer one has replaced.
    """
    wanted = _one_of(ReportStatus, "status", status)
    _check_message(message)
    given.maybe_whole("progress", progress, most=100)
    with context.registry.write("report") as tx:
        run = rights.subject(context, tx, agent_id)

        def write() -> Mapping[str, object]:
            number = tx.reports.add(
                run.key.agent_id,
                run.key.n,
                run.task_id,
                status=wanted,
                message=message,
                progress=progress,
                late=not run.live,
                now=context.clock.now(),
            )
            said = {"status": wanted.value, "progress": progress, "report": number}
            _event(context, tx, "reported", run, said)
            return _wrote(context, tx, number, run)

        asked = ("report", run.key, status, message, progress)
        return _reported(tx, run, once.written(context, tx, asked, write))


def finding(
    context: Context,
    *,
    type: str,
    severity: str,
    message: str,
    data: Mapping[str, object],
    agent_id: str | None,
) -> Reported:
    """Record a finding of the calling agent.

    Raises:
        InvalidInput: bad type or severity, blank or too long message, data that is not JSON or too large.
        NotAllowed: for another agent, or by a run that a newer one has replaced.
    """
    if not TYPE.fullmatch(given.text("type", type)):
        raise InvalidInput(
            f"finding type {type[:60]!r} is not valid",
            hint="use a word such as issue, solution, insight or blocker",
        )
    wanted = _one_of(Severity, "severity", severity)
    _check_message(message)
    _check_data(data)
    with context.registry.write("finding") as tx:
        run = rights.subject(context, tx, agent_id)

        def write() -> Mapping[str, object]:
            number = tx.findings.add(
                run.key.agent_id,
                run.key.n,
                run.task_id,
                type=type,
                severity=wanted,
                message=message,
                data=data,
                late=not run.live,
                now=context.clock.now(),
            )
            said = {"type": type, "severity": wanted.value, "finding": number}
            _event(context, tx, "finding", run, said)
            return _wrote(context, tx, number, run)

        asked = ("finding", run.key, type, severity, message, json.dumps(data))
        return _reported(tx, run, once.written(context, tx, asked, write))


def _one_of(words: type[Word], name: str, said: str) -> Word:
    try:
        return words(given.text(name, said))
    except ValueError:
        raise InvalidInput(f"{name} {said[:40]!r} is not one of {', '.join(words)}") from None


def _check_message(message: str) -> None:
    if not given.text("message", message).strip():
        raise InvalidInput("the message is blank", hint="say in a sentence what is to be known")
    if len(message) > MESSAGE_MAX:
        raise InvalidInput(
            f"the message has {len(message)} characters, the limit is {MESSAGE_MAX}",
            hint="write the details into a file and name it",
        )


def _check_data(data: Mapping[str, object]) -> None:
    try:
        size = len(json.dumps(given.mapping("data", data), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"data is not a JSON object: {error}") from None
    if size > DATA_MAX:
        raise InvalidInput(
            f"data has {size} bytes, the limit is {DATA_MAX}", hint="write it into a file and name it"
        )


def _event(context: Context, tx: Tx, kind: str, run: Run, data: Mapping[str, object]) -> None:
    late = {"late": True} if not run.live else {}
    tx.events.add(
        kind,
        task_id=run.task_id,
        agent_id=run.key.agent_id,
        run=run.key.n,
        data={**data, **late},
        now=context.clock.now(),
    )


def _wrote(context: Context, tx: Tx, number: int, run: Run) -> Mapping[str, object]:
    by_itself = context.token is not None or context.caller.agent_id is not None
    taken = messages.hand_over(context, tx, run) if by_itself else []
    return {"id": number, "late": not run.live, "messages": taken}


def _reported(tx: Tx, run: Run, wrote: Mapping[str, Any]) -> Reported:
    peers = tuple(each.key.agent_id for each in tx.runs.live_of_task(run.task_id) if each.key != run.key)
    note = f"recorded as late: the run is {run.state}" if wrote["late"] else "recorded"
    found = [tx.messages.get(each) for each in wrote.get("messages", ())]
    taken = tuple(messages.facts(each) for each in found if each is not None)
    return Reported(wrote["id"], run.key.agent_id, run.key.n, wrote["late"], note, peers, taken)


def facts(said: Report) -> ReportFacts:
    """Return a report as doors show it."""
    return ReportFacts(
        id=said.id,
        agent_id=said.agent_id,
        task_id=said.task_id,
        run=said.run,
        at=iso(said.at) or "",
        status=said.status,
        message=said.message,
        progress=said.progress,
        late=said.late,
    )
