"""Runs under a driver (`harnesses/driver`): how they are started, what the driver writes, how they end.

A driver's output is its program's, line by line, and between them its own: {"headcount": {"event": …}}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from headcount.domain.account import Ending
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.harnesses.base import Launch, Spec, Verdict
from headcount.harnesses.parse import clean, dump, load_object, mapping
from headcount.harnesses.verdicts import describe_exit, judge_exit

PROGRAM: Final = os.path.join(os.path.dirname(__file__), "driver", "main.py")
ORDER_FILE: Final = "driver.json"
MARK: Final = b'{"headcount": {"event": '
NAMING: Final = ("--session-id=", "--resume=", "--session=")
"""Flags that name a conversation; over ACP that is done by the protocol."""
TOKENS: Final = ("input", "output", "cached", "reasoning")


def launch(spec: Spec, *, protocol: str, direct: Launch, **more: object) -> Launch:
    """Return how to start a driver that starts `direct` and gives it the prompt over `protocol`."""
    options = spec.options
    order = {
        "protocol": protocol,
        "argv": direct.argv,
        "run_path": spec.run_path,
        "cwd": spec.cwd,
        "permissions": options.permissions,
        "allowed_tools": options.allowed_tools,
        "denied_tools": options.denied_tools,
        "ask_expiry": spec.ask_expiry,
        "resume": spec.session.session_id if spec.session.resumed else None,
        **more,
    }
    return Launch(
        argv=(sys.executable, "-I", "-S", PROGRAM, os.path.join(spec.run_path, ORDER_FILE)),
        env=direct.env,
        files={**direct.files, ORDER_FILE: json.dumps(order, indent=1).encode()},
        stdin=spec.prompt.encode(),
        interrupts=True,  # TERM would reach the program too, before its turn is cancelled over the protocol
    )


def launch_acp(spec: Spec, direct: Launch, *, model: str | None = None) -> Launch:
    """Return how to start a driver over `direct`, which speaks ACP and has our MCP server, its permissions
    and other options by its own flags and files; `model` if it is to be chosen over the protocol."""
    flags = tuple(each for each in direct.argv if not each.startswith(NAMING))
    return launch(spec, protocol="acp", direct=replace(direct, argv=flags), mcp_servers=(), model=model)


def mcp_servers(spec: Spec) -> Sequence[Mapping[str, object]]:
    """Name our server as ACP does, and nothing secret: the driver gives it its token, from its variables."""
    return [
        {"name": "headcount", "command": spec.headcount[0], "args": [*spec.headcount[1:], "mcp"], "env": []}
    ]


def judge_with(own: Callable[[ExitRecord, bytes], Verdict], record: ExitRecord, tail: bytes) -> Verdict:
    """Judge by a program's own words, but for what only its driver knows: that its turn was cancelled as
    asked, or that the conversation failed before it had a say."""
    last = _last(tail)
    if last is None:
        return own(record, tail)
    lines = tail.splitlines(keepends=True)
    verdict = own(record, b"".join(line for line in lines if not line.startswith(MARK)))
    if verdict.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
        return verdict
    reason = clean(last.get("reason"))
    if last.get("outcome") == "cancelled":
        return replace(verdict, outcome=Outcome.STOPPED, reason=reason, ending=Ending.STOPPED)
    if last.get("outcome") == "failed" and not verdict.result:
        return replace(verdict, outcome=Outcome.FAILED, reason=reason, ending=_ending(last.get("ending")))
    return verdict


# ---------------------------------------------------------------- reading it


def read(line: bytes) -> Sequence[Entry] | None:
    """Return the entries of a driver's own line, None if it is none."""
    if not line.startswith(MARK):
        return None
    facts = mapping((load_object(line) or {}).get("headcount"))
    reader = _READERS.get(clean(facts.get("event")))
    return None if reader is None else tuple(reader(facts))


def _session(facts: Mapping[str, Any]) -> Iterator[Entry]:
    known = {name: clean(facts[name]) for name in ("session_id", "model") if facts.get(name)}
    words = [clean(facts[name]) for name in ("agent", "session_id", "model") if facts.get(name)]
    yield Entry(EntryKind.SESSION, f"session of {', '.join(words)}", known)


def _tool_call(facts: Mapping[str, Any]) -> Iterator[Entry]:
    tool, given = clean(facts.get("tool")), facts.get("arguments")
    said = given if isinstance(given, str) else dump(given)
    yield Entry(
        EntryKind.TOOL_CALL,
        f"{tool} {clean(said)}",
        {"id": facts.get("id"), "tool": tool, "arguments": given},
    )


def _file_change(facts: Mapping[str, Any]) -> Iterator[Entry]:
    known = {name: facts[name] for name in ("path", "change") if isinstance(facts.get(name), str)}
    yield Entry(EntryKind.FILE_CHANGE, clean(facts.get("path")), known)


def _usage(facts: Mapping[str, Any]) -> Iterator[Entry]:
    known = {name: facts[name] for name in (*TOKENS, "cost_usd", "scope") if name in facts}
    yield Entry(EntryKind.USAGE, ", ".join(f"{name} {value}" for name, value in known.items()), known)


def _asked(facts: Mapping[str, Any]) -> Iterator[Entry]:
    yield Entry(
        EntryKind.REASONING, f"asks a person (approval {facts.get('id')}): {clean(facts.get('title'))}"
    )


def _allowed(facts: Mapping[str, Any]) -> Iterator[Entry]:
    """What was allowed shows by what is done."""
    yield from ()


def _denied(facts: Mapping[str, Any]) -> Iterator[Entry]:
    tool = clean(facts.get("tool"))
    text = f"{tool}: {clean(facts.get('title'))}: {clean(facts.get('why'))}"
    yield Entry(EntryKind.PERMISSION_DENIED, text, {"tool": tool})


def _letter(facts: Mapping[str, Any]) -> Iterator[Entry]:
    text = clean(facts.get("text"))
    event = clean(facts.get("event"))
    yield Entry(EntryKind.REASONING, f"was told: {text}" if event == "message" else f"was told to {event}")


def _error(facts: Mapping[str, Any]) -> Iterator[Entry]:
    yield Entry(EntryKind.ERROR, clean(facts.get("reason")))


def _end(facts: Mapping[str, Any]) -> Iterator[Entry]:
    reason = clean(facts.get("reason"))
    if facts.get("outcome") == "failed":
        kind = EntryKind.RATE_LIMITED if facts.get("ending") == Ending.RATE_LIMITED else EntryKind.ERROR
        yield Entry(kind, reason)
    known = {name: clean(facts[name]) for name in ("session_id", "text") if facts.get(name)}
    yield Entry(EntryKind.RESULT, reason, known)


_READERS: Final = {
    "session": _session,
    "tool_call": _tool_call,
    "file_change": _file_change,
    "usage": _usage,
    "asked": _asked,
    "allowed": _allowed,
    "denied": _denied,
    "message": _letter,
    "cancel": _letter,
    "error": _error,
    "end": _end,
}


# ---------------------------------------------------------------- judging it


def judge(record: ExitRecord, tail: bytes) -> Verdict | None:
    """Judge a run by the last line of its driver; None if there is none of a driver."""
    last = _last(tail)
    if last is None:
        return None
    verdict = judge_exit(record)
    facts = {name: clean(last[name]) for name in ("text", "session_id") if last.get(name)}
    usage = _last_usage(tail)
    if verdict.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
        return Verdict(verdict.outcome, verdict.reason, facts, usage)
    said, reason = last.get("outcome"), clean(last.get("reason"))
    if said == "cancelled":
        return Verdict(Outcome.STOPPED, reason, facts, usage, Ending.STOPPED)
    if said == "completed" and record.code == 0:
        return Verdict(Outcome.COMPLETED, verdict.reason, facts, usage)
    if said == "completed":
        return Verdict(Outcome.FAILED, describe_exit(record), facts, usage)
    return Verdict(Outcome.FAILED, reason or verdict.reason, facts, usage, _ending(last.get("ending")))


def judge_or(own: Callable[[ExitRecord, bytes], Verdict], record: ExitRecord, tail: bytes) -> Verdict:
    """Judge by the driver's last line, or by the program's own words where there is none."""
    if MARK in tail:
        return judge(record, tail) or judge_cut(record)
    return own(record, tail)


def judge_cut(record: ExitRecord) -> Verdict:
    """Judge a run whose driver did not come to its last line."""
    verdict = judge_exit(record)
    if verdict.outcome is not Outcome.COMPLETED:
        return verdict
    return Verdict(Outcome.FAILED, f"ended without a result ({describe_exit(record)})")


def _last(tail: bytes) -> Mapping[str, Any] | None:
    for line in reversed(tail.splitlines()):
        if line.startswith(MARK + b'"end"'):
            return mapping((load_object(line) or {}).get("headcount"))
    return None


def _last_usage(tail: bytes) -> Mapping[str, object] | None:
    """Return what the driver counted last; what a line does not say is what an earlier one did."""
    used: dict[str, object] = {}
    for line in reversed(tail.splitlines()):
        if line.startswith(MARK + b'"usage"'):
            facts = mapping((load_object(line) or {}).get("headcount"))
            for name in (*TOKENS, "cost_usd"):
                if name in facts:
                    used.setdefault(name, facts[name])
    return used or None


def _ending(word: object) -> Ending | None:
    return Ending(str(word)) if word in set(Ending) else None
