"""`claude`: the Claude Code CLI, headless (`claude -p`, stream-json out, prompt on stdin).

What is said of it here was observed with 2.1.330. Its exit code is not its verdict: a run that failed on the
API ends with subtype "success" and `is_error`, SIGINT gives exit code 0, and there may be several results, of
which the last counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses.abilities import NotInteractive
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.parse import clean, dump, last_object, load_object, mapping, objects, unknown
from headcount.harnesses.program import check_argument, check_text, find_program
from headcount.harnesses.verdicts import describe_exit, judge_exit

PROGRAM = "claude"
SERVER = "headcount"
MCP_FILE = "mcp.json"
PEER_TOOLS = ("SendMessage", "ListAgents")
"""With these, agents would reach each other and the user's own sessions behind the registry's back."""

SESSION_VARIABLES = ("CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT")
"""They belong to the session that deploys, when that is a Claude Code too."""

OVERLOADED = frozenset({429, 529})


class Claude(NotInteractive):
    """What stands behind `--` is added to its arguments, so that the caller may set any flag of it."""

    name: str = "claude"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = False
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = (
        "CLAUDE_CONFIG_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
    )
    env_prefixes: tuple[str, ...] = ("ANTHROPIC_", "CLAUDE_CODE_", "IS_SANDBOX")
    abilities: frozenset[Ability] = frozenset({Ability.MODEL, Ability.EFFORT, Ability.MCP_STDIO})
    permissions: frozenset[Permissions] = frozenset({Permissions.EDIT})
    efforts: tuple[Effort, ...] = tuple(Effort)
    probe: Probe | None = None

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        for argument in (*command, options.model or ""):
            check_argument("an argument of claude", argument)

    def command(self, spec: Spec) -> Launch:
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        program = find_program(
            PROGRAM,
            env=spec.env,
            cwd=spec.cwd,
            hint="install it with Node 22 or later (npm install -g @anthropic-ai/claude-code), or fix PATH",
        )
        return Launch(
            argv=(program, *_flags(spec), *_model(spec), *spec.command),
            env={name: "" for name in SESSION_VARIABLES if name in spec.env},
            files={MCP_FILE: _mcp_config(spec)},
            stdin=spec.prompt.encode(),
        )

    def read(self, line: bytes) -> Sequence[Entry]:
        found = load_object(line)
        kind = found.get("type") if found else None
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if found is None or reader is None:
            return (unknown(line),)
        return tuple(reader(found)) or (Entry(EntryKind.UNKNOWN, f"({kind})", {}),)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        found = last_object(tail, kind="result")
        by_exit = judge_exit(record)
        if found is None:
            return _without_result(record, by_exit)
        outcome, reason = by_exit.outcome, by_exit.reason
        if outcome in (Outcome.COMPLETED, Outcome.FAILED) and _is_error(found):
            outcome, reason = _error_outcome(found)
        return Verdict(outcome, reason, _facts(found), _usage(found))


# ---------------------------------------------------------------- starting it


def _flags(spec: Spec) -> tuple[str, ...]:
    return (
        "-p",
        "--output-format",
        "stream-json",
        "--verbose",
        "--permission-mode",
        "acceptEdits",
        "--mcp-config",
        os.path.join(spec.run_path, MCP_FILE),
        "--allowedTools",
        f"mcp__{SERVER}",
        "--disallowedTools",
        *PEER_TOOLS,
    )


def _model(spec: Spec) -> tuple[str, ...]:
    """`--name=value` in one word: a value cannot be taken for a flag."""
    named = (("model", spec.options.model), ("effort", spec.options.effort))
    return tuple(f"--{name}={value}" for name, value in named if value)


def _mcp_config(spec: Spec) -> bytes:
    """Name our server and nothing secret: it inherits its token from the agent's environment."""
    server = {
        "type": "stdio",
        "command": spec.headcount[0],
        "args": [*spec.headcount[1:], "mcp"],
        "alwaysLoad": True,  # else its tools are hidden behind a search, and the first turn sees only names
    }
    return json.dumps({"mcpServers": {SERVER: server}}, indent=1).encode()


# ---------------------------------------------------------------- reading it


def _system(found: Mapping[str, Any]) -> Sequence[Entry]:
    subtype = clean(found.get("subtype"))
    if subtype == "init":
        return (_session(found),)
    if subtype == "api_retry":
        return (_retry(found),)
    if subtype == "permission_denied":
        text = f"{clean(found.get('tool_name'))}: {clean(found.get('message'))}"
        return (Entry(EntryKind.PERMISSION_DENIED, text, {"tool": found.get("tool_name")}),)
    return (Entry(EntryKind.UNKNOWN, f"({subtype})", {"subtype": subtype}),)


def _session(found: Mapping[str, Any]) -> Entry:
    session, model = clean(found.get("session_id")), clean(found.get("model"))
    servers = {
        clean(each.get("name")): clean(each.get("status")) for each in objects(found.get("mcp_servers"))
    }
    data = {"session_id": session, "model": model, "cwd": clean(found.get("cwd")), "mcp_servers": servers}
    return Entry(EntryKind.SESSION, f"session {session}, model {model}", data)


def _retry(found: Mapping[str, Any]) -> Entry:
    status = found.get("error_status")
    kind = EntryKind.RATE_LIMITED if isinstance(status, int) and status in OVERLOADED else EntryKind.ERROR
    tries = f"{clean(found.get('attempt'))} of {clean(found.get('max_retries'))}"
    text = f"API error {clean(status)}, attempt {tries}"
    data = {
        key: found.get(key) for key in ("attempt", "max_retries", "retry_delay_ms", "error_status", "error")
    }
    return Entry(kind, text, data)


def _assistant(found: Mapping[str, Any]) -> Sequence[Entry]:
    entries = [_block(block) for block in objects(mapping(found.get("message")).get("content"))]
    if found.get("error"):
        return [Entry(EntryKind.ERROR, each.text, {"error": clean(found.get("error"))}) for each in entries]
    return entries


def _block(block: Mapping[str, Any]) -> Entry:
    kind = block.get("type")
    if kind == "text":
        return Entry(EntryKind.TEXT, clean(block.get("text")), {})
    if kind == "thinking":
        return Entry(EntryKind.REASONING, clean(block.get("thinking")), {})
    if kind == "tool_use":
        name, given = clean(block.get("name")), block.get("input")
        data = {"id": block.get("id"), "tool": name, "arguments": given}
        return Entry(EntryKind.TOOL_CALL, f"{name} {dump(given)}", data)
    return Entry(EntryKind.UNKNOWN, f"({clean(kind)})", {})


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
    kind = EntryKind.ERROR if _is_error(found) else EntryKind.RESULT
    usage = Entry(EntryKind.USAGE, f"cost ${clean(found.get('total_cost_usd'))}", _usage(found))
    return (usage, Entry(kind, _last_words(found), _facts(found)))


_READERS = {"system": _system, "assistant": _assistant, "user": _user, "result": _result}


# ---------------------------------------------------------------- judging it


def _is_error(found: Mapping[str, Any]) -> bool:
    return found.get("is_error") is not False or found.get("subtype") != "success"


def _error_outcome(found: Mapping[str, Any]) -> tuple[Outcome, str]:
    if found.get("subtype") == "error_max_budget_usd":
        return Outcome.OVER_BUDGET, _last_words(found)
    return Outcome.FAILED, _last_words(found)


def _last_words(found: Mapping[str, Any]) -> str:
    errors = found.get("errors")
    said = "; ".join(clean(each) for each in errors) if isinstance(errors, list) else ""
    coded = clean(found.get("terminal_reason") or found.get("subtype"))
    return clean(found.get("result")) or said or coded or "ended with a result that says nothing"


def _without_result(record: ExitRecord, by_exit: Verdict) -> Verdict:
    if by_exit.outcome is Outcome.COMPLETED:
        return Verdict(Outcome.FAILED, f"ended without a result ({describe_exit(record)})")
    return by_exit


def _facts(found: Mapping[str, Any]) -> Mapping[str, object]:
    denied = [clean(each.get("tool_name")) for each in objects(found.get("permission_denials"))]
    return {
        "text": clean(found.get("result")),
        "session_id": found.get("session_id"),
        "subtype": found.get("subtype"),
        "terminal_reason": found.get("terminal_reason"),
        "api_error_status": found.get("api_error_status"),
        "num_turns": found.get("num_turns"),
        "permission_denials": denied,  # a run in which all was denied ends as a success
    }


_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def _usage(found: Mapping[str, Any]) -> Mapping[str, object]:
    """Tokens leave out what subagents used; the cost has it in."""
    tokens = mapping(found.get("usage"))
    counted: dict[str, object] = {name: tokens[name] for name in _TOKENS if isinstance(tokens.get(name), int)}
    if isinstance(found.get("total_cost_usd"), (int, float)):
        counted["cost_usd"] = found["total_cost_usd"]
    return counted
