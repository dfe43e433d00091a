"""`claude`: the Claude Code CLI, headless (`claude -p`, stream-json out, prompt on stdin).

What is said of it here was observed with 2.1.330 and 2.1.197. What it writes is read in `claude_stream`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import claude_stream, driven
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.installed import find_installed, logged_in, package_version, parse_version
from headcount.harnesses.program import check_argument, check_text
from headcount.harnesses.rules import split_rule

PROGRAM: Final = "claude"
SERVER: Final = "headcount"
MCP_FILE: Final = "mcp.json"
SYSTEM_FILE: Final = "system.md"
PEER_TOOLS: Final = ("SendMessage", "ListAgents")
"""With these, agents would reach each other and the user's own sessions behind the registry's back."""

SESSION_VARIABLES: Final = (
    "CLAUDECODE",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_SSE_PORT",
)
"""They belong to the session that deploys, when that is a Claude Code too."""

MODES: Final[Mapping[Permissions, str]] = {
    Permissions.READ: "dontAsk",  # "plan" refuses our tools too, and its model is told to write a plan
    Permissions.EDIT: "acceptEdits",
    Permissions.ASK: "acceptEdits",  # and what goes beyond that it asks its driver
    Permissions.BYPASS: "bypassPermissions",
}
EDIT_TOOLS: Final = ("Edit", "Write", "NotebookEdit")
TOOLS: Final[Mapping[str, Sequence[str]]] = {
    "shell": ("Bash",),
    "edit": EDIT_TOOLS,
    "read": ("Read",),
    "search": ("Grep", "Glob"),
    "web": ("WebFetch", "WebSearch"),
}
SNAPSHOTS: Final = (2, 1, 330)
"""From here on (2.1.197 does not) a resumed conversation keeps the system prompt that it began with,
whatever is given, unless it is told otherwise."""

INSTALL: Final = "install it with Node 22 or later (npm install -g @anthropic-ai/claude-code), or fix PATH"
PROBE: Final = Probe(
    program=PROGRAM,
    install=INSTALL,
    oldest=(2, 1, 197),
    login_env=(
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN*",
        "CLAUDE_CODE_USE_*",
        "ANTHROPIC_UNIX_SOCKET",
    ),
    login_files=(".claude/.credentials.json",),
    login="run 'claude' once and log in, or set ANTHROPIC_API_KEY",
)
LOGIN_WORDS: Final = (
    b"apiKeyHelper",
    b"ANTHROPIC_",
    b"CLAUDE_CODE_",
    b"oauthAccount",
    b"primaryApiKey",
    b"awsAuthRefresh",
    b"forceLoginMethod",
)
"""One of these in its settings, and it may well have a way to log in that we cannot see."""


class Claude:
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
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.EFFORT,
            Ability.SYSTEM_PROMPT,
            Ability.TOOL_RULES,
            Ability.TURN_LIMIT,
            Ability.BUDGET,
            Ability.RESULT_SCHEMA,
            Ability.MCP_STDIO,
            Ability.ONLY_OUR_MCP,
            Ability.RESUME,
            Ability.PRESET_SESSION,
            Ability.TAKEOVER,
            Ability.PEERS,
            Ability.STEER,
            Ability.CANCEL,
        }
    )
    permissions: frozenset[Permissions] = frozenset(MODES)
    efforts: tuple[Effort, ...] = tuple(Effort)
    probe: Probe | None = PROBE

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        for argument in (*command, options.model or "", options.system_prompt or ""):
            check_argument("an argument of claude", argument)
        for rule in (*options.allowed_tools, *options.denied_tools):
            split_rule(check_argument("a rule about a tool", rule))
        if "search" in options.denied_tools:
            raise InvalidInput(
                "harness claude cannot be kept from searching: it searches with its shell",
                hint="deny shell, or leave it out",
            )

    def command(self, spec: Spec) -> Launch:
        program = self._ready(spec)
        is_driven = spec.options.steer or spec.options.permissions is Permissions.ASK
        direct = Launch(
            argv=(
                program,
                *_HEADLESS,
                *(_DRIVEN if is_driven else ()),
                *_flags(spec),
                *_limits(spec),
                *_session(spec, program),
                *spec.command,
            ),
            env=_env(spec),
            files=_files(spec),
            stdin=spec.prompt.encode(),
            interrupts=True,  # on TERM it writes no result, and nobody knows what it cost
        )
        return driven.launch(spec, protocol="claude", direct=direct) if is_driven else direct

    def interactive(self, spec: Spec) -> Launch:
        """Open it as its user would, with our tools and the same permissions. Limits it has only headless.
        In a directory that is new to it, it asks first whether that is to be trusted."""
        program = self._ready(spec)
        return Launch(
            argv=(program, *_flags(spec), *_session(spec, program), *spec.command),
            env=_env(spec),
            files=_files(spec),
        )

    def read(self, line: bytes) -> Sequence[Entry]:
        entries = driven.read(line)
        return claude_stream.read(line) if entries is None else entries

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge_with(claude_stream.judge, record, tail)

    def _ready(self, spec: Spec) -> str:
        """Return the program's path if it can do what is asked."""
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        program = find_installed(PROBE, env=spec.env, cwd=spec.cwd)
        _check_login(spec)
        _check_root(spec)
        return program


def _check_root(spec: Spec) -> None:
    """Refuse what it refuses itself, before a run is spent on it."""
    if (
        spec.options.permissions is Permissions.BYPASS
        and os.geteuid() == 0
        and not spec.env.get("IS_SANDBOX")
    ):
        raise PlacementFailed(
            "claude refuses permissions bypass to root",
            hint="deploy as another user, or set IS_SANDBOX=1 if this machine is a sandbox",
        )


def _check_login(spec: Spec) -> None:
    if logged_in(PROBE, env=spec.env) is False and not any(map(_hints_at_login, _settings(spec))):
        raise PlacementFailed("claude is not logged in", hint=PROBE.login)


def _settings(spec: Spec) -> Iterator[str]:
    """Yield the files in which it may be told how to log in."""
    home, folder = spec.env["HOME"], spec.env.get("CLAUDE_CONFIG_DIR")
    yield os.path.join(folder or home, ".claude.json")
    yield os.path.join(folder or os.path.join(home, ".claude"), "settings.json")
    yield os.path.join(folder or os.path.join(home, ".claude"), ".credentials.json")
    for name in ("settings.json", "settings.local.json"):
        yield os.path.join(spec.cwd, ".claude", name)
    yield "/etc/claude-code/managed-settings.json"
    yield os.path.join(home, "Library", "Keychains")  # where a macOS keeps it


def _hints_at_login(path: str) -> bool:
    if path.endswith((".credentials.json", "Keychains")):
        return os.path.exists(path)
    try:
        with open(path, "rb") as file:
            found = file.read()
    except OSError:
        return False
    return any(word in found for word in LOGIN_WORDS)


# ---------------------------------------------------------------- its flags

_HEADLESS: Final = ("-p", "--output-format=stream-json", "--verbose")
_DRIVEN: Final = ("--input-format=stream-json", "--replay-user-messages")


def _flags(spec: Spec) -> Iterator[str]:
    """Yield what holds for every form of it. `--name=value` in one word: no value is taken for a flag, and
    none of those that take many takes what follows."""
    options = spec.options
    yield f"--permission-mode={MODES[options.permissions]}"
    if options.permissions is Permissions.ASK:
        yield "--permission-prompt-tool=stdio"
    yield f"--mcp-config={os.path.join(spec.run_path, MCP_FILE)}"
    if options.only_our_mcp:
        yield "--strict-mcp-config"
    yield f"--allowedTools=mcp__{SERVER}"
    yield from (f"--allowedTools={rule}" for rule in _rules(options.allowed_tools))
    yield from (f"--disallowedTools={rule}" for rule in _denied(options))
    if options.system_prompt is not None:
        yield f"--append-system-prompt-file={os.path.join(spec.run_path, SYSTEM_FILE)}"
    for name, value in (("model", options.model), ("effort", options.effort)):
        if value:
            yield f"--{name}={value}"


def _limits(spec: Spec) -> Iterator[str]:
    options = spec.options
    if options.max_turns is not None:
        yield f"--max-turns={options.max_turns}"
    if options.budget_usd is not None:
        yield f"--max-budget-usd={options.budget_usd}"
    if options.result_schema is not None:
        yield f"--json-schema={json.dumps(options.result_schema)}"


def _session(spec: Spec, program: str) -> Iterator[str]:
    if not spec.session.resumed:
        yield f"--session-id={spec.session.session_id}"
        return
    yield f"--resume={spec.session.session_id}"
    if spec.options.system_prompt is not None and _keeps_snapshots(program):
        yield "--system-prompt-snapshot=off"


def _keeps_snapshots(program: str) -> bool:
    version = package_version(program, PROGRAM)
    return version is None or parse_version(version) >= SNAPSHOTS


def _denied(options: Options) -> Iterator[str]:
    if options.permissions is Permissions.READ:  # whatever the user's own settings allow
        allowed = set(_rules(options.allowed_tools))
        yield from (tool for tool in EDIT_TOOLS if tool not in allowed)
    if not options.peers:
        yield from PEER_TOOLS
    yield from _rules(options.denied_tools)


def _rules(rules: Iterable[str]) -> Iterator[str]:
    """Yield rules in its words; a prefix of a command ends in `:*`."""
    for rule in rules:
        word, prefix = split_rule(rule)
        yield from (tool if prefix is None else f"{tool}({prefix}:*)" for tool in TOOLS.get(word, (word,)))


# ---------------------------------------------------------------- what else it gets


def _env(spec: Spec) -> dict[str, str]:
    return {name: "" for name in SESSION_VARIABLES if name in spec.env}


def _files(spec: Spec) -> dict[str, bytes]:
    files = {MCP_FILE: _mcp_config(spec)}
    if spec.options.system_prompt is not None:
        files[SYSTEM_FILE] = spec.options.system_prompt.encode()
    return files


def _mcp_config(spec: Spec) -> bytes:
    """Name our server and nothing secret: it inherits its token from the agent's environment."""
    server: dict[str, Any] = {
        "type": "stdio",
        "command": spec.headcount[0],
        "args": [*spec.headcount[1:], "mcp"],
        "alwaysLoad": True,  # else its tools are hidden behind a search, and the first turn sees only names
    }
    return json.dumps({"mcpServers": {SERVER: server}}, indent=1).encode()
