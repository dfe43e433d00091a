"""`qwen`: the Qwen Code CLI, headless (`qwen -o stream-json`, prompt on stdin).

What is said of it here was observed with 0.24.4. What is installed as `qwen` waits for a child that is the
agent, and dies alone when it is told to end; so the child's program is started itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import acp_stream, driven, qwen_stream
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.installed import find_installed, logged_in
from headcount.harnesses.program import check_argument, check_text, find_program
from headcount.harnesses.rules import split_rule

SERVER: Final = "headcount"
MCP_FILE: Final = "mcp.json"
SCHEMA_FILE: Final = "schema.json"
WRAPPER, DIRECT = "cli-entry.js", "cli.js"

PROBE: Final = Probe(
    program="qwen",
    install="npm install -g @qwen-code/qwen-code, with Node 22 or later, or fix PATH",
    oldest=(0, 24),
    login_env=("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "QWEN_*"),
    login_files=(".qwen/settings.json", ".qwen/oauth_creds.json", ".qwen/.env", ".env"),
    login="run 'qwen' once and log in, or set OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_MODEL",
)

SESSION_VARIABLES: Final = (
    "QWEN_CODE",
    "QWEN_CODE_SESSION_ID",
    "QWEN_CODE_PROMPT_ID",
    "QWEN_CODE_ENTRYPOINT",
    "QWEN_CODE_LAUNCHER_PID",
    "QWEN_CODE_PROJECT_DIR",
    "QWEN_CODE_RELAUNCH_ARGS",
    "QWEN_CODE_IDE_SERVER_PORT",
    "QWEN_CODE_IDE_WORKSPACE_PATH",
)
"""They belong to the session that deploys, when that is a Qwen Code too, or to the editor around it."""

MODES: Final[Mapping[Permissions, str]] = {
    # "plan" would do for READ, but its model is told to write plans.
    Permissions.READ: "default",
    Permissions.EDIT: "auto-edit",
    Permissions.BYPASS: "yolo",
}

TOOLS: Final[Mapping[str, Sequence[str]]] = {
    "shell": ("run_shell_command",),
    "edit": ("write_file", "edit", "notebook_edit"),
    "read": ("read_file", "list_directory"),
    "search": ("glob", "grep_search"),
    "web": ("web_fetch",),
}
WRITING: Final = (*TOOLS["edit"], "run_shell_command", "enter_worktree", "exit_worktree", "record_artifact")
PEER_TOOLS: Final = ("send_message", "list_agents")
"""With these, agents would reach each other and the user's own sessions behind the registry's back."""
TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


class Qwen:
    """What stands behind `--` is added to its arguments, so that the caller may set any flag of it."""

    name: str = "qwen"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = False
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = ("DASHSCOPE_API_KEY", "BAILIAN_CODING_PLAN_API_KEY")
    env_prefixes: tuple[str, ...] = ("QWEN_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.SYSTEM_PROMPT,
            Ability.TOOL_RULES,
            Ability.TURN_LIMIT,
            Ability.RESULT_SCHEMA,
            Ability.MCP_STDIO,
            Ability.ONLY_OUR_MCP,
            Ability.RESUME,
            Ability.PRESET_SESSION,
            Ability.TAKEOVER,
            Ability.STEER,
            Ability.CANCEL,
            Ability.PEERS,
        }
    )
    permissions: frozenset[Permissions] = frozenset(MODES)
    efforts: tuple[Effort, ...] = ()
    probe: Probe | None = PROBE

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        for argument in (*command, options.model or "", options.system_prompt or ""):
            check_argument("an argument of qwen", argument)
        for rule in (*options.allowed_tools, *options.denied_tools):
            _rule(check_argument("a rule about a tool", rule))

    def command(self, spec: Spec) -> Launch:
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        if spec.options.steer:
            direct = _launch(spec, ("--acp", *_flags(spec), *spec.command), stdin=None)
            return driven.launch_acp(spec, direct)
        headless = ("--output-format=stream-json", *_schema(spec))
        return _launch(spec, (*headless, *_flags(spec), *spec.command), stdin=spec.prompt.encode())

    def interactive(self, spec: Spec) -> Launch:
        return _launch(spec, _flags(spec), stdin=None)

    def read(self, line: bytes) -> Sequence[Entry]:
        return acp_stream.read_with(qwen_stream.read, line)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge_or(qwen_stream.judge, record, tail)


def _launch(spec: Spec, flags: Sequence[str], *, stdin: bytes | None) -> Launch:
    program = find_installed(PROBE, env=spec.env, cwd=spec.cwd)
    if logged_in(PROBE, env=spec.env) is False and not _project_says(spec.cwd):
        raise PlacementFailed("qwen is not logged in", hint=PROBE.login)
    schema = spec.options.result_schema
    return Launch(
        argv=(*_program(program, spec), *flags),
        env={
            **{name: "" for name in SESSION_VARIABLES if name in spec.env},
            "QWEN_CODE_NO_RELAUNCH": "true",
        },
        files={
            MCP_FILE: _mcp_config(spec),
            **({SCHEMA_FILE: json.dumps(schema).encode()} if schema is not None else {}),
        },
        stdin=stdin,
    )


def _program(program: str, spec: Spec) -> tuple[str, ...]:
    """Return the agent itself where the wrapper is one that we know, else what was found."""
    directory, name = os.path.split(os.path.realpath(program))
    direct = os.path.join(directory, DIRECT)
    if name != WRAPPER or not os.path.isfile(direct):
        return (program,)
    node = find_program("node", env=spec.env, cwd=spec.cwd, hint="install Node 22 or later, or fix PATH")
    return (node, "--expose-gc", direct)


def _project_says(directory: str) -> bool:
    """Whether the project, or what is above it, may say how to log in."""
    while directory != os.path.dirname(directory):
        if any(os.path.exists(os.path.join(directory, name)) for name in (".env", ".qwen")):
            return True
        directory = os.path.dirname(directory)
    return False


def _flags(spec: Spec) -> tuple[str, ...]:
    """`--name=value` in one word: a value cannot be taken for a flag."""
    options, session = spec.options, spec.session
    denied = [_rule(each) for each in options.denied_tools]
    return (
        f"--approval-mode={MODES[options.permissions]}",
        f"--mcp-config={os.path.join(spec.run_path, MCP_FILE)}",
        f"--resume={session.session_id}" if session.resumed else f"--session-id={session.session_id}",
        *((f"--model={options.model}",) if options.model else ()),
        *((f"--append-system-prompt={options.system_prompt}",) if options.system_prompt else ()),
        *((f"--max-session-turns={options.max_turns}",) if options.max_turns else ()),
        *((f"--allowed-mcp-server-names={SERVER}",) if options.only_our_mcp else ()),
        *(f"--allowed-tools={name}" for rule in options.allowed_tools for name in _rule(rule)),
        *(f"--exclude-tools={name}" for rule in denied for name in rule),
        *(f"--exclude-tools={name}" for name in _left_out(options)),
    )


def _left_out(options: Options) -> tuple[str, ...]:
    writing = WRITING if options.permissions is Permissions.READ else ()
    return (*writing, *(() if options.peers else PEER_TOOLS))


def _schema(spec: Spec) -> tuple[str, ...]:
    if spec.options.result_schema is None:
        return ()
    return (f"--json-schema=@{os.path.join(spec.run_path, SCHEMA_FILE)}",)


def _rule(rule: str) -> tuple[str, ...]:
    """Return a rule in the program's own words.

    Raises:
        InvalidInput: it has no such rule.
    """
    word, prefix = split_rule(rule)
    if not TOOL_NAME.fullmatch(word) or (prefix is not None and not set("(),").isdisjoint(prefix)):
        raise InvalidInput(
            f"qwen cannot be given the rule {rule[:60]!r}",
            hint=f"one of {', '.join(TOOLS)}, shell(PREFIX) without brackets or commas, or its own name",
        )
    if prefix is not None:
        return (f"{TOOLS['shell'][0]}({prefix})",)
    return tuple(TOOLS.get(word, (word,)))


def _mcp_config(spec: Spec) -> bytes:
    """Name our server and nothing secret: it inherits its token from the agent's environment."""
    server = {"command": spec.headcount[0], "args": [*spec.headcount[1:], "mcp"], "trust": True}
    return json.dumps({"mcpServers": {SERVER: server}}, indent=1).encode()
