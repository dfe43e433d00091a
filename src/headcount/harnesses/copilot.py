"""`copilot`: the GitHub Copilot CLI, headless (`copilot --output-format json`, prompt on stdin).

What is said of it here was observed with 1.0.102. What npm installs as `copilot` waits for a child that is
the agent, and dies alone when it is told to end; so the child's program is started itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import acp_stream, copilot_stream, driven
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.installed import find_installed
from headcount.harnesses.program import check_argument, check_text
from headcount.harnesses.rules import split_rule

SERVER: Final = "headcount"
MCP_FILE: Final = "mcp.json"
USAGE_FILE: Final = "usage.json"
LOADER: Final = "npm-loader.js"
SYSTEMS: Final = {"Linux": ("linux", "linuxmusl"), "Darwin": ("darwin",)}
MACHINES: Final = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}

PROBE: Final = Probe(
    program="copilot",
    install="npm install -g @github/copilot, with Node 22 or later, or fix PATH",
    oldest=(1,),
    login="run 'copilot login', or set COPILOT_GITHUB_TOKEN or COPILOT_PROVIDER_BASE_URL",
)
"""Whether somebody is logged in cannot be told: it may be in the system's keychain, or by `gh`."""

SESSION_VARIABLES: Final = ("COPILOT_CLI", "COPILOT_AGENT_SESSION_ID", "COPILOT_ALLOW_ALL")
"""They belong to the session that deploys, when that is a Copilot CLI too, or would allow everything."""

MODES: Final[Mapping[Permissions, Sequence[str]]] = {
    Permissions.READ: ("--deny-tool=write", "--deny-tool=shell"),
    Permissions.EDIT: ("--allow-tool=write",),
    Permissions.BYPASS: ("--allow-all",),
}
KINDS: Final[Mapping[str, str]] = {"shell": "shell", "edit": "write", "web": "url"}
"""Our words for tools that it asks about, in its own; about the others it never asks."""
UNASKED: Final[Mapping[str, Sequence[str]]] = {"read": ("view",), "search": ("glob", "rg", "grep")}
OWN: Final = re.compile(r"[A-Za-z0-9_.*/-]+(\([^()]*\))?")


class Copilot:
    """What stands behind `--` is added to its arguments, so that the caller may set any flag of it."""

    name: str = "copilot"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = False
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = ("GH_TOKEN", "GITHUB_TOKEN", "GH_HOST")
    env_prefixes: tuple[str, ...] = ("COPILOT_",)
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.EFFORT,
            Ability.TOOL_RULES,
            Ability.MCP_STDIO,
            Ability.RESUME,
            Ability.PRESET_SESSION,
            Ability.TAKEOVER,
            Ability.STEER,
            Ability.CANCEL,
        }
    )
    permissions: frozenset[Permissions] = frozenset(MODES)
    efforts: tuple[Effort, ...] = tuple(Effort)
    probe: Probe | None = PROBE

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        for argument in (*command, options.model or ""):
            check_argument("an argument of copilot", argument)
        for rule in (*options.allowed_tools, *options.denied_tools):
            _check_rule(check_argument("a rule about a tool", rule))

    def command(self, spec: Spec) -> Launch:
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        if spec.options.steer:
            direct = _launch(spec, ("--acp", *_flags(spec), *spec.command), stdin=None)
            return driven.launch_acp(spec, direct)
        headless = (
            "--output-format=json",
            "--no-ask-user",
            f"--usage-output-file={os.path.join(spec.run_path, USAGE_FILE)}",
        )
        return _launch(spec, (*headless, *_flags(spec), *spec.command), stdin=spec.prompt.encode())

    def interactive(self, spec: Spec) -> Launch:
        return _launch(spec, _flags(spec), stdin=None)

    def read(self, line: bytes) -> Sequence[Entry]:
        return acp_stream.read_with(copilot_stream.read, line)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge_or(copilot_stream.judge, record, tail)


def _launch(spec: Spec, flags: Sequence[str], *, stdin: bytes | None) -> Launch:
    program = find_installed(PROBE, env=spec.env, cwd=spec.cwd)
    return Launch(
        argv=(_native(program) or program, *flags),
        env={name: "" for name in SESSION_VARIABLES if name in spec.env},
        files={MCP_FILE: _mcp_config(spec)},
        stdin=stdin,
    )


def _native(program: str) -> str | None:
    """Return the agent itself if `program` is the loader that npm installs, and it lies where npm puts it."""
    directory, name = os.path.split(os.path.realpath(program))
    if name != LOADER:
        return None
    machine = os.uname()
    arch = MACHINES.get(machine.machine, machine.machine)
    for system in SYSTEMS.get(machine.sysname, ()):
        package = f"copilot-{system}-{arch}"
        for place in (os.path.dirname(directory), os.path.join(directory, "node_modules", "@github")):
            path = os.path.join(place, package, "copilot")
            if os.access(path, os.X_OK):
                return path
    return None


def _flags(spec: Spec) -> tuple[str, ...]:
    """`--name=value` in one word: a value cannot be taken for a flag."""
    options, session = spec.options, spec.session
    return (
        "--no-auto-update",
        *MODES[options.permissions],
        f"--allow-tool={SERVER}",
        f"--additional-mcp-config=@{os.path.join(spec.run_path, MCP_FILE)}",
        f"--resume={session.session_id}" if session.resumed else f"--session-id={session.session_id}",
        *((f"--model={options.model}",) if options.model else ()),
        *((f"--reasoning-effort={options.effort}",) if options.effort else ()),
        *(flag for rule in options.allowed_tools for flag in _allowing(rule)),
        *(flag for rule in options.denied_tools for flag in _denying(rule)),
    )


def _check_rule(rule: str) -> None:
    word, prefix = split_rule(rule)
    if not OWN.fullmatch(word) or (prefix is not None and not set("(),").isdisjoint(prefix)):
        raise InvalidInput(
            f"copilot cannot be given the rule {rule[:60]!r}",
            hint="one of shell, edit, read, search, web, shell(PREFIX) without brackets, or its own rule",
        )


def _allowing(rule: str) -> Iterator[str]:
    word, prefix = split_rule(rule)
    if prefix is not None:
        yield f"--allow-tool=shell({prefix}:*)"
    elif word not in UNASKED:  # those it uses unasked
        yield f"--allow-tool={KINDS.get(word, word)}"


def _denying(rule: str) -> Iterator[str]:
    word, prefix = split_rule(rule)
    if prefix is not None:
        yield f"--deny-tool=shell({prefix}:*)"
    elif word in KINDS or "(" in word:
        yield f"--deny-tool={KINDS.get(word, word)}"
    else:
        yield from (f"--excluded-tools={name}" for name in UNASKED.get(word, (word,)))


def _mcp_config(spec: Spec) -> bytes:
    """Name our server and nothing secret: it inherits its token from the agent's environment, and the keys
    that its children need, which Copilot CLI would keep for itself, are passed by name."""
    args = [*spec.headcount[1:], "mcp"]
    server: dict[str, Any] = {"type": "local", "command": spec.headcount[0], "args": args, "tools": ["*"]}
    server["env"] = {name: f"${{{name}}}" for name in sorted(spec.env)}
    return json.dumps({"mcpServers": {SERVER: server}}, indent=1).encode()
