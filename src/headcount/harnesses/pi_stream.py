"""What Pi writes (`--mode json`), and how its runs end.

It exits 0 on every failure of an API: the last message of its model says how a run ended. A message that
failed is tried again after `auto_retry_start`, and `agent_end`, which repeats all messages of the run, is
written for every try; it may be longer than the end of the output by which a run is judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.account import Ending
from headcount.domain.entries import Entry, EntryKind, UsageScope
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.harnesses.base import Verdict
from headcount.harnesses.parse import clean, dump, load_object, mapping, objects, unknown
from headcount.harnesses.verdicts import SHELL_SIGNAL_BASE, describe_exit, judge_exit

REFUSED: Final = "not permitted here: "
"""What a refusal by our guard begins with."""
LAST: Final = b"}]}"
"""The end of the line that repeats all messages."""
MOST: Final = 1e15
OVERLOADED: Final = frozenset({429, 529})
AUTH: Final = frozenset({401, 403})
CHANGES: Final[Mapping[str, str | None]] = {"edit": "edit", "write": None}  # which makes or replaces
REPEATS: Final = (
    b'{"type":"message_update"',
    b'{"type":"tool_execution_update"',
    b'{"type":"message_start"',
    b'{"type":"turn_end"',
)
"""Lines that say in parts, or again, what others say whole; some grow with each word."""


def read(line: bytes) -> Sequence[Entry]:
    """Parse one line. Never raises."""
    if line.startswith(REPEATS):
        return ()
    found = load_object(line)
    kind = found.get("type") if found else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if found is None or reader is None:
        return () if kind in _SILENT else (unknown(line),)
    return tuple(reader(found))


_SILENT: Final = ("agent_start", "turn_start", "auto_retry_end", "queue_update", "tool_execution_start")


def _session(found: Mapping[str, Any]) -> Iterator[Entry]:
    session, cwd = clean(found.get("id")), clean(found.get("cwd"))
    yield Entry(EntryKind.SESSION, f"session {session}", {"session_id": session, "cwd": cwd})


def _message(found: Mapping[str, Any]) -> Iterator[Entry]:
    message = mapping(found.get("message"))
    if message.get("role") != "assistant":
        return  # the prompt; and results of tools, which have been told by their own events
    for block in objects(message.get("content")):
        yield from _block(block)
    used = _used(message)
    if used:
        text = ", ".join(f"{name} {value}" for name, value in used.items())
        model = {"model": message["model"]} if isinstance(message.get("model"), str) else {}
        yield Entry(EntryKind.USAGE, text, {**used, **model, "scope": UsageScope.STEP.value})
    if _has_failed(message):
        yield _failure(clean(message.get("errorMessage")) or clean(message.get("stopReason")))


def _block(block: Mapping[str, Any]) -> Iterator[Entry]:
    kind = block.get("type")
    if kind == "text":
        yield Entry(EntryKind.TEXT, clean(block.get("text")), {})
    elif kind == "thinking":
        yield Entry(EntryKind.REASONING, clean(block.get("thinking")), {})
    elif kind == "toolCall":
        yield from _call(clean(block.get("name")), block.get("arguments"), call=block.get("id"))
    else:
        yield Entry(EntryKind.UNKNOWN, f"({clean(kind)})", {})


def _call(tool: str, given: object, *, call: object) -> Iterator[Entry]:
    yield Entry(EntryKind.TOOL_CALL, f"{tool} {dump(given)}", {"id": call, "tool": tool, "arguments": given})
    path = mapping(given).get("path")
    if tool in CHANGES and isinstance(path, str) and path:
        change = {"change": CHANGES[tool]} if CHANGES[tool] else {}
        yield Entry(EntryKind.FILE_CHANGE, path, {"path": path, "id": call, **change})


def _answer(found: Mapping[str, Any]) -> Iterator[Entry]:
    parts = objects(mapping(found.get("result")).get("content"))
    text = "\n".join(clean(part.get("text")) or f"({clean(part.get('type'))})" for part in parts)
    failed = found.get("isError") is True
    yield Entry(EntryKind.TOOL_RESULT, text, {"id": found.get("toolCallId"), "is_error": failed})
    if failed and text.startswith(REFUSED):
        yield Entry(EntryKind.PERMISSION_DENIED, text, {"tool": clean(found.get("toolName"))})


def _retry(found: Mapping[str, Any]) -> Iterator[Entry]:
    words, delay = clean(found.get("errorMessage")), _number(found.get("delayMs"))
    if _status(words) in OVERLOADED:
        wait = {} if delay is None else {"retry_after_s": delay / 1000}
        yield Entry(EntryKind.RATE_LIMITED, words, {"status": _status(words), **wait})
    else:
        yield Entry(EntryKind.UNKNOWN, f"tries again: {words}", {})


def _failure(words: str) -> Entry:
    status = _status(words)
    return Entry(EntryKind.ERROR, words, {} if status is None else {"status": status})


def _end(found: Mapping[str, Any]) -> Iterator[Entry]:
    said = [each for each in objects(found.get("messages")) if each.get("role") == "assistant"]
    if not said:
        yield Entry(EntryKind.RESULT, "no answer", {})
    elif _has_failed(said[-1]):
        yield Entry(EntryKind.RESULT, clean(said[-1].get("stopReason")), {"turns": len(said)})
    else:
        text = _text(said[-1])
        yield Entry(EntryKind.RESULT, text, {"turns": len(said), "text": text})


def _compaction(found: Mapping[str, Any]) -> Iterator[Entry]:
    yield Entry(EntryKind.UNKNOWN, f"({clean(found.get('type'))}: {clean(found.get('reason'))})", {})


_READERS: Final = {
    "session": _session,
    "message_end": _message,
    "tool_execution_end": _answer,
    "auto_retry_start": _retry,
    "agent_end": _end,
    "compaction_start": _compaction,
    "compaction_end": _compaction,
}


# ---------------------------------------------------------------- what it used


def _used(message: Mapping[str, Any]) -> dict[str, int | float]:
    """Return what one message used. A cost of 0 is that of a model whose price nobody has told it."""
    given = mapping(message.get("usage"))
    read = [_number(given.get(name)) for name in ("input", "cacheRead", "cacheWrite")]
    written = _number(given.get("output"))
    if not any((*read, written)):  # a message that failed used none, or nobody knows
        return {}
    cost = _number(mapping(given.get("cost")).get("total"))
    used = {
        "input": sum(each or 0 for each in read),
        "output": written,
        "cached": read[1],
        "cost_usd": cost or None,
    }
    return {name: value for name, value in used.items() if value is not None}


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value < MOST else None


# ---------------------------------------------------------------- judging it


def judge(record: ExitRecord, tail: bytes) -> Verdict:
    """Judge a run by the last message of its model, then by its exit record."""
    by_exit = judge_exit(record)
    lines = tail.splitlines()
    message = _last_message(lines)
    outcome, reason, ending = by_exit.outcome, by_exit.reason, None
    if outcome is Outcome.COMPLETED and (message is None or not _is_over(lines)):
        outcome, reason = Outcome.FAILED, f"ended without a result ({describe_exit(record)})"
    if outcome in (Outcome.COMPLETED, Outcome.FAILED) and message is not None and _has_failed(message):
        reason = clean(message.get("errorMessage")) or clean(message.get("stopReason"))
        outcome, ending = Outcome.FAILED, _ending(message)
    elif outcome is Outcome.FAILED and record.code is not None and record.code > SHELL_SIGNAL_BASE:
        ending = Ending.KILLED
    return Verdict(outcome, reason, _facts(lines, message), _sum(lines), ending)


def _last_message(lines: Sequence[bytes]) -> Mapping[str, Any] | None:
    """Return what its model said last. The last line repeats it, perhaps with its beginning cut away."""
    for line in reversed(lines):
        if line.startswith((b'{"type":"message_end"', b'{"type":"turn_end"')):
            found = mapping(mapping(load_object(line)).get("message"))
            if found.get("role") == "assistant":
                return found
    return _from_fragment(lines[0]) if lines else None


def _from_fragment(line: bytes) -> Mapping[str, Any] | None:
    """Return the last message of an `agent_end`; within its texts quotes are escaped, so no text is taken
    for one."""
    at = line.rfind(b'{"role":"assistant"')
    return load_object(line[at:].removesuffix(b"]}")) if at >= 0 and line.endswith(LAST) else None


def _is_over(lines: Sequence[bytes]) -> bool:
    """Say whether it has come to its own end. What follows that is about tries and about its memory."""
    for line in reversed(lines):
        if line.startswith((b'{"type":"agent_end"', b'{"type":"agent_start"')):
            return line.startswith(b'{"type":"agent_end"')
    return bool(lines) and lines[0].endswith(LAST)


def _has_failed(message: Mapping[str, Any]) -> bool:
    return message.get("stopReason") not in ("stop", "toolUse")


def _ending(message: Mapping[str, Any]) -> Ending:
    words = clean(message.get("errorMessage"))
    if message.get("stopReason") == "length" or "too long" in words or "context" in words:
        return Ending.TOKEN_LIMIT
    if "content_filter" in words or "refusal" in words:
        return Ending.REFUSED
    status = _status(words)
    if status in AUTH:
        return Ending.AUTH_FAILED
    return Ending.RATE_LIMITED if status in OVERLOADED else Ending.API_ERROR


def _status(words: str) -> int | None:
    """Return the HTTP status with which an error message begins."""
    found = re.match(r"(?:Error: )?([45]\d\d)\b", words)
    return int(found[1]) if found else None


def _text(message: Mapping[str, Any]) -> str:
    return "\n".join(
        clean(each.get("text")) for each in objects(message.get("content")) if each.get("type") == "text"
    )


def _facts(lines: Sequence[bytes], message: Mapping[str, Any] | None) -> Mapping[str, object] | None:
    """Return the answer; the conversation is named in the first line only, which may be out of sight."""
    if message is None:
        return None
    first = mapping(load_object(lines[0])) if lines else {}
    session = first.get("id") if first.get("type") == "session" else None
    return {"text": _text(message), "session_id": session, "stop_reason": message.get("stopReason")}


def _sum(lines: Sequence[bytes]) -> Mapping[str, object] | None:
    """Return what the messages within sight used; the account has all of them."""
    total: dict[str, int | float] = {}
    for line in lines:
        if line.startswith(b'{"type":"message_end"'):
            message = mapping(mapping(load_object(line)).get("message"))
            for name, value in _used(message).items() if message.get("role") == "assistant" else ():
                total[name] = total.get(name, 0) + value
    return total or None
