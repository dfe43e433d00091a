"""What Qwen Code writes (`--output-format stream-json`), and how its runs end.

A run that reached its limit of turns ends with exit code 53 and without a result. The tokens of a result are
those of the conversation with its earlier runs; those of a message are of its last block only.
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
from headcount.harnesses.parse import clean, dump, last_object, load_object, mapping, objects, unknown
from headcount.harnesses.verdicts import describe_exit, judge_exit

MOST: Final = 1e15
PATHS: Final[Mapping[str, tuple[str, str | None]]] = {
    # its tool: the argument that is the path, and what it does to the file (write_file makes or replaces)
    "write_file": ("file_path", None),
    "edit": ("file_path", "edit"),
    "notebook_edit": ("notebook_path", "edit"),
}
API_ERROR: Final = re.compile(r"\[API Error: (?:([45]\d\d)\b)?")
STATUS: Final[Mapping[int, Ending]] = {
    401: Ending.AUTH_FAILED,
    403: Ending.AUTH_FAILED,
    429: Ending.RATE_LIMITED,
    529: Ending.RATE_LIMITED,
}
CODES: Final[Mapping[int, tuple[Ending, str]]] = {
    53: (Ending.TURN_LIMIT, "the limit of turns was reached"),
    55: (Ending.BUDGET, "a limit of time or of tool calls was reached"),
}
TOKENS: Final = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cached", "cache_read_input_tokens"),
)


def read(line: bytes) -> Sequence[Entry]:
    """Parse one line. Never raises."""
    found = load_object(line)
    kind = found.get("type") if found else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if found is None or reader is None:
        return (unknown(line),)
    return tuple(reader(found))


def _system(found: Mapping[str, Any]) -> Iterator[Entry]:
    subtype = clean(found.get("subtype"))
    if subtype == "retry":
        yield Entry(EntryKind.ERROR, "an answer broke off, the model is asked again")
        return
    if subtype != "init":
        yield Entry(EntryKind.UNKNOWN, f"({subtype})", {"subtype": subtype})
        return
    session, model = clean(found.get("session_id")), clean(found.get("model"))
    servers = {
        clean(each.get("name")): clean(each.get("status")) for each in objects(found.get("mcp_servers"))
    }
    data = {"session_id": session, "model": model, "cwd": clean(found.get("cwd")), "mcp_servers": servers}
    yield Entry(EntryKind.SESSION, f"session {session}, model {model}", data)


def _stream_event(_found: Mapping[str, Any]) -> Iterator[Entry]:
    """Say nothing: pieces of what comes whole, and the state of its goals."""
    yield from ()


def _assistant(found: Mapping[str, Any]) -> Iterator[Entry]:
    message = mapping(found.get("message"))
    for block in objects(message.get("content")):
        yield from _block(block)
    used = _tokens(mapping(message.get("usage")))
    if used:
        data = {**used, "scope": UsageScope.STEP, "model": clean(message.get("model"))}
        yield Entry(EntryKind.USAGE, _told(used), data)


def _block(block: Mapping[str, Any]) -> Iterator[Entry]:
    kind = block.get("type")
    if kind == "text":
        yield _text(clean(block.get("text")))
    elif kind == "thinking":
        yield Entry(EntryKind.REASONING, clean(block.get("thinking")))
    elif kind == "tool_use":
        yield from _call(clean(block.get("name")), block.get("input"), call=block.get("id"))
    else:
        yield Entry(EntryKind.UNKNOWN, f"({clean(kind)})")


def _text(text: str) -> Entry:
    """Return what the model says, or what the program says in its place when the API fails."""
    match = API_ERROR.match(text)
    if match is None:
        return Entry(EntryKind.TEXT, text)
    status = int(match[1]) if match[1] else None
    limited = STATUS.get(status or 0) is Ending.RATE_LIMITED
    kind = EntryKind.RATE_LIMITED if limited else EntryKind.ERROR
    return Entry(kind, text, {"status": status} if status else {})


def _call(name: str, given: object, *, call: object) -> Iterator[Entry]:
    """Yield a call; a tool that was found by a search is called by way of another."""
    if name == "tool_call" and isinstance(mapping(given).get("name"), str):
        name, given = mapping(given)["name"], mapping(given).get("arguments")
    yield Entry(EntryKind.TOOL_CALL, f"{name} {dump(given)}", {"id": call, "tool": name, "arguments": given})
    argument, change = PATHS.get(name, ("", None))
    path = mapping(given).get(argument)
    if isinstance(path, str) and path:
        data = {"path": path, "id": call, **({"change": change} if change else {})}
        yield Entry(EntryKind.FILE_CHANGE, path, data)


def _user(found: Mapping[str, Any]) -> Iterator[Entry]:
    content = mapping(found.get("message")).get("content")
    if isinstance(content, str):
        yield Entry(EntryKind.UNKNOWN, content, {"role": "user"})
    for block in objects(content):
        if block.get("type") == "tool_result":
            data = {"id": block.get("tool_use_id"), "is_error": block.get("is_error") is True}
            yield Entry(EntryKind.TOOL_RESULT, _content(block.get("content")), data)
        else:
            yield Entry(EntryKind.UNKNOWN, clean(block.get("text")), {"role": "user"})


def _content(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(clean(each.get("text")) for each in objects(content))
    return clean(content)


def _result(found: Mapping[str, Any]) -> Iterator[Entry]:
    for denied in objects(found.get("permission_denials")):
        tool = clean(denied.get("tool_name"))
        yield Entry(EntryKind.PERMISSION_DENIED, f"{tool} {dump(denied.get('tool_input'))}", {"tool": tool})
    used = _tokens(mapping(found.get("usage")))
    if used:
        yield Entry(EntryKind.USAGE, _told(used), {**used, "scope": UsageScope.SESSION})
    data = {key: found[key] for key in ("session_id",) if isinstance(found.get(key), str)}
    if _is_count(found.get("num_turns")):
        data["turns"] = found["num_turns"]
    if _is_error(found):
        yield Entry(EntryKind.RESULT, clean(found.get("subtype")), data)
    else:
        text = clean(found.get("result"))
        yield Entry(EntryKind.RESULT, text, {**data, "text": text})


_READERS: Final = {
    "system": _system,
    "assistant": _assistant,
    "user": _user,
    "result": _result,
    "stream_event": _stream_event,
}


# ---------------------------------------------------------------- judging it


def judge(record: ExitRecord, tail: bytes) -> Verdict:
    """Judge a run by its exit record and its last result."""
    verdict, found = judge_exit(record), last_object(tail, kind="result")
    facts, usage = _facts(found or {}), _tokens(mapping((found or {}).get("usage")))
    if verdict.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
        return Verdict(verdict.outcome, verdict.reason, facts, usage)
    if record.code in CODES and record.code is not None:
        ending, words = CODES[record.code]
        return Verdict(Outcome.FAILED, f"{words} ({describe_exit(record)})", facts, usage, ending)
    if found is not None and _is_error(found):
        reason = _error(found) or describe_exit(record)
        return Verdict(Outcome.FAILED, reason, facts, usage, _ending(reason))
    if verdict.outcome is Outcome.COMPLETED and found is None:
        return Verdict(Outcome.FAILED, f"ended without a result ({describe_exit(record)})", facts, usage)
    return Verdict(verdict.outcome, verdict.reason, facts, usage)


def _is_error(found: Mapping[str, Any]) -> bool:
    return found.get("is_error") is not False or found.get("subtype") != "success"


def _error(found: Mapping[str, Any]) -> str:
    return clean(mapping(found.get("error")).get("message")) or clean(found.get("result"))


def _ending(reason: str) -> Ending | None:
    match = API_ERROR.match(reason)
    return STATUS.get(int(match[1] or 0), Ending.API_ERROR) if match else None


def _facts(found: Mapping[str, Any]) -> Mapping[str, object] | None:
    if not found:
        return None
    facts = {"text": "" if _is_error(found) else clean(found.get("result"))}
    told = ("session_id", "subtype", "num_turns", "structured_result")
    denied = [clean(each.get("tool_name")) for each in objects(found.get("permission_denials"))]
    return {**facts, **{name: found[name] for name in told if name in found}, "permission_denials": denied}


def _tokens(found: Mapping[str, Any]) -> dict[str, int]:
    """Return what was counted; a message that was not counted shows zeros, which say nothing."""
    counted = {ours: found[theirs] for ours, theirs in TOKENS if _is_count(found.get(theirs))}
    return counted if any(counted.values()) else {}


def _told(used: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in used.items())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST
