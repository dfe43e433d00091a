"""What the Copilot CLI writes (`--output-format json`), and how its runs end.

It tells no tokens, so none are known. Its session's id is only in the last line, which a run that was killed
has not; and what a session changed in files is told of all its runs together, so that each call's is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.account import Ending
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.harnesses.base import Verdict
from headcount.harnesses.parse import clean, dump, last_object, load_object, mapping, objects, unknown
from headcount.harnesses.verdicts import describe_exit, judge_exit

STATUS: Final[Mapping[int, Ending]] = {
    401: Ending.AUTH_FAILED,
    403: Ending.AUTH_FAILED,
    429: Ending.RATE_LIMITED,
    529: Ending.RATE_LIMITED,
}
ERRORS: Final[Mapping[str, Ending]] = {
    "authentication": Ending.AUTH_FAILED,
    "authorization": Ending.AUTH_FAILED,
    "rate_limit": Ending.RATE_LIMITED,
    "quota": Ending.BUDGET,
    "query": Ending.API_ERROR,
}
CHANGES: Final[Mapping[str, str]] = {"create": "add", "edit": "edit", "update": "edit", "delete": "delete"}
NOISE: Final = frozenset(
    {
        "agent.interrupted",
        "assistant.idle",
        "assistant.message_delta",
        "assistant.message_start",
        "assistant.reasoning_delta",
        "assistant.tool_call_delta",
        "assistant.turn_end",
        "assistant.turn_retry",
        "assistant.turn_start",
        "model.call_final_result",
        "model.call_finished",
        "model.call_start",
        "session.background_tasks_changed",
        "session.mcp_server_status_changed",
        "session.mcp_server_tools_loaded",
        "session.skills_loaded",
        "tool.execution_partial_result",
        "tool.shell_output",
        "user.message",
    }
)
"""Events that say nothing which others do not say better; the raw line is kept, as always."""


def read(line: bytes) -> Sequence[Entry]:
    """Parse one line. Never raises."""
    found = load_object(line)
    kind = found.get("type") if found else None
    if found is None or not isinstance(kind, str):
        return (unknown(line),)
    if kind in NOISE:
        return ()
    reader = _READERS.get(kind)
    return tuple(reader(found)) if reader else (unknown(line),)


def _servers(found: Mapping[str, Any]) -> Iterator[Entry]:
    servers = {
        clean(each.get("name")): clean(each.get("status"))
        for each in objects(mapping(found.get("data")).get("servers"))
    }
    told = ", ".join(f"{name} {status}" for name, status in servers.items()) or "none"
    yield Entry(EntryKind.SESSION, f"MCP servers: {told}", {"mcp_servers": servers})


def _tools(found: Mapping[str, Any]) -> Iterator[Entry]:
    model = clean(mapping(found.get("data")).get("model"))
    yield Entry(EntryKind.SESSION, f"model {model}", {"model": model})


def _message(found: Mapping[str, Any]) -> Iterator[Entry]:
    text = clean(mapping(found.get("data")).get("content"))
    if text:
        yield Entry(EntryKind.TEXT, text)


def _reasoning(found: Mapping[str, Any]) -> Iterator[Entry]:
    yield Entry(EntryKind.REASONING, clean(mapping(found.get("data")).get("content")))


def _call(found: Mapping[str, Any]) -> Iterator[Entry]:
    data = mapping(found.get("data"))
    name, given = clean(data.get("toolName")), data.get("arguments")
    facts = {"id": data.get("toolCallId"), "tool": name, "arguments": given}
    yield Entry(EntryKind.TOOL_CALL, f"{name} {given if isinstance(given, str) else dump(given)}", facts)


def _called(found: Mapping[str, Any]) -> Iterator[Entry]:
    data = mapping(found.get("data"))
    failed, error = data.get("success") is not True, mapping(data.get("error"))
    text = clean(mapping(data.get("result")).get("content")) or clean(error.get("message"))
    failed = failed or mapping(data.get("shellExecution")).get("exitCode") not in (None, 0)
    yield Entry(EntryKind.TOOL_RESULT, text, {"id": data.get("toolCallId"), "is_error": failed})
    if error.get("code") == "denied":
        yield Entry(EntryKind.PERMISSION_DENIED, text, {})
    for edit in objects(data.get("fileEdits")):
        path, change = edit.get("path"), CHANGES.get(clean(edit.get("kind")))
        if isinstance(path, str) and path:
            yield Entry(EntryKind.FILE_CHANGE, path, {"path": path, **({"change": change} if change else {})})


def _failure(found: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield one call of the model that failed; it may yet be tried again."""
    data = mapping(found.get("data"))
    status = _status(data)
    text = f"API error {clean(status) or clean(data.get('failureKind'))}, attempt {_attempt(data)}"
    kind = EntryKind.RATE_LIMITED if STATUS.get(status or 0) is Ending.RATE_LIMITED else EntryKind.ERROR
    yield Entry(kind, text, {} if status is None else {"status": status})


def _attempt(data: Mapping[str, Any]) -> str:
    attempt = data.get("retryAttempt")
    return str(attempt + 1) if isinstance(attempt, int) else "?"


def _error(found: Mapping[str, Any]) -> Iterator[Entry]:
    data = mapping(found.get("data"))
    status = _status(data)
    yield Entry(EntryKind.ERROR, clean(data.get("message")), {} if status is None else {"status": status})


def _abort(found: Mapping[str, Any]) -> Iterator[Entry]:
    yield Entry(EntryKind.ERROR, f"interrupted ({clean(mapping(found.get('data')).get('reason'))})")


def _info(found: Mapping[str, Any]) -> Iterator[Entry]:
    data = mapping(found.get("data"))
    if data.get("infoType") != "model_retry":
        yield Entry(EntryKind.UNKNOWN, clean(data.get("message")), {"type": clean(found.get("type"))})


def _result(found: Mapping[str, Any]) -> Iterator[Entry]:
    session = found.get("sessionId")
    data = {"session_id": session} if isinstance(session, str) else {}
    ended = "finished" if found.get("exitCode") == 0 else f"exit code {clean(found.get('exitCode'))}"
    yield Entry(EntryKind.RESULT, ended, data)


_READERS: Final = {
    "session.mcp_servers_loaded": _servers,
    "session.tools_updated": _tools,
    "session.error": _error,
    "abort": _abort,
    "session.info": _info,
    "session.warning": _info,
    "assistant.message": _message,
    "assistant.reasoning": _reasoning,
    "tool.execution_start": _call,
    "tool.execution_complete": _called,
    "model.call_failure": _failure,
    "result": _result,
}


# ---------------------------------------------------------------- judging it


def judge(record: ExitRecord, tail: bytes) -> Verdict:
    """Judge a run by its exit record and its last lines. Told to end it exits with 0, as if all were well."""
    verdict, result = judge_exit(record), last_object(tail, kind="result")
    message, error = (_data(tail, kind) for kind in ("assistant.message", "session.error"))
    facts = _facts(result or {}, message)
    if verdict.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
        return Verdict(verdict.outcome, verdict.reason, facts)
    if last_object(tail, kind="abort") is not None:
        reason = f"interrupted by a signal ({describe_exit(record)})"
        return Verdict(Outcome.FAILED, reason, facts, ending=Ending.KILLED)
    if error and not (result and result.get("exitCode") == 0):
        return Verdict(Outcome.FAILED, clean(error.get("message")), facts, ending=_ending(error))
    if result is None and verdict.outcome is Outcome.COMPLETED:
        return Verdict(Outcome.FAILED, f"ended without a result ({describe_exit(record)})", facts)
    if result is not None and result.get("exitCode") != 0 and verdict.outcome is Outcome.COMPLETED:
        return Verdict(
            Outcome.FAILED, f"ended with {clean(result.get('exitCode'))} by its own account", facts
        )
    return Verdict(verdict.outcome, verdict.reason, facts)


def _data(tail: bytes, kind: str) -> Mapping[str, Any]:
    return mapping((last_object(tail, kind=kind) or {}).get("data"))


def _facts(result: Mapping[str, Any], message: Mapping[str, Any]) -> Mapping[str, object]:
    session = result.get("sessionId")
    return {
        "text": clean(message.get("content")),
        **({"session_id": session} if isinstance(session, str) else {}),
    }


def _ending(error: Mapping[str, Any]) -> Ending | None:
    by_status = STATUS.get(_status(error) or 0)
    return by_status or ERRORS.get(clean(error.get("errorType")))


def _status(data: Mapping[str, Any]) -> int | None:
    status = data.get("statusCode")
    return status if isinstance(status, int) and not isinstance(status, bool) else None
