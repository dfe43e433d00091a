"""`codex`: the Codex CLI, headless (`codex exec --json`, prompt on stdin).

What is said of it here was observed with 0.169.0. All that it is told goes by flags: it takes its user's own
configuration as it is, and ours beside it. What it writes is read in `codex_stream`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import codex_app, codex_stream, driven
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.installed import find_installed, logged_in
from headcount.harnesses.program import check_argument, check_text

PROGRAM: Final = "codex"
SERVER: Final = "mcp_servers.headcount"
SCHEMA_FILE: Final = "schema.json"
ARGUMENT_MAX: Final = 120_000
"""Bytes; the kernel takes 131,071 in one argument."""
STARTUP_S: Final = 60
"""For our MCP server to answer, on a machine that is busy; its own 10 s end the run."""
TOOL_S: Final = 120
"""For one call of ours: a wait for agents takes up to 45 s, which leaves too little of its own 60 s."""

CONTRACT: Final = (
    "HEADCOUNT_AGENT_ID",
    "HEADCOUNT_HOME",
    "HEADCOUNT_RUN",
    "HEADCOUNT_SOCKET",
    "HEADCOUNT_TASK_ID",
    "HEADCOUNT_TOKEN",
)
"""It gives its MCP servers a few variables and those that are named."""

SANDBOXES: Final[Mapping[Permissions, str]] = {
    Permissions.READ: "read-only",
    Permissions.EDIT: "workspace-write",
    Permissions.BYPASS: "danger-full-access",
}

PROBE: Final = Probe(
    program=PROGRAM,
    install="npm install -g @openai/codex, or fix PATH",
    oldest=(0, 169),
    login_env=("CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "OPENAI_API_KEY"),
    login_files=(".codex/auth.json",),
    login="run 'codex login', or set CODEX_API_KEY",
)
CONFIGURED: Final = ("auth.json", "config.toml", ".env")
"""One of these in its own directory, and it may have a way to log in, perhaps by the system's keyring."""
SYSTEM_CONFIG: Final = ("/etc/codex/config.toml", "/etc/codex/managed_config.toml")


class Codex:
    """What stands behind `--` is added to the flags of `codex exec`; the last `-c` of a name counts."""

    name: str = "codex"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = False
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = (
        "CODEX_ACCESS_TOKEN",
        "CODEX_API_KEY",
        "CODEX_CA_CERTIFICATE",
        "CODEX_HOME",
        "CODEX_SQLITE_HOME",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
    )  # all others that begin with CODEX_ belong to the session that deploys, when that is a Codex too
    env_prefixes: tuple[str, ...] = ("OPENAI_", "AZURE_OPENAI_")
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.EFFORT,
            Ability.SYSTEM_PROMPT,
            Ability.RESULT_SCHEMA,
            Ability.MCP_STDIO,
            Ability.RESUME,
            Ability.TAKEOVER,
            Ability.STEER,
            Ability.CANCEL,
        }
    )
    permissions: frozenset[Permissions] = frozenset(SANDBOXES)
    efforts: tuple[Effort, ...] = tuple(Effort)
    probe: Probe | None = PROBE

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        for argument in (*command, options.model or "", options.system_prompt or ""):
            check_argument("an argument of codex", argument)
        if len(_toml(options.system_prompt or "").encode()) > ARGUMENT_MAX:
            raise InvalidInput(
                f"system_prompt is longer than the {ARGUMENT_MAX} bytes that codex can be given",
                hint="make it shorter, or put it into the prompt or into AGENTS.md",
            )

    def command(self, spec: Spec) -> Launch:
        program = self._ready(spec)
        if spec.options.steer:
            return _served(spec, program)
        return Launch(
            argv=(
                program,
                "exec",
                "--json",
                "--skip-git-repo-check",
                *_flags(spec),
                *_schema(spec),
                *spec.command,
                *_resume(spec),
                "-",
            ),
            files=_files(spec),
            stdin=spec.prompt.encode(),
        )

    def interactive(self, spec: Spec) -> Launch:
        """Open it as its user would, with our tools and the same sandbox; beyond that it asks."""
        return Launch(argv=(self._ready(spec), *_resume(spec), *_flags(spec), *spec.command))

    def read(self, line: bytes) -> Sequence[Entry]:
        entries = codex_app.find(line)
        return codex_stream.read(line) if entries is None else entries

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge_or(codex_stream.judge, record, tail)

    def _ready(self, spec: Spec) -> str:
        """Return the program's path if it can do what is asked."""
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        program = find_installed(PROBE, env=spec.env, cwd=spec.cwd)
        if logged_in(PROBE, env=spec.env) is False and not _is_configured(spec):
            raise PlacementFailed("codex is not logged in", hint=PROBE.login)
        return program


def _is_configured(spec: Spec) -> bool:
    """Say whether there may be a way to log in that cannot be seen."""
    home = spec.env.get("CODEX_HOME") or os.path.join(spec.env["HOME"], ".codex")
    files = (*(os.path.join(home, name) for name in CONFIGURED), *SYSTEM_CONFIG)
    return bool(spec.command) or any(map(os.path.exists, files))


def _served(spec: Spec, program: str) -> Launch:
    """Return how to start its app server under a driver; what is a flag elsewhere is told with the thread."""
    options = spec.options
    settings = (word for name, value in _settings(spec) for word in ("-c", f"{name}={value}"))
    thread = {"cwd": spec.cwd, "sandbox": SANDBOXES[options.permissions], "approvalPolicy": "never"}
    return driven.launch(
        spec,
        protocol="codex",
        direct=Launch(argv=(program, "app-server", *settings, *spec.command)),
        thread={**thread, **({"model": options.model} if options.model else {})},
        schema=options.result_schema,
    )


# ---------------------------------------------------------------- its flags


def _flags(spec: Spec) -> Iterator[str]:
    """Yield what holds for every form of it."""
    options = spec.options
    yield f"--sandbox={SANDBOXES[options.permissions]}"
    if options.model:
        yield f"--model={options.model}"
    for name, value in _settings(spec):
        yield from ("-c", f"{name}={value}")


def _settings(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield names and values, in TOML, of its configuration."""
    options = spec.options
    if options.permissions is Permissions.EDIT:
        # Else its shell reaches no Unix socket either, so that `headcount report` finds no daemon.
        yield "sandbox_workspace_write.network_access", "true"
    yield "allow_login_shell", "false"  # else the system's profile sets PATH anew, without our command
    yield "features.unbounded_connection_retries", "false"  # a model that cannot be reached ends the run
    yield f"{SERVER}.command", _toml(spec.headcount[0])
    yield f"{SERVER}.args", _array((*spec.headcount[1:], "mcp"))
    yield f"{SERVER}.env_vars", _array(sorted({*CONTRACT, *spec.env}))  # names: no value is told here
    yield f"{SERVER}.required", "true"  # else it begins without a server that takes over a second
    yield f"{SERVER}.default_tools_approval_mode", _toml("approve")  # else each call is refused
    yield f"{SERVER}.startup_timeout_sec", str(STARTUP_S)
    yield f"{SERVER}.tool_timeout_sec", str(TOOL_S)
    if options.effort:
        yield "model_reasoning_effort", _toml(options.effort)
    if options.system_prompt is not None:
        yield "developer_instructions", _toml(options.system_prompt)


def _schema(spec: Spec) -> tuple[str, ...]:
    if spec.options.result_schema is None:
        return ()
    return (f"--output-schema={os.path.join(spec.run_path, SCHEMA_FILE)}",)


def _files(spec: Spec) -> Mapping[str, bytes]:
    schema = spec.options.result_schema
    return {} if schema is None else {SCHEMA_FILE: json.dumps(schema).encode()}


def _resume(spec: Spec) -> tuple[str, ...]:
    return ("resume", spec.session.session_id) if spec.session.resumed else ()


def _array(words: Sequence[str]) -> str:
    return f"[{', '.join(map(_toml, words))}]"


def _toml(text: str) -> str:
    """Return a TOML string: as JSON has it, but for DEL, which JSON leaves bare, and with no surrogates."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
