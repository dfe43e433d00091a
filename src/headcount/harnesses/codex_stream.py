"""What Codex writes (`codex exec --json`), and how its runs end.

The last `turn.completed` or `turn.failed` is its verdict; an `error` may be one that it got over. What a turn
has used is what its conversation has used with all its earlier runs; of a turn that failed nothing is said,
and of its model never.
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
from headcount.harnesses.verdicts import describe_exit, judge_exit

MOST: Final = 1e15
FAILED: Final = frozenset({"failed", "declined"})
CHANGES: Final[Mapping[str, str]] = {"add": "add", "delete": "delete", "update": "edit"}
TOKENS: Final[Mapping[str, str]] = {
    "input": "input_tokens",  # with what came from a cache
    "cached": "cached_input_tokens",
    "output": "output_tokens",  # with what it thought
    "reasoning": "reasoning_output_tokens",
}
STATUS: Final = re.compile(r"\bstatus:? (\d{3})\b")
ENDINGS: Final[Sequence[tuple[str, Ending]]] = (
    ("usage limit", Ending.RATE_LIMITED),
    ("rate limit", Ending.RATE_LIMITED),
    ("quota", Ending.RATE_LIMITED),
    ("max_output_tokens", Ending.TOKEN_LIMIT),
    ("context window", Ending.TOKEN_LIMIT),
    ("prompt is too long", Ending.TOKEN_LIMIT),
    ("context_length_exceeded", Ending.TOKEN_LIMIT),
    ("content_filter", Ending.REFUSED),
    ("stream disconnected", Ending.API_ERROR),
    ("high demand", Ending.API_ERROR),
    ("connection failed", Ending.API_ERROR),
    ("error sending request", Ending.API_ERROR),
    ("_error", Ending.API_ERROR),  # the type in an answer that was refused with 400
)
"""Words of its last message, in small letters; the first that is found counts."""


def read(line: bytes) -> Sequence[Entry]:
    """Parse one line. Never raises; a line that only says that a turn began has no entry."""
    found = load_object(line)
    kind = found.get("type") if found else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    return (unknown(line),) if found is None or reader is None else tuple(reader(found))


def _thread(found: Mapping[str, Any]) -> Iterator[Entry]:
    session = clean(found.get("thread_id"))
    yield Entry(EntryKind.SESSION, f"session {session}", {"session_id": session})


def _nothing(_found: Mapping[str, Any]) -> Iterator[Entry]:
    yield from ()


def _error(found: Mapping[str, Any]) -> Iterator[Entry]:
    text = clean(found.get("message"))
    status = _status(text)
    kind = EntryKind.RATE_LIMITED if _ending(text) is Ending.RATE_LIMITED else EntryKind.ERROR
    yield Entry(kind, text, {} if status is None else {"status": status})


def _completed(found: Mapping[str, Any]) -> Iterator[Entry]:
    used = _used(found)
    if used is not None:
        yield Entry(
            EntryKind.USAGE, ", ".join(f"{name} {used[name]}" for name in TOKENS if name in used), used
        )
    yield Entry(EntryKind.RESULT, "turn completed", {})


def _turn_failed(found: Mapping[str, Any]) -> Iterator[Entry]:
    yield Entry(EntryKind.RESULT, f"turn failed: {_words(found)}", {})  # an error has said so before


# ---------------------------------------------------------------- the items of a turn


def _started(found: Mapping[str, Any]) -> Iterator[Entry]:
    item = mapping(found.get("item"))
    kind, call = clean(item.get("type")), item.get("id")
    if kind in _SAID:
        return
    tool, arguments = _call(kind, item)
    data = {"id": call, "tool": tool, "arguments": arguments}
    text = arguments if isinstance(arguments, str) else dump(arguments)
    yield Entry(EntryKind.TOOL_CALL, f"{tool} {clean(text)}", data)
    for each in objects(item.get("changes")):
        path, change = clean(each.get("path")), CHANGES.get(clean(each.get("kind")))
        told = {"path": path, "id": call, **({"change": change} if change else {})}
        yield Entry(EntryKind.FILE_CHANGE, path, told)


def _call(kind: str, item: Mapping[str, Any]) -> tuple[str, object]:
    """Return the tool that an item is a call of, and its arguments."""
    if kind == "command_execution":
        return "shell", {"command": item.get("command")}
    if kind == "mcp_tool_call":
        return f"{clean(item.get('server'))}.{clean(item.get('tool'))}", item.get("arguments")
    if kind == "file_change":
        return "apply_patch", {"changes": item.get("changes")}
    return kind, {name: value for name, value in item.items() if name not in ("id", "type", "status")}


def _ended(found: Mapping[str, Any]) -> Iterator[Entry]:
    item = mapping(found.get("item"))
    kind = clean(item.get("type"))
    if kind in _SAID:
        yield _SAID[kind](item)
        return
    text, status = _answer(kind, item), item.get("status")
    denied = status == "declined" or "requires approval" in text
    if denied:
        tool, _ = _call(kind, item)
        yield Entry(EntryKind.PERMISSION_DENIED, f"{tool}: {text or 'declined'}", {"tool": tool})
    failed = denied or (isinstance(status, str) and status in FAILED)
    yield Entry(EntryKind.TOOL_RESULT, text, {"id": item.get("id"), "is_error": failed})


def _answer(kind: str, item: Mapping[str, Any]) -> str:
    if kind == "command_execution":
        return clean(item.get("aggregated_output"))
    if kind == "mcp_tool_call":
        error = clean(mapping(item.get("error")).get("message"))
        content = objects(mapping(item.get("result")).get("content"))
        return error or "\n".join(clean(each.get("text")) for each in content)
    if kind == "file_change":
        return clean(item.get("status"))
    return clean(item.get("status")) or f"({kind})"


def _updated(found: Mapping[str, Any]) -> Iterator[Entry]:
    item = mapping(found.get("item"))
    kind = clean(item.get("type"))
    yield _SAID[kind](item) if kind in _SAID else Entry(EntryKind.UNKNOWN, f"({kind})", {})


def _plan(item: Mapping[str, Any]) -> Entry:
    steps = [_step(each) for each in objects(item.get("items"))]
    return Entry(EntryKind.REASONING, "\n".join(steps), {})


def _step(given: Mapping[str, Any]) -> str:
    return f"[{'x' if given.get('completed') is True else ' '}] {clean(given.get('text'))}"


_SAID: Final = {
    "agent_message": lambda item: Entry(EntryKind.TEXT, clean(item.get("text")), {}),
    "reasoning": lambda item: Entry(EntryKind.REASONING, clean(item.get("text")), {}),
    "error": lambda item: Entry(EntryKind.ERROR, clean(item.get("message")), {}),  # a warning, as a rule
    "todo_list": _plan,
}
_READERS: Final = {
    "thread.started": _thread,
    "turn.started": _nothing,
    "turn.completed": _completed,
    "turn.failed": _turn_failed,
    "item.started": _started,
    "item.updated": _updated,
    "item.completed": _ended,
    "error": _error,
}


# ---------------------------------------------------------------- judging it


def judge(record: ExitRecord, tail: bytes) -> Verdict:
    """Judge a run by the end of its turn, then by its exit record."""
    by_exit = judge_exit(record)
    found = _last(tail)
    result = _facts(found)
    ended = found.get("turn")
    used = _used(ended) if ended else None
    if by_exit.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
        return Verdict(by_exit.outcome, by_exit.reason, result or None, used)
    if ended is None and by_exit.outcome is Outcome.COMPLETED:
        return Verdict(Outcome.FAILED, f"ended without a result ({describe_exit(record)})", result or None)
    if ended is not None and ended.get("type") == "turn.failed":
        words = _words(ended)
        return Verdict(Outcome.FAILED, words, result or None, None, _ending(words))
    return Verdict(by_exit.outcome, by_exit.reason, result or None, used)


def _last(tail: bytes) -> Mapping[str, Mapping[str, Any]]:
    """Return the last line of each kind that tells how a run went: `thread`, `text`, `turn`."""
    found: dict[str, Mapping[str, Any]] = {}
    for line in reversed(tail.splitlines()):
        if not any(mark in line for mark in _MARKS):
            continue
        each = load_object(line) or {}
        kind = clean(each.get("type"))
        if kind in ("turn.completed", "turn.failed"):
            found.setdefault("turn", each)
        elif kind == "thread.started":
            found.setdefault("thread", each)
        elif kind == "item.completed" and mapping(each.get("item")).get("type") == "agent_message":
            found.setdefault("text", mapping(each.get("item")))
        if len(found) == len(_MARKS):
            break
    return found


_MARKS: Final = (b'"turn.', b'"thread.started"', b'"agent_message"')


def _facts(found: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    facts: dict[str, object] = {}
    if "text" in found:
        facts["text"] = clean(found["text"].get("text"))
    if "thread" in found:
        facts["session_id"] = clean(found["thread"].get("thread_id"))
    return facts


def _used(turn: Mapping[str, Any]) -> dict[str, object] | None:
    """Return what its conversation has used in all; None if it does not say."""
    given = mapping(turn.get("usage"))
    counts = {name: given[key] for name, key in TOKENS.items() if _is_count(given.get(key))}
    return {**counts, "scope": UsageScope.SESSION.value} if counts else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _words(turn: Mapping[str, Any]) -> str:
    return clean(mapping(turn.get("error")).get("message")) or "its turn failed, and it does not say why"


def _status(text: str) -> int | None:
    found = STATUS.search(text)
    return int(found[1]) if found else None


def _ending(text: str) -> Ending:
    status, small = _status(text), text.lower()
    if status in (401, 403):
        return Ending.AUTH_FAILED
    if status == 429:
        return Ending.RATE_LIMITED
    named = next((ending for word, ending in ENDINGS if word in small), None)
    return named or (Ending.ERROR if status is None else Ending.API_ERROR)
