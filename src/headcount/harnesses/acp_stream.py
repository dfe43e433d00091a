"""What an agent that speaks the Agent Client Protocol writes, line by line.

What takes more than one line to know is told by lines of the driver (`driven`): the tool of a call whose
first line does not have it, files that a call changed without showing how, tokens, and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.entries import Entry, EntryKind
from headcount.harnesses import driven
from headcount.harnesses.driver.names import has_arguments, tool_of
from headcount.harnesses.parse import clean, dump, load_object, mapping, objects, unknown

MARK: Final = b'"jsonrpc"'
QUIET: Final = frozenset(
    {
        "available_commands_update",
        "config_option_update",
        "current_mode_update",
        "session_info_update",
        "usage_update",
        "user_message_chunk",
    }
)
"""What says nothing about the work; usage the driver sums up."""


def read(line: bytes) -> Sequence[Entry]:
    """Return the entries of a line."""
    entries = find(line)
    return (unknown(line),) if entries is None else entries


def read_with(own: Callable[[bytes], Sequence[Entry]], line: bytes) -> Sequence[Entry]:
    """Return the entries of a line of a program that speaks ACP under a driver, and else its `own`."""
    entries = find(line)
    return own(line) if entries is None else entries


def find(line: bytes) -> Sequence[Entry] | None:
    """Return the entries of a line, None if it is neither the protocol's nor its driver's."""
    entries = driven.read(line)
    if entries is not None or MARK not in line:
        return entries
    found = load_object(line)
    if found is None or found.get("jsonrpc") != "2.0":
        return None
    if "method" not in found:
        return tuple(_answer(found))
    if found["method"] == "session/update":
        return tuple(_update(mapping(mapping(found.get("params")).get("update")), line))
    return ()  # requests, on which the driver's own lines say what it did


def _answer(found: Mapping[str, Any]) -> Iterator[Entry]:
    error = found.get("error")
    if error is not None:
        details = mapping(mapping(error).get("data")).get("details")
        text = clean(mapping(error).get("message") or error)
        yield Entry(EntryKind.ERROR, f"{text}: {clean(details)}" if details else text)


def _update(update: Mapping[str, Any], line: bytes) -> Iterator[Entry]:
    kind = clean(update.get("sessionUpdate"))
    reader = _UPDATES.get(kind)
    if reader is not None:
        yield from reader(update)
    elif kind not in QUIET:
        yield unknown(line)


def _text(update: Mapping[str, Any]) -> Iterator[Entry]:
    text = clean(_content(update.get("content")))
    if text:
        yield Entry(EntryKind.TEXT, text, {"delta": True})


def _thought(update: Mapping[str, Any]) -> Iterator[Entry]:
    text = clean(_content(update.get("content")))
    if text:
        yield Entry(EntryKind.REASONING, text, {"delta": True})


def _plan(update: Mapping[str, Any]) -> Iterator[Entry]:
    steps = [
        f"{clean(each.get('content'))} ({clean(each.get('status'))})"
        for each in objects(update.get("entries"))
    ]
    yield Entry(EntryKind.REASONING, f"plan: {'; '.join(steps)}")


def _call(update: Mapping[str, Any]) -> Iterator[Entry]:
    given = update.get("rawInput")
    if has_arguments(update):
        tool = clean(tool_of(update))
        data = {"id": update.get("toolCallId"), "tool": tool, "arguments": given}
        yield Entry(EntryKind.TOOL_CALL, f"{tool} {dump(given)}", data)
    yield from _call_update(update)


def _call_update(update: Mapping[str, Any]) -> Iterator[Entry]:
    status = update.get("status")
    if status not in ("completed", "failed"):
        return
    call = update.get("toolCallId")
    for each in objects(update.get("content")):
        path = each.get("path")
        if each.get("type") == "diff" and isinstance(path, str) and status == "completed":
            change = "edit" if each.get("oldText") else "add"
            yield Entry(EntryKind.FILE_CHANGE, clean(path), {"path": clean(path), "change": change})
    data = {"id": call, "is_error": status == "failed"}
    yield Entry(EntryKind.TOOL_RESULT, _outcome(update), data)


def _outcome(update: Mapping[str, Any]) -> str:
    said = [
        _content(each.get("content"))
        for each in objects(update.get("content"))
        if each.get("type") == "content"
    ]
    if any(said):
        return "\n".join(clean(each) for each in said)
    return clean(update.get("rawOutput"))


def _content(block: object) -> object:
    """Return the text of a block of content, or a mark for what is none."""
    found = mapping(block)
    kind = found.get("type")
    return found.get("text") if kind == "text" else f"({clean(kind)})" if kind else None


_UPDATES: Final = {
    "agent_message_chunk": _text,
    "agent_thought_chunk": _thought,
    "plan": _plan,
    "tool_call": _call,
    "tool_call_update": _call_update,
}
