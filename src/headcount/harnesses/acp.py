"""`acp`: any agent that speaks the Agent Client Protocol on its stdin and stdout, as `gemini --acp` does.

A driver holds the conversation (`harnesses/driver`), so it can be told, asked and cancelled while it works.
"""

from __future__ import annotations

from collections.abc import Sequence

from headcount.domain.entries import Entry
from headcount.domain.errors import InvalidInput
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import acp_stream, driven
from headcount.harnesses.abilities import NotInteractive
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.program import check_argument, check_text, find_program
from headcount.harnesses.rules import split_rule


class Acp(NotInteractive):
    """What stands behind `--` is the agent's command. It is held to its permissions as far as it asks."""

    name: str = "acp"
    renders: bool = True
    needs_prompt: bool = True
    needs_command: bool = True
    wraps_prompt: bool = True
    env_names: tuple[str, ...] = ()
    env_prefixes: tuple[str, ...] = (
        "ANTHROPIC_",
        "AZURE_OPENAI_",
        "CODEX_",
        "COPILOT_",
        "GEMINI_",
        "GOOGLE_",
        "OPENAI_",
        "OPENCODE_",
        "QWEN_",
    )
    abilities: frozenset[Ability] = frozenset(
        {
            Ability.MODEL,
            Ability.TOOL_RULES,
            Ability.MCP_STDIO,
            Ability.RESUME,
            Ability.STEER,
            Ability.CANCEL,
        }
    )
    permissions: frozenset[Permissions] = frozenset(Permissions)
    efforts: tuple[Effort, ...] = ()
    probe: Probe | None = None

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        if not command or not command[0]:
            raise InvalidInput(
                "harness acp needs the command of an agent",
                hint="put it behind '--': headcount deploy TASK --role builder --harness acp -- gemini --acp",
            )
        check_text("the prompt", prompt)
        for argument in (*command, options.model or ""):
            check_argument("an argument of the agent", argument)
        for rule in (*options.allowed_tools, *options.denied_tools):
            split_rule(check_argument("a rule about a tool", rule))

    def command(self, spec: Spec) -> Launch:
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        program = find_program(
            spec.command[0],
            env=spec.env,
            cwd=spec.cwd,
            hint="check its name, or give its full path; a relative path begins in the agent's directory",
        )
        return driven.launch(
            spec,
            protocol="acp",
            direct=Launch(argv=(program, *spec.command[1:])),
            mcp_servers=driven.mcp_servers(spec),
            model=spec.options.model,
        )

    def read(self, line: bytes) -> Sequence[Entry]:
        return acp_stream.read(line)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return driven.judge(record, tail) or driven.judge_cut(record)
