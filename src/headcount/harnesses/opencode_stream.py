"""What OpenCode writes (`opencode run --format json`), and how its runs end.

It works in steps, one for each answer of its model, and tells what each has used; the call that finds a title
for a new conversation is not among them. A call of a tool is told once it is over. That it tries again after
an error it does not say. Its exit code is 0 after an answer that was cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.account import Ending
from headcount.domain.entries import Entry, EntryKind, UsageScope
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.harnesses.base import Verdict
from headcount.harnesses.parse import clean, dump, load_object, mapping, objects, unknown
from headcount.harnesses.verdicts import describe_exit, judge_exit

MOST: Final = 1e15
GOES_ON: Final = "tool-calls"
"""Why a step ended after which there is another."""
REASONS: Final[Mapping[str, tuple[Ending, str]]] = {
    "length": (Ending.TOKEN_LIMIT, "its last answer was cut off: it is as long as the model may answer"),
    "content-filter": (Ending.REFUSED, "its last answer was blocked by a content filter"),
    "error": (Ending.API_ERROR, "its last answer ended with an error"),
    GOES_ON: (Ending.ERROR, "ended in the middle of its work, with no last answer"),
}
NAMES: Final[Mapping[str, Ending]] = {
    "APIError": Ending.API_ERROR,
    "ContentFilterError": Ending.REFUSED,
    "ContextOverflowError": Ending.TOKEN_LIMIT,
    "MessageOutputLengthError": Ending.TOKEN_LIMIT,
    "ProviderAuthError": Ending.AUTH_FAILED,
    "StructuredOutputError": Ending.BAD_RESULT,
}
CHANGES: Final[Mapping[str, str]] = {"add": "add", "delete": "delete", "update": "edit"}
DENIALS: Final = (
    "The user rejected permission to use this specific tool call",
    "The user has specified a rule which prevents you from using this specific tool call",
)


def read(line: bytes) -> Sequence[Entry]:
    """Parse one line. Never raises."""
    found = load_object(line)
    kind = found.get("type") if found else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    return (unknown(line),) if found is None or reader is None else tuple(reader(found))


def _started(found: Mapping[str, Any]) -> Iterator[Entry]:
    yield _session(found)


def _session(found: Mapping[str, Any]) -> Entry:
    session = clean(found.get("sessionID"))
    return Entry(EntryKind.SESSION, f"session {session}", {"session_id": session})


def _text(found: Mapping[str, Any]) -> Iterator[Entry]:
    part = mapping(found.get("part"))
    text = clean(part.get("text"))
    if part.get("synthetic") is True:  # what it tells its model itself, after it has made its memory shorter
        yield Entry(EntryKind.UNKNOWN, text, {"role": "user"})
    else:
        yield Entry(EntryKind.TEXT, text, {})


def _reasoning(found: Mapping[str, Any]) -> Iterator[Entry]:
    yield Entry(EntryKind.REASONING, clean(mapping(found.get("part")).get("text")), {})


def _tool(found: Mapping[str, Any]) -> Iterator[Entry]:
    part = mapping(found.get("part"))
    state, tool, call = mapping(part.get("state")), clean(part.get("tool")), part.get("callID")
    given = state.get("input")
    yield Entry(EntryKind.TOOL_CALL, f"{tool} {dump(given)}", {"id": call, "tool": tool, "arguments": given})
    failed = state.get("status") != "completed"
    text = clean(state.get("error") if failed else state.get("output"))
    if failed and text.startswith(DENIALS):
        yield Entry(EntryKind.PERMISSION_DENIED, f"{tool}: {text}", {"tool": tool})
    if not failed:
        yield from _changed(tool, state)
    yield Entry(EntryKind.TOOL_RESULT, text, {"id": call, "is_error": failed})


def _changed(tool: str, state: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the files that a call has changed; what its shell does to files is not known."""
    about, given = mapping(state.get("metadata")), mapping(state.get("input"))
    if tool == "apply_patch":
        for each in objects(about.get("files")):
            path = clean(each.get("movePath")) or clean(each.get("filePath"))
            yield _change(path, CHANGES.get(clean(each.get("type")), "edit"))
    elif tool == "write":
        path = clean(about.get("filepath")) or clean(given.get("filePath"))
        yield _change(path, "edit" if about.get("exists") is True else "add")
    elif tool in ("edit", "multiedit"):
        yield _change(clean(given.get("filePath")), "edit")


def _change(path: str, change: str) -> Entry:
    return Entry(EntryKind.FILE_CHANGE, path, {"path": path, "change": change})


def _finished(found: Mapping[str, Any]) -> Iterator[Entry]:
    part = mapping(found.get("part"))
    used = _used(part)
    told = ", ".join(f"{name} {value}" for name, value in used.items())
    yield Entry(EntryKind.USAGE, told, {**used, "scope": UsageScope.STEP.value})
    reason = clean(part.get("reason"))
    if reason != GOES_ON:
        yield Entry(EntryKind.RESULT, reason, {"session_id": clean(found.get("sessionID"))})


def _error(found: Mapping[str, Any]) -> Iterator[Entry]:
    yield _session(found)
    text, status = _words(found), _status(found)
    kind = EntryKind.RATE_LIMITED if _ending(found) is Ending.RATE_LIMITED else EntryKind.ERROR
    yield Entry(kind, text, {} if status is None else {"status": status})


_READERS: Final = {
    "step_start": _started,
    "text": _text,
    "reasoning": _reasoning,
    "tool_use": _tool,
    "step_finish": _finished,
    "error": _error,
}


# ---------------------------------------------------------------- what it used


def _used(part: Mapping[str, Any]) -> dict[str, int | float]:
    """Return what a step has used. It counts what came from a cache apart from its input, and what it
    thought apart from its output; we do not. A cost of 0 is that of a model without a price."""
    tokens = mapping(part.get("tokens"))
    cache = mapping(tokens.get("cache"))
    cached, reasoning = _number(cache.get("read")), _number(tokens.get("reasoning"))
    facts = {
        "input": _total(tokens.get("input"), cached, cache.get("write")),
        "output": _total(tokens.get("output"), reasoning),
        "cached": cached,
        "reasoning": reasoning,
        "cost_usd": _number(part.get("cost")) or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _total(first: object, *more: object) -> int | float | None:
    """Return the sum, None if its first part is not known."""
    if (start := _number(first)) is None:
        return None
    return start + sum(number for each in more if (number := _number(each)) is not None)


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value < MOST else None


# ---------------------------------------------------------------- judging it


def judge(record: ExitRecord, tail: bytes) -> Verdict:
    """Judge a run by its last words, then by its exit record."""
    by_exit = judge_exit(record)
    lines = [found for line in tail.splitlines() if _counts(line) and (found := load_object(line))]
    ends = [each for each in lines if each.get("type") in ("step_finish", "error")]
    result = _facts(lines)
    used = _sum(ends) if len(tail) >= record.output_bytes else None  # else a part of it is not there
    if by_exit.outcome not in (Outcome.COMPLETED, Outcome.FAILED) or record.signal is not None:
        return Verdict(by_exit.outcome, by_exit.reason, result, used)
    wrong = _wrong(ends[-1]) if ends else None
    if wrong is not None:
        return Verdict(Outcome.FAILED, wrong[1], result, used, wrong[0])
    if not ends and by_exit.outcome is Outcome.COMPLETED:
        return Verdict(Outcome.FAILED, f"ended without a result ({describe_exit(record)})", result, used)
    if by_exit.outcome is Outcome.FAILED and _got_over(ends):
        reason = f"completed after its memory was made shorter ({describe_exit(record)})"
        return Verdict(Outcome.COMPLETED, reason, result, used)
    return Verdict(by_exit.outcome, by_exit.reason, result, used)


def _got_over(ends: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether all that went wrong before its last answer is that the conversation was too long, which it
    mends itself; its exit code is then 1 all the same."""
    names = {clean(mapping(each.get("error")).get("name")) for each in ends if each.get("type") == "error"}
    return names == {"ContextOverflowError"}


def _counts(line: bytes) -> bool:
    """Say whether a line may tell how a run went; most of a stream are calls of tools."""
    return any(mark in line[:40] for mark in (b'"step_finish"', b'"step_start"', b'"text"', b'"error"'))


def _wrong(last: Mapping[str, Any]) -> tuple[Ending, str] | None:
    if last.get("type") == "error":
        return _ending(last), _words(last)
    return REASONS.get(clean(mapping(last.get("part")).get("reason")))


def _facts(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, object] | None:
    parts = [mapping(each.get("part")) for each in lines if each.get("type") == "text"]
    texts = [part.get("text") for part in parts if part.get("synthetic") is not True]
    session = next((each["sessionID"] for each in lines if isinstance(each.get("sessionID"), str)), None)
    facts = {"text": clean(texts[-1]) if texts else None, "session_id": session}
    return {name: value for name, value in facts.items() if value is not None} or None


def _sum(ends: Sequence[Mapping[str, Any]]) -> Mapping[str, object] | None:
    total: dict[str, int | float] = {}
    for each in ends:
        for name, value in _used(mapping(each.get("part"))).items():
            total[name] = total.get(name, 0) + value
    return total or None


def _words(found: Mapping[str, Any]) -> str:
    error = mapping(found.get("error"))
    said = clean(mapping(error.get("data")).get("message"))
    return said or clean(error.get("name")) or "ended with an error that says nothing"


def _status(found: Mapping[str, Any]) -> int | None:
    status = mapping(mapping(found.get("error")).get("data")).get("statusCode")
    return status if isinstance(status, int) and not isinstance(status, bool) else None


def _ending(found: Mapping[str, Any]) -> Ending:
    status, name = _status(found), clean(mapping(found.get("error")).get("name"))
    if status in (401, 403):
        return Ending.AUTH_FAILED
    if status == 429:
        return Ending.RATE_LIMITED
    return NAMES.get(name, Ending.ERROR)
