"""`opencode`: the OpenCode CLI, headless (`opencode run --format json`, prompt on stdin).

What is said of it here was observed with 1.18.33. All that it is told goes by a configuration in its
environment, which counts more than its user's and the project's own and leaves them as they are. It has no
sandbox: what its shell does nothing holds back, so that it has none unless it is given one. What it writes is
read in `opencode_stream`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import acp_stream, driven, opencode_stream
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.installed import find_installed
from headcount.harnesses.parse import load_object, mapping
from headcount.harnesses.program import check_argument, check_text
from headcount.harnesses.rules import split_rule

PROGRAM: Final = "opencode"
SERVER: Final = "headcount"
CONFIG: Final = "OPENCODE_CONFIG_CONTENT"
SYSTEM_FILE: Final = "opencode-system.md"
AGENT: Final = "build"
"""Its own agent that works, whatever else its user has made the default."""
TIMEOUT_MS: Final = 120_000
"""For our MCP server to start, and for each call of it: a wait for agents takes up to 45 s."""

SESSION_VARIABLES: Final = ("OPENCODE_PID", "OPENCODE_PROCESS_ROLE", "OPENCODE_RUN_ID")
"""They belong to the session that deploys, when that is an OpenCode too."""

TOOLS: Final[Mapping[str, Sequence[str]]] = {
    "shell": ("bash",),
    "edit": ("edit",),
    "read": ("read", "list"),
    "search": ("grep", "glob"),
    "web": ("webfetch", "websearch"),
}
ALLOW, DENY = "allow", "deny"
MODES: Final[Mapping[Permissions, Mapping[str, str]]] = {
    # What is denied to an agent, its subagents are denied too, unless its user has made their own.
    Permissions.READ: {"edit": DENY, "bash": DENY, "task": DENY, "external_directory": DENY},
    Permissions.EDIT: {"edit": ALLOW, "bash": DENY, "external_directory": DENY},
    Permissions.BYPASS: dict.fromkeys(
        ("*", *(tool for tools in TOOLS.values() for tool in tools), "task", "external_directory"), ALLOW
    ),
}

PROBE: Final = Probe(
    program=PROGRAM,
    install="npm install -g opencode-ai, or fix PATH",
    oldest=(1, 18),
)  # it works without a login too, with models that are free


class OpenCode:
    """What stands behind `--` is added to the flags of `opencode run`."""

    name: str = "opencode"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = False
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = (
        "DEEPSEEK_API_KEY",
        "GITHUB_TOKEN",
        "GROQ_API_KEY",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "MISTRAL_API_KEY",
        "MOONSHOT_API_KEY",
        "NO_PROXY",
        "NODE_EXTRA_CA_CERTS",
        "OPENROUTER_API_KEY",
        "SSL_CERT_FILE",
        "XAI_API_KEY",
        "ZHIPU_API_KEY",
    )
    env_prefixes: tuple[str, ...] = (
        "ANTHROPIC_",
        "AWS_",
        "AZURE_",
        "GEMINI_",
        "GOOGLE_",
        "OPENAI_",
        "OPENCODE_",
        "VERTEX_",
    )
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.SYSTEM_PROMPT,
            Ability.TOOL_RULES,
            Ability.MCP_STDIO,
            Ability.RESUME,
            Ability.TAKEOVER,
            Ability.STEER,
            Ability.CANCEL,
        }
    )
    permissions: frozenset[Permissions] = frozenset(MODES)
    efforts: tuple[Effort, ...] = ()  # a variant that a model has not is dropped without a word
    probe: Probe | None = PROBE

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        check_text("the prompt", prompt)
        check_text("system_prompt", options.system_prompt or "")
        for argument in (*command, options.model or ""):
            check_argument("an argument of opencode", argument)
        for rule in (*options.allowed_tools, *options.denied_tools):
            _tools(check_argument("a rule about a tool", rule))

    def command(self, spec: Spec) -> Launch:
        program = self._ready(spec)
        if spec.options.steer:
            direct = Launch(argv=(program, "acp", *spec.command), env=_env(spec), files=_files(spec))
            return driven.launch_acp(spec, direct, model=spec.options.model)
        argv = (program, "run", "--format=json", "--thinking", "--auto", *_flags(spec), *spec.command)
        return Launch(argv=argv, env=_env(spec), files=_files(spec), stdin=spec.prompt.encode())

    def interactive(self, spec: Spec) -> Launch:
        """Open it as its user would, with our tools and the same permissions; what is left it asks."""
        argv = (self._ready(spec), *_flags(spec), *spec.command)
        return Launch(argv=argv, env=_env(spec), files=_files(spec))

    def read(self, line: bytes) -> Sequence[Entry]:
        return acp_stream.read_with(opencode_stream.read, line)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge_or(opencode_stream.judge, record, tail)

    def _ready(self, spec: Spec) -> str:
        """Return the program's path if it can do what is asked."""
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        model = spec.options.model
        if model is not None and not all(model.partition("/")):
            raise InvalidInput(
                f"opencode has no model {model[:60]!r}",
                hint="give PROVIDER/MODEL, as 'opencode models' lists them",
            )
        return find_installed(PROBE, env=spec.env, cwd=spec.cwd)


def _flags(spec: Spec) -> tuple[str, ...]:
    model = (f"--model={spec.options.model}",) if spec.options.model else ()
    return (*model, f"--session={spec.session.session_id}") if spec.session.resumed else model


# ---------------------------------------------------------------- its configuration


def _env(spec: Spec) -> Mapping[str, str]:
    return {
        **{name: "" for name in SESSION_VARIABLES if name in spec.env},
        **({} if "OPENCODE_DISABLE_AUTOUPDATE" in spec.env else {"OPENCODE_DISABLE_AUTOUPDATE": "1"}),
        CONFIG: json.dumps(_merged(_given(spec), _config(spec))),
    }


def _config(spec: Spec) -> Mapping[str, Any]:
    permission = {f"{SERVER}_*": ALLOW, **_permission(spec.options)}
    config: dict[str, Any] = {
        # It inherits its token from the agent's environment: nothing secret is named.
        "mcp": {
            SERVER: {
                "type": "local",
                "command": [*spec.headcount, "mcp"],
                "enabled": True,
                "timeout": TIMEOUT_MS,
            }
        },
        "permission": permission,
        "agent": {AGENT: {"permission": permission}},  # else the user's own for this agent would count more
        "default_agent": AGENT,
    }
    if spec.options.system_prompt is not None:
        config["instructions"] = [os.path.join(spec.run_path, SYSTEM_FILE)]
    return config


def _files(spec: Spec) -> Mapping[str, bytes]:
    system = spec.options.system_prompt
    return {} if system is None else {SYSTEM_FILE: system.encode()}


def _given(spec: Spec) -> Mapping[str, Any]:
    """Return the caller's own configuration in the environment. From an agent of ours, which has one of ours
    there, comes only what is not about that agent."""
    text = spec.env.get(CONFIG, "")
    found = load_object(text.strip().encode("utf-8", "replace")) if text.strip() else {}
    if found is None:
        raise InvalidInput(
            f"the variable {CONFIG} is not a JSON object",
            hint="write it without comments, or put it into a file and name that in OPENCODE_CONFIG",
        )
    if SERVER not in mapping(found.get("mcp")):
        return found
    ours = {"permission", "agent", "default_agent"}
    kept = {name: value for name, value in found.items() if name not in ours}
    texts = kept.get("instructions")
    if isinstance(texts, list):
        kept["instructions"] = [each for each in texts if not str(each).endswith(f"/{SYSTEM_FILE}")]
    return kept


def _merged(given: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, as it would merge them itself: ours counts, but lists are joined."""
    made = dict(given)
    for name, value in ours.items():
        before = made.pop(name, None)  # what comes later counts more: ours last
        if isinstance(value, dict) and isinstance(before, dict):
            made[name] = _merged(before, value)
        elif name == "instructions" and isinstance(before, list):
            made[name] = [*before, *value]
        else:
            made[name] = value
    return made


# ---------------------------------------------------------------- what it may do


def _permission(options: Options) -> Mapping[str, Any]:
    """Return its rules; of those that match a call, the last counts."""
    found: dict[str, Any] = dict(MODES[options.permissions])
    _add(found, options.allowed_tools, ALLOW)
    _add(found, options.denied_tools, DENY)
    return found


def _add(found: dict[str, Any], rules: Iterable[str], action: str) -> None:
    for rule in rules:
        tools, prefix = _tools(rule)
        for tool in tools:
            before = found.pop(tool, ALLOW)
            if prefix is None:
                found[tool] = action
            else:
                kept = before if isinstance(before, dict) else {"*": before}
                found[tool] = {**kept, f"{prefix} *": action}  # the bare prefix too


def _tools(rule: str) -> tuple[Sequence[str], str | None]:
    """Return its names for the tools of a rule, and the rule's prefix.

    Raises:
        InvalidInput: it is no rule.
    """
    word, prefix = split_rule(rule)
    if word not in TOOLS and "(" in word:
        raise InvalidInput(
            f"{rule[:60]!r} is no rule for opencode", hint="give shell(PREFIX), or a tool's name alone"
        )
    return TOOLS.get(word, (word,)), prefix
