"""What Claude Code writes (`--output-format stream-json`), and how its runs end.

Its exit code is not its verdict: a run that failed on the API ends with subtype "success" and `is_error`, and
SIGINT gives exit code 0. There may be several results, one for each time that it fell silent, of which the
last is the answer. What they cost adds up: 2.1.330 says what was used since the result before, its subagents
included; 2.1.197 has tokens since the result before without its subagents, and the cost of the run so far.
(The total that 2.1.330 gives is that of the conversation with all its earlier runs: it is left alone.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.account import Ending
from headcount.domain.entries import Entry, EntryKind, UsageScope
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.harnesses.base import Verdict
from headcount.harnesses.parse import clean, dump, last_object, load_object, mapping, objects, unknown
from headcount.harnesses.verdicts import SHELL_SIGNAL_BASE, describe_exit, judge_exit

MOST: Final = 1e15
OVERLOADED: Final = frozenset({429, 529})
AUTH: Final = frozenset({401, 403})
NOISE: Final = frozenset({"thinking_tokens", "background_tasks_changed", "task_updated"})
"""Events that say nothing which others do not say better; the raw line is kept, as always."""
PATHS: Final[Mapping[str, tuple[str, str | None]]] = {
    # its tool: the argument that is the path, and what it does to the file (Write makes or replaces)
    "Edit": ("file_path", "edit"),
    "MultiEdit": ("file_path", "edit"),
    "Write": ("file_path", None),
    "NotebookEdit": ("notebook_path", "edit"),
}


def read(line: bytes) -> Sequence[Entry]:
    """Parse one line. Never raises."""
    found = load_object(line)
    kind = found.get("type") if found else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if found is None or reader is None:
        return (unknown(line),)
    return tuple(reader(found))


def _system(found: Mapping[str, Any]) -> Sequence[Entry]:
    subtype = clean(found.get("subtype"))
    if subtype == "init":
        return (_session(found),)
    if subtype == "api_retry":
        return (_retry(found),)
    if subtype == "permission_denied":
        text = f"{clean(found.get('tool_name'))}: {clean(found.get('message'))}"
        return (Entry(EntryKind.PERMISSION_DENIED, text, {"tool": found.get("tool_name")}),)
    if subtype in NOISE:
        return ()
    told = found.get("content") or found.get("summary") or found.get("description")
    text = clean(told) or f"({subtype})"
    return (Entry(EntryKind.UNKNOWN, text, {"subtype": subtype}),)


def _session(found: Mapping[str, Any]) -> Entry:
    session, model = clean(found.get("session_id")), clean(found.get("model"))
    servers = {
        clean(each.get("name")): clean(each.get("status")) for each in objects(found.get("mcp_servers"))
    }
    data = {"session_id": session, "model": model, "cwd": clean(found.get("cwd")), "mcp_servers": servers}
    return Entry(EntryKind.SESSION, f"session {session}, model {model}", data)


def _retry(found: Mapping[str, Any]) -> Entry:
    status, delay = found.get("error_status"), found.get("retry_delay_ms")
    tries = f"{clean(found.get('attempt'))} of {clean(found.get('max_retries'))}"
    text = f"API error {clean(status) or clean(found.get('error'))}, attempt {tries}"
    data: dict[str, object] = {"status": status} if isinstance(status, int) else {}
    if data.get("status") not in OVERLOADED:
        return Entry(EntryKind.ERROR, text, data)
    if isinstance(delay, (int, float)):
        data["retry_after_s"] = delay / 1000
    return Entry(EntryKind.RATE_LIMITED, text, data)


def _assistant(found: Mapping[str, Any]) -> Sequence[Entry]:
    blocks = objects(mapping(found.get("message")).get("content"))
    if found.get("error"):
        data = {"error": clean(found.get("error"))}
        return [Entry(EntryKind.ERROR, each.text, data) for block in blocks for each in _block(block)]
    return [entry for block in blocks for entry in _block(block)]


def _block(block: Mapping[str, Any]) -> Iterator[Entry]:
    kind = block.get("type")
    if kind == "text":
        yield Entry(EntryKind.TEXT, clean(block.get("text")), {})
    elif kind == "thinking":
        yield Entry(EntryKind.REASONING, clean(block.get("thinking")), {})
    elif kind == "tool_use":
        name, given = clean(block.get("name")), block.get("input")
        data = {"id": block.get("id"), "tool": name, "arguments": given}
        yield Entry(EntryKind.TOOL_CALL, f"{name} {dump(given)}", data)
        yield from _change(name, mapping(given), call=block.get("id"))
    else:
        yield Entry(EntryKind.UNKNOWN, f"({clean(kind)})", {})


def _change(tool: str, given: Mapping[str, Any], *, call: object) -> Iterator[Entry]:
    """Yield the file that a call would change; what its shell does to files is not known."""
    argument, change = PATHS.get(tool, ("", None))
    path = given.get(argument)
    if isinstance(path, str) and path:
        data = {"path": path, "id": call, **({"change": change} if change else {})}
        yield Entry(EntryKind.FILE_CHANGE, path, data)


def _user(found: Mapping[str, Any]) -> Sequence[Entry]:
    content = mapping(found.get("message")).get("content")
    if isinstance(content, str):
        return (Entry(EntryKind.UNKNOWN, clean(content), {"role": "user"}),)
    return [_answer(block) for block in objects(content)]


def _answer(block: Mapping[str, Any]) -> Entry:
    if block.get("type") != "tool_result":
        return Entry(EntryKind.UNKNOWN, clean(block.get("text")), {"role": "user"})
    content = block.get("content")
    text = (
        "\n".join(clean(_part(part)) for part in objects(content))
        if isinstance(content, list)
        else clean(content)
    )
    data = {"id": block.get("tool_use_id"), "is_error": block.get("is_error") is True}
    return Entry(EntryKind.TOOL_RESULT, text, data)


def _part(part: Mapping[str, Any]) -> object:
    if part.get("type") == "text":
        return part.get("text")
    return part.get("tool_name") or f"({clean(part.get('type'))})"


def _result(found: Mapping[str, Any]) -> Sequence[Entry]:
    entries = [_usage_entry(used, scope) for used, scope in _used(found)]
    failed = _is_error(found)
    if failed and found.get("subtype") != "success":  # else its last message has said what went wrong
        entries.append(Entry(EntryKind.ERROR, _last_words(found), _known(status=_status(found))))
    text = None if failed else clean(found.get("result"))  # of a failed run it is what went wrong, no answer
    facts = _known(session_id=found.get("session_id"), turns=found.get("num_turns"), text=text)
    return [*entries, Entry(EntryKind.RESULT, _coded(found) if failed else clean(text), facts)]


def _usage_entry(used: Mapping[str, object], scope: UsageScope) -> Entry:
    text = ", ".join(f"{name} {value}" for name, value in used.items())
    return Entry(EntryKind.USAGE, text, {**used, "scope": scope.value})


_READERS: Final = {"system": _system, "assistant": _assistant, "user": _user, "result": _result}


# ---------------------------------------------------------------- what it used


def _used(found: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, object], UsageScope]]:
    """Yield what a result says of its run, each part with what it counts."""
    models = found.get("model_usage_since_last_result")
    if isinstance(models, dict):
        if models:
            yield _sum([_of_model(mapping(each)) for each in models.values()]), UsageScope.STEP
        return
    if tokens := _of_messages(mapping(found.get("usage"))):
        yield tokens, UsageScope.STEP
    if (cost := _number(found.get("total_cost_usd"))) is not None:
        yield {"cost_usd": cost}, UsageScope.RUN


def _of_model(given: Mapping[str, Any]) -> dict[str, int | float]:
    return _counts(
        read=(given.get("inputTokens"), given.get("cacheCreationInputTokens")),
        cached=given.get("cacheReadInputTokens"),
        output=given.get("outputTokens"),
        reasoning=given.get("thinkingTokens"),
        cost=given.get("costUSD"),
    )


def _of_messages(given: Mapping[str, Any]) -> dict[str, int | float]:
    return _counts(
        read=(given.get("input_tokens"), given.get("cache_creation_input_tokens")),
        cached=given.get("cache_read_input_tokens"),
        output=given.get("output_tokens"),
        reasoning=mapping(given.get("output_tokens_details")).get("thinking_tokens"),
        cost=None,
    )


def _counts(
    *, read: Sequence[object], cached: object, output: object, reasoning: object, cost: object
) -> dict[str, int | float]:
    """Return what is known. It counts what came from its cache apart from its input; we do not."""
    parts = [number for each in (*read, cached) if (number := _number(each)) is not None]
    facts = {
        "input": sum(parts) if parts else None,
        "output": _number(output),
        "cached": _number(cached),
        "reasoning": _number(reasoning),
        "cost_usd": _number(cost),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _sum(parts: Sequence[Mapping[str, int | float]]) -> dict[str, object]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part[name] for part in parts if name in part) for name in names}


def _number(value: object) -> int | float | None:
    """Return a count or an amount; what can be none is not known."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value < MOST else None


# ---------------------------------------------------------------- judging it


def judge(record: ExitRecord, tail: bytes) -> Verdict:
    """Judge a run by its last result, then by its exit record."""
    results = list(_objects(tail, "result"))
    by_exit = judge_exit(record)
    if not results:
        return _without_result(record, by_exit)
    found = results[-1]
    outcome, reason, ending = by_exit.outcome, by_exit.reason, None
    if outcome in (Outcome.COMPLETED, Outcome.FAILED) and _is_error(found):
        ending = _ending(found, _last_error(tail))
        outcome = Outcome.OVER_BUDGET if ending is Ending.BUDGET else Outcome.FAILED
        reason = _last_words(found)
    used = [part for each in results for part, scope in _used(each) if scope is UsageScope.STEP]
    paid = [part for each in results for part, scope in _used(each) if scope is UsageScope.RUN]
    return Verdict(outcome, reason, _facts(found), {**_sum_known(used), **(paid[-1] if paid else {})}, ending)


def _sum_known(parts: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return _sum([{k: v for k, v in part.items() if isinstance(v, (int, float))} for part in parts])


def _without_result(record: ExitRecord, by_exit: Verdict) -> Verdict:
    if by_exit.outcome is Outcome.COMPLETED:
        return Verdict(Outcome.FAILED, f"ended without a result ({describe_exit(record)})")
    killed = record.code is not None and record.code > SHELL_SIGNAL_BASE
    if by_exit.outcome is Outcome.FAILED and killed:
        return Verdict(by_exit.outcome, by_exit.reason, ending=Ending.KILLED)
    return by_exit


def _is_error(found: Mapping[str, Any]) -> bool:
    return found.get("is_error") is not False or found.get("subtype") != "success"


_SUBTYPES: Final[Mapping[str, Ending]] = {
    "error_max_turns": Ending.TURN_LIMIT,
    "error_max_budget_usd": Ending.BUDGET,
    "error_max_structured_output_retries": Ending.BAD_RESULT,
}
_ERRORS: Final[Mapping[str, Ending]] = {
    "authentication_failed": Ending.AUTH_FAILED,
    "max_output_tokens": Ending.TOKEN_LIMIT,
    "rate_limit": Ending.RATE_LIMITED,
}


def _ending(found: Mapping[str, Any], error: str) -> Ending:
    """Say how a run ended whose result is an error; `error` is the word of its last message."""
    status = _status(found)
    subtype = clean(found.get("subtype"))
    if subtype in _SUBTYPES:
        return _SUBTYPES[subtype]
    if found.get("stop_reason") == "refusal":
        return Ending.REFUSED
    if found.get("terminal_reason") == "prompt_too_long":
        return Ending.TOKEN_LIMIT
    if error in _ERRORS:
        return _ERRORS[error]
    if status is not None:
        return _of_status(status)
    return Ending.API_ERROR if error or found.get("terminal_reason") == "api_error" else Ending.ERROR


def _of_status(status: int) -> Ending:
    if status in AUTH:
        return Ending.AUTH_FAILED
    return Ending.RATE_LIMITED if status in OVERLOADED else Ending.API_ERROR


def _last_error(tail: bytes) -> str:
    """Return the word for what went wrong in its last message, "" if nothing did."""
    found = last_object(tail, kind="assistant")
    return clean(found.get("error")) if found else ""


def _objects(tail: bytes, kind: str) -> Iterator[Mapping[str, Any]]:
    """Yield the whole lines of `tail` that are of this kind; the first may be a fragment."""
    mark = f'"{kind}"'.encode()
    for line in tail.splitlines():
        if mark in line and (found := load_object(line)) is not None and found.get("type") == kind:
            yield found


def _last_words(found: Mapping[str, Any]) -> str:
    errors = found.get("errors")
    said = "; ".join(clean(each) for each in errors) if isinstance(errors, list) else ""
    return clean(found.get("result")) or said or _coded(found)


def _coded(found: Mapping[str, Any]) -> str:
    """Return its own word for how a run ended."""
    word = clean(found.get("terminal_reason") or found.get("subtype"))
    return word or "ended with a result that says nothing"


def _status(found: Mapping[str, Any]) -> int | None:
    status = found.get("api_error_status")
    return status if isinstance(status, int) else None


def _facts(found: Mapping[str, Any]) -> Mapping[str, object]:
    denied = [clean(each.get("tool_name")) for each in objects(found.get("permission_denials"))]
    facts = {
        "text": clean(found.get("result")),
        "session_id": found.get("session_id"),
        "subtype": found.get("subtype"),
        "terminal_reason": found.get("terminal_reason"),
        "api_error_status": found.get("api_error_status"),
        "turns": found.get("num_turns"),
        "permission_denials": denied,  # a run in which all was denied ends as a success
    }
    if "structured_output" in found:
        facts["structured_output"] = found["structured_output"]
    return facts


def _known(**facts: object) -> dict[str, object]:
    return {name: value for name, value in facts.items() if value is not None}
