"""`pi`: the Pi coding agent, headless (`pi -p --mode json`, prompt on stdin).

What is said of it here was observed with 0.73.1. It asks nobody and refuses nothing by itself, so an
extension of ours (`pi_guard.js`) holds it to what its agent may do. It has no MCP client: its agents report
by the commands `headcount report`, `finding` and `spawn`, which the guard always lets through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import driven, pi_stream
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.installed import find_installed
from headcount.harnesses.program import check_argument, check_text
from headcount.harnesses.rules import split_rule

PROGRAM: Final = "pi"
GUARD: Final = os.path.join(os.path.dirname(__file__), "pi_guard.js")
GUARD_FILE: Final = "guard.js"
SYSTEM_FILE: Final = "system.md"

TOOLS: Final[Mapping[str, Sequence[str]]] = {
    "shell": ("bash",),
    "edit": ("edit", "write"),
    "read": ("read",),
    "search": ("grep", "find", "ls"),
}
KEYS: Final = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_OAUTH_TOKEN",
    "OPENAI_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "DEEPSEEK_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_CLOUD_API_KEY",
    "GROQ_API_KEY",
    "CEREBRAS_API_KEY",
    "XAI_API_KEY",
    "FIREWORKS_API_KEY",
    "OPENROUTER_API_KEY",
    "AI_GATEWAY_API_KEY",
    "ZAI_API_KEY",
    "MISTRAL_API_KEY",
    "MINIMAX_API_KEY",
    "MOONSHOT_API_KEY",
    "OPENCODE_API_KEY",
    "KIMI_API_KEY",
    "CLOUDFLARE_API_KEY",
    "XIAOMI_API_KEY",
    "COPILOT_GITHUB_TOKEN",
    "HF_TOKEN",
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_BEARER_TOKEN_BEDROCK",
)
"""Any of them is a login. It names them in its own help; a key of the user's own models.json it calls as it
likes, and that has to be passed by name (`--env`)."""

PROBE: Final = Probe(
    program=PROGRAM,
    install="install it with Node 20 or later (npm install -g @mariozechner/pi-coding-agent), or fix PATH",
    oldest=(0, 73),
    login_env=KEYS,
    login_files=(".pi/agent/models.json", ".pi/agent/auth.json"),
    login="run 'pi' once and use /login, or set the key of a provider, such as ANTHROPIC_API_KEY",
)
LOGIN_PLACES: Final = ("models.json", "settings.json", "extensions", "npm", "git")
"""In its own directory: any of them may name a provider with a login that we cannot see."""

NO_MCP: Final = """\
You have no MCP tools. Where your instructions name `update_agent_progress`, `report_agent_finding` or
`spawn_child_agent`, run a command in your shell instead, alone, not as a part of another one:
- headcount report working "what you do" --progress 40    (or blocked, done, failed)
- headcount finding bug "what you found" --severity high
- headcount spawn tester --prompt "what it is to do"
Each has --help.
"""


class Pi:
    """What stands behind `--` is added to its arguments, so that the caller may set any flag of it."""

    name: str = "pi"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = False
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = (
        *KEYS,
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_CLOUD_LOCATION",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "CLOUDFLARE_ACCOUNT_ID",
        "CLOUDFLARE_GATEWAY_ID",
    )
    env_prefixes: tuple[str, ...] = ("PI_", "AZURE_OPENAI_", "XIAOMI_TOKEN_")
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.EFFORT,
            Ability.SYSTEM_PROMPT,
            Ability.TOOL_RULES,
            Ability.RESUME,
            Ability.TAKEOVER,
            Ability.STEER,
            Ability.CANCEL,
        }
    )
    permissions: frozenset[Permissions] = frozenset({Permissions.READ, Permissions.EDIT, Permissions.BYPASS})
    efforts: tuple[Effort, ...] = (Effort.LOW, Effort.MEDIUM, Effort.HIGH, Effort.XHIGH)
    probe: Probe | None = PROBE

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        for argument in (*command, options.model or "", options.system_prompt or ""):
            check_argument("an argument of pi", argument)
        for rule in (*options.allowed_tools, *options.denied_tools):
            if split_rule(check_argument("a rule about a tool", rule))[0] == "web":
                raise InvalidInput(
                    "harness pi has no tool for the web", hint="leave it out; its shell is ruled by shell"
                )

    def command(self, spec: Spec) -> Launch:
        launch = self.interactive(spec)
        program, *flags = launch.argv
        if spec.options.steer:
            direct = replace(launch, argv=(program, "--mode", "rpc", *flags))
            return driven.launch(spec, protocol="pi", direct=direct)
        return Launch(
            argv=(program, "-p", "--mode", "json", *flags),
            env=launch.env,
            files=launch.files,
            stdin=spec.prompt.encode(),
        )

    def interactive(self, spec: Spec) -> Launch:
        """Open it as its user would, held to the same permissions. It asks before it goes on with a
        conversation from another directory."""
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        program = find_installed(PROBE, env=spec.env, cwd=spec.cwd)
        _check_login(spec)
        env = {} if "PI_SKIP_VERSION_CHECK" in spec.env else {"PI_SKIP_VERSION_CHECK": "1"}
        return Launch(argv=(program, *_flags(spec), *spec.command), env=env, files=_files(spec))

    def read(self, line: bytes) -> Sequence[Entry]:
        entries = driven.read(line)
        return pi_stream.read(line) if entries is None else entries

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge_with(pi_stream.judge, record, tail)


def _check_login(spec: Spec) -> None:
    """Refuse if it is certain that no provider can be used: it would say so itself, but seconds later."""
    env, home = spec.env, spec.env.get("HOME")
    if not home or any(env.get(name) for name in KEYS) or "--api-key" in spec.command:
        return
    own = env.get("PI_CODING_AGENT_DIR") or os.path.join(home, ".pi", "agent")
    places = [os.path.join(own, name) for name in LOGIN_PLACES]
    places += [os.path.join(home, *path) for path in ((".aws",), (".config", "gcloud"))]
    places.append(os.path.join(spec.cwd, ".pi"))
    if not any(map(os.path.exists, places)) and not _has_login(os.path.join(own, "auth.json")):
        raise PlacementFailed("pi is not logged in to any provider", hint=PROBE.login)


def _has_login(path: str) -> bool:
    """Say whether a file has logins: Pi writes an empty one whenever it starts."""
    try:
        with open(path, "rb") as file:
            return file.read(64).strip() not in (b"", b"{}")
    except FileNotFoundError:
        return False
    except OSError:
        return True


# ---------------------------------------------------------------- its flags and files


def _flags(spec: Spec) -> Iterator[str]:
    """Yield the flags of both forms; it takes a value as it comes, whatever that begins with."""
    options = spec.options
    if options.model:
        yield from ("--model", options.model)
    if options.effort:
        yield from ("--thinking", options.effort)
    yield from ("--append-system-prompt", os.path.join(spec.run_path, SYSTEM_FILE))
    if _is_held(options):
        yield from ("--extension", os.path.join(spec.run_path, GUARD_FILE))
    if options.permissions is not Permissions.BYPASS:
        yield from ("--tools", ",".join(_tools(options)))
    if spec.session.resumed:
        yield from ("--session", spec.session.session_id)


def _is_held(options: Options) -> bool:
    return options.permissions is not Permissions.BYPASS or bool(options.denied_tools)


def _tools(options: Options) -> Iterator[str]:
    """Yield the tools that are offered. Its shell always is, for our commands; the guard sees to the rest."""
    for word, tools in TOOLS.items():
        if word == "shell" or (word not in options.denied_tools and (word != "edit" or _may_edit(options))):
            yield from tools
    yield from (each for each in options.allowed_tools if split_rule(each)[1] is None and each not in TOOLS)


def _may_edit(options: Options) -> bool:
    return options.permissions is not Permissions.READ or "edit" in options.allowed_tools


def _files(spec: Spec) -> dict[str, bytes]:
    files = {SYSTEM_FILE: "\n".join((NO_MCP, spec.options.system_prompt or "")).encode()}
    if _is_held(spec.options):
        with open(GUARD, "rb") as guard:
            policy = json.dumps(_policy(spec.options))
            files[GUARD_FILE] = f"const POLICY = {policy};\n".encode() + guard.read()
    return files


def _policy(options: Options) -> Mapping[str, Any]:
    """Return what the guard goes by."""
    shell = options.permissions is Permissions.BYPASS or "shell" in options.allowed_tools
    return {
        "write": "anywhere" if options.permissions is Permissions.BYPASS else "here",
        "shell": shell and "shell" not in options.denied_tools,
        "allowed": list(_prefixes(options.allowed_tools)),
        "denied": list(_prefixes(options.denied_tools)),
        "tools": list(_denied(options)),
        "mark": pi_stream.REFUSED,
    }


def _prefixes(rules: Sequence[str]) -> Iterator[list[str]]:
    yield from (prefix.split() for _, prefix in map(split_rule, rules) if prefix is not None)


def _denied(options: Options) -> Iterator[str]:
    for rule in options.denied_tools:
        if rule != "shell" and split_rule(rule)[1] is None:
            yield from TOOLS.get(rule, (rule,))
