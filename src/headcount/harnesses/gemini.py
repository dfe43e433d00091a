"""`gemini`: the Gemini CLI, headless (`gemini -o stream-json`, prompt on stdin).

What is said of it here was observed with 0.61.0. It has no flag for MCP servers or settings, and takes a file
of system settings only from root: `gemini_home` gives each run a home that is the user's but for those. The
exit code of a failed run is the HTTP status modulo 256, so 401, 400 and 429 look like signals.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.account import Ending
from headcount.domain.entries import Entry, EntryKind, UsageScope
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import acp_stream, driven, gemini_home
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.installed import find_installed, logged_in
from headcount.harnesses.parse import clean, dump, last_object, load_object, mapping, unknown
from headcount.harnesses.program import check_argument, check_text
from headcount.harnesses.rules import split_rule
from headcount.harnesses.verdicts import describe_exit, judge_exit

PROGRAM: Final = "gemini"
SERVER: Final = "headcount"
OVERLAY_FILE: Final = "gemini.json"
POLICY_FILE: Final = "gemini-policy.toml"
PROBE: Final = Probe(
    program=PROGRAM,
    install="npm install -g @google/gemini-cli, with Node 20 or later, or fix PATH",
    oldest=(0, 30),
    login_env=(
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_GENAI_USE_*",
        "GOOGLE_GEMINI_BASE_URL",
        "GEMINI_CLI_USE_COMPUTE_ADC",
        "CLOUD_SHELL",
    ),
    login_files=(
        ".gemini/settings.json",  # says how to log in, perhaps by the system's keychain
        ".gemini/oauth_creds.json",
        ".gemini/gemini-credentials.json",
        ".gemini/.env",
        ".env",
    ),
    login="run 'gemini' once and log in, or set GEMINI_API_KEY",
)

SESSION_VARIABLES: Final = (
    "GEMINI_CLI",
    "GEMINI_CLI_IDE_SERVER_PORT",
    "GEMINI_CLI_IDE_WORKSPACE_PATH",
    "GEMINI_CLI_IDE_AUTH_TOKEN",
    "GEMINI_CLI_IDE_PID",
)
"""They belong to the session that deploys, when that is a Gemini CLI too, or to the editor around it."""

CONTRACT: Final = (
    "HEADCOUNT_AGENT_ID",
    "HEADCOUNT_HOME",
    "HEADCOUNT_RUN",
    "HEADCOUNT_SOCKET",
    "HEADCOUNT_TASK_ID",
    "HEADCOUNT_TOKEN",
)
"""It hides variables that look like secrets from its MCP servers, unless they are named."""

MODES: Final[Mapping[Permissions, str]] = {
    # "plan" would do for READ, but its model is told to write plans and may leave that mode by itself.
    Permissions.READ: "default",
    Permissions.EDIT: "auto_edit",
    Permissions.BYPASS: "yolo",
}

SHELL: Final = "run_shell_command"
TOOLS: Final[Mapping[str, Sequence[str]]] = {
    "shell": (SHELL,),
    "edit": ("write_file", "replace"),
    "read": ("read_file", "read_many_files", "list_directory"),
    "search": ("glob", "grep_search"),
    "web": ("web_fetch", "google_web_search"),
}
WRITING: Final = ("write_file", "replace", SHELL, "activate_skill", "enter_plan_mode")
TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_*.-]+")
PREFERRED, DENIED = 900, 999
"""Priorities of the program's policy rules, of which it takes 0 to 999."""

CODES: Final[Mapping[int, Ending]] = {41: Ending.AUTH_FAILED, 53: Ending.TURN_LIMIT}
API_CODES: Final[Mapping[int, Ending]] = {
    401: Ending.AUTH_FAILED,
    403: Ending.AUTH_FAILED,
    429: Ending.RATE_LIMITED,
    503: Ending.RATE_LIMITED,
}
HTTP_ERRORS: Final = (400, 401, 403, 404, 408, 413, 429, 499, 500, 502, 503, 504, 529)
REASONS: Final[Mapping[Ending, str]] = {
    Ending.AUTH_FAILED: "nobody is logged in",
    Ending.TURN_LIMIT: "the limit of turns was reached",
}


class Gemini:
    """What stands behind `--` is added to its arguments, so that the caller may set any flag of it."""

    name: str = "gemini"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = False
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = ("CLOUD_SHELL",)
    env_prefixes: tuple[str, ...] = ("GEMINI_", "GOOGLE_", "CLOUDSDK_", "CODE_ASSIST_")
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.SYSTEM_PROMPT,
            Ability.TOOL_RULES,
            Ability.TURN_LIMIT,
            Ability.MCP_STDIO,
            Ability.ONLY_OUR_MCP,
            Ability.RESUME,
            Ability.PRESET_SESSION,
            Ability.TAKEOVER,
            Ability.STEER,
            Ability.CANCEL,
        }
    )
    permissions: frozenset[Permissions] = frozenset(MODES)
    efforts: tuple[Effort, ...] = ()
    probe: Probe | None = PROBE

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        check_text("the system prompt", options.system_prompt or "")
        for argument in (*command, options.model or ""):
            check_argument("an argument of gemini", argument)
        for rule in (*options.allowed_tools, *options.denied_tools):
            _tools_of(check_argument("a rule about a tool", rule))

    def command(self, spec: Spec) -> Launch:
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        if spec.options.steer and spec.session.resumed:
            raise InvalidInput(
                "gemini loses a conversation that is loaded over ACP, so it cannot be resumed and steered",
                hint="deploy without steer what is to be resumed",
            )
        if spec.options.steer:
            direct = _launch(spec, ("--acp", *_flags(spec), *spec.command), stdin=None)
            return driven.launch_acp(spec, direct)
        headless = ("-o", "stream-json")
        return _launch(spec, (*headless, *_flags(spec), *spec.command), stdin=spec.prompt.encode())

    def interactive(self, spec: Spec) -> Launch:
        return _launch(spec, _flags(spec), stdin=None)

    def read(self, line: bytes) -> Sequence[Entry]:
        return acp_stream.read_with(_read, line)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge_or(_judge, record, tail)


# ---------------------------------------------------------------- starting it


def _launch(spec: Spec, flags: Sequence[str], *, stdin: bytes | None) -> Launch:
    """The program is started by way of our own, which becomes it once its home is there."""
    program = find_installed(PROBE, env=spec.env, cwd=spec.cwd)
    _check_login(spec)
    overlay = os.path.join(spec.run_path, OVERLAY_FILE)
    return Launch(
        argv=(sys.executable, "-I", "-S", gemini_home.__file__, overlay, program, *flags),
        env={
            **{name: "" for name in SESSION_VARIABLES if name in spec.env},
            "GEMINI_CLI_NO_RELAUNCH": "true",  # else a parent that no signal ends stands before it
        },
        files={OVERLAY_FILE: _overlay(spec), POLICY_FILE: _policy(spec.options).encode()},
        stdin=stdin,
    )


def _check_login(spec: Spec) -> None:
    """Refuse if nothing says how to log in: not the environment, not the user's files, not the project's."""
    env = {**spec.env, "HOME": gemini_home.find_origin(spec.env)}
    if logged_in(PROBE, env=env) is False and not any(map(os.path.exists, _project_files(spec.cwd))):
        raise PlacementFailed(f"{PROGRAM} is not logged in", hint=PROBE.login)


def _project_files(directory: str) -> Iterator[str]:
    """Yield what it reads in a directory and those above."""
    while directory != os.path.dirname(directory):
        yield os.path.join(directory, ".env")
        yield os.path.join(directory, ".gemini")
        directory = os.path.dirname(directory)


def _flags(spec: Spec) -> tuple[str, ...]:
    options, session = spec.options, spec.session
    own_policies = os.path.join(gemini_home.find_origin(spec.env), gemini_home.FOLDER, "policies")
    return (
        "--skip-trust",  # in a directory that is not trusted it has no MCP servers
        f"--approval-mode={MODES[options.permissions]}",
        f"--policy={os.path.join(spec.run_path, POLICY_FILE)}",
        *((f"--policy={own_policies}",) if os.path.isdir(own_policies) else ()),  # ours would replace them
        f"--resume={session.session_id}" if session.resumed else f"--session-id={session.session_id}",
        *((f"--model={options.model}",) if options.model else ()),
        *((f"--allowed-mcp-server-names={SERVER}",) if options.only_our_mcp else ()),
    )


def _overlay(spec: Spec) -> bytes:
    """Name our server and nothing secret: what it needs of the environment it is passed by name."""
    server = {
        "command": spec.headcount[0],
        "args": [*spec.headcount[1:], "mcp"],
        "env": {name: f"${name}" for name in sorted({*CONTRACT, *spec.env})},
        "trust": True,
    }
    over: dict[str, Any] = {"mcpServers": {SERVER: server}, "general": {"enableAutoUpdate": False}}
    if spec.options.max_turns is not None:
        over["model"] = {"maxSessionTurns": spec.options.max_turns}
    under = {"general": {"maxAttempts": 3}}  # of its own accord 10, which takes minutes
    overlay = {"over": over, "under": under, "context": spec.options.system_prompt}
    return json.dumps(overlay, indent=1).encode()


# ---------------------------------------------------------------- what its tools may do


def _policy(options: Options) -> str:
    """Return rules in the program's own TOML; the first that fits by priority counts."""
    rules = [_rule("allow", PREFERRED, mcpName=SERVER, toolName="*")]
    if options.permissions is Permissions.READ:
        rules.append(_rule("deny", PREFERRED - 1, toolName=WRITING))
    rules += [_tool_rule("allow", PREFERRED, each) for each in options.allowed_tools]
    rules += [_tool_rule("deny", DENIED, each) for each in options.denied_tools]
    return "\n".join(rules)


def _tool_rule(decision: str, priority: int, rule: str) -> str:
    names, prefix = _tools_of(rule)
    if prefix is not None:
        return _rule(decision, priority, toolName=names, commandPrefix=prefix)
    if decision == "allow" and SHELL in names:
        return _rule(decision, priority, toolName=names, allowRedirection=True)
    return _rule(decision, priority, toolName=names)


def _tools_of(rule: str) -> tuple[Sequence[str], str | None]:
    """Return the program's names for a rule's tools, and the beginning of a command if it has one.

    Raises:
        InvalidInput: the program has no such rule.
    """
    word, prefix = split_rule(rule)
    if not TOOL_NAME.fullmatch(word):
        raise InvalidInput(
            f"gemini cannot be given the rule {rule[:60]!r}",
            hint=f"one of {', '.join(TOOLS)}, shell(PREFIX), or its own name for a tool",
        )
    return TOOLS.get(word, (word,)), prefix


def _rule(decision: str, priority: int, **facts: object) -> str:
    lines = [f"{name} = {_toml(value)}" for name, value in facts.items()]
    return "\n".join(("[[rule]]", *lines, f'decision = "{decision}"', f"priority = {priority}", ""))


def _toml(value: object) -> str:
    """Return a value of TOML: JSON is it but for DEL, which has to be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ---------------------------------------------------------------- reading it


def _read(line: bytes) -> Sequence[Entry]:
    found = load_object(line)
    kind = found.get("type") if found else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if found is None or reader is None:
        return (unknown(line),)
    return tuple(reader(found))


def _init(found: Mapping[str, Any]) -> Iterator[Entry]:
    session, model = clean(found.get("session_id")), clean(found.get("model"))
    data = {"session_id": session, "model": model}
    yield Entry(EntryKind.SESSION, f"session {session}, model {model}", data)


def _message(found: Mapping[str, Any]) -> Iterator[Entry]:
    """What the user says is the prompt again, which stands in the order of the run."""
    if found.get("role") == "assistant":
        more = {"delta": True} if found.get("delta") is True else {}
        yield Entry(EntryKind.TEXT, clean(found.get("content")), more)


def _tool_use(found: Mapping[str, Any]) -> Iterator[Entry]:
    name, call, given = clean(found.get("tool_name")), found.get("tool_id"), found.get("parameters")
    yield Entry(EntryKind.TOOL_CALL, f"{name} {dump(given)}", {"id": call, "tool": name, "arguments": given})
    path = mapping(given).get("file_path")
    if name in TOOLS["edit"] and isinstance(path, str):
        change = {"change": "edit"} if name == "replace" else {}  # write_file makes or replaces
        yield Entry(EntryKind.FILE_CHANGE, path, {"path": path, "id": call, **change})


def _tool_result(found: Mapping[str, Any]) -> Iterator[Entry]:
    failed, error = found.get("status") != "success", mapping(found.get("error"))
    text = clean(found.get("output")) or clean(error.get("message"))
    yield Entry(EntryKind.TOOL_RESULT, text, {"id": found.get("tool_id"), "is_error": failed})
    if error.get("type") == "policy_violation":
        tool = clean(found.get("tool_id")).partition("__")[0]
        yield Entry(EntryKind.PERMISSION_DENIED, f"{tool}: {text}", {"tool": tool})


def _error(found: Mapping[str, Any]) -> Iterator[Entry]:
    text = clean(found.get("message"))
    yield Entry(EntryKind.ERROR, text, {"severity": clean(found.get("severity")), **_status(text)})


def _result(found: Mapping[str, Any]) -> Iterator[Entry]:
    usage = _usage(found)
    if usage:
        tokens = ", ".join(f"{name} {count}" for name, count in usage.items())
        yield Entry(EntryKind.USAGE, tokens, {**usage, "scope": UsageScope.RUN, **_model(found)})
    if found.get("status") == "success":
        yield Entry(EntryKind.RESULT, "finished", _model(found))
        return
    text = clean(mapping(found.get("error")).get("message")) or "failed"
    kind = EntryKind.RATE_LIMITED if _status(text).get("status") in (429, 503) else EntryKind.ERROR
    yield Entry(kind, text, _status(text))


_READERS: Final = {
    "init": _init,
    "message": _message,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "error": _error,
    "result": _result,
}


# ---------------------------------------------------------------- judging it


def _judge(record: ExitRecord, tail: bytes) -> Verdict:
    verdict = judge_exit(record)
    last = _last_words(tail)
    facts, usage = _facts(last), _usage(last.result)
    if verdict.outcome not in (Outcome.COMPLETED, Outcome.FAILED):
        return Verdict(verdict.outcome, verdict.reason, facts, usage)
    if last.failed or verdict.outcome is Outcome.FAILED:
        return Verdict(Outcome.FAILED, _reason(record, last), facts, usage, _ending(record, last))
    if not last.result:
        reason = f"ended without a result ({describe_exit(record)})"
        return Verdict(Outcome.FAILED, reason, facts, usage)
    return Verdict(Outcome.COMPLETED, verdict.reason, facts, usage)


class _Last:
    """The end of a stream: what was said last, what went wrong, and the result if there is one."""

    def __init__(self, session: object) -> None:
        self.session = session
        self.result: Mapping[str, Any] = {}
        self.pieces: list[str] = []
        self.errors: list[str] = []

    @property
    def text(self) -> str:
        return "".join(reversed(self.pieces))

    @property
    def failed(self) -> bool:
        return bool(self.result) and self.result.get("status") != "success"

    @property
    def error(self) -> str:
        return clean(mapping(self.result.get("error")).get("message")) or next(iter(self.errors), "")


def _last_words(tail: bytes) -> _Last:
    """Read backwards to the model's last message; the first line of a tail may be a fragment."""
    last = _Last((last_object(tail, kind="init") or {}).get("session_id"))
    for line in reversed(tail.splitlines()):
        found = load_object(line) or {}
        kind = found.get("type")
        if kind == "result" and not last.result:
            last.result = found
        elif kind == "error":
            last.errors.append(clean(found.get("message")))
        elif kind == "message" and found.get("role") == "assistant":
            last.pieces.append(clean(found.get("content")))
        elif kind in ("tool_use", "tool_result", "init", "message"):
            break
    return last


def _reason(record: ExitRecord, last: _Last) -> str:
    ending = CODES.get(record.code or 0)
    if last.error:
        return last.error
    if ending is not None:
        return f"{REASONS[ending]} ({describe_exit(record)})"
    return describe_exit(record)


def _ending(record: ExitRecord, last: _Last) -> Ending | None:
    """Return the end in a word: by its own exit codes, else by the HTTP status that a code is the rest of."""
    if record.signal is not None:
        return None
    if record.code is not None and record.code in CODES:
        return CODES[record.code]
    status = _status(last.error).get("status") or _http_status(record.code)
    if status is not None:
        return API_CODES.get(status, Ending.API_ERROR)
    return Ending.API_ERROR if "API Error" in last.error else None


def _http_status(code: int | None) -> int | None:
    """Return the status 401 for exit code 145, None for a code that can be none."""
    errors = [status for status in HTTP_ERRORS if code and status % 256 == code]
    return errors[0] if errors else None


def _status(text: str) -> Mapping[str, int]:
    match = re.search(r'"code":\s*([45]\d\d)\b', text)
    return {"status": int(match[1])} if match else {}


def _facts(last: _Last) -> Mapping[str, object]:
    facts = {"text": last.text, "session_id": last.session, "status": last.result.get("status")}
    return {name: value for name, value in facts.items() if value is not None}


def _usage(found: Mapping[str, Any]) -> dict[str, int]:
    """Return its tokens; a run that failed before any answer shows zeros, which say nothing."""
    stats = mapping(found.get("stats"))
    named = (("input", "input_tokens"), ("output", "output_tokens"), ("cached", "cached"))
    counted = {ours: stats[theirs] for ours, theirs in named if _is_count(stats.get(theirs))}
    return counted if any(counted.values()) else {}


def _model(found: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the model that did most, if it is known: others may have chosen it or helped."""
    models = mapping(mapping(found.get("stats")).get("models"))
    used = {name: mapping(each).get("total_tokens") for name, each in models.items()}
    counted = {name: count for name, count in used.items() if _is_count(count) and count}
    return {"model": clean(max(counted, key=lambda name: counted[name]))} if counted else {}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
