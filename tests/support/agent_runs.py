"""The real agent CLIs run by themselves, without Headcount: how each is asked to work headless, once.

A prompt comes by stdin; everything is allowed, unless told otherwise; the stream of events is what it prints.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support import small_mcp
from tests.support.agent_clis import AgentCli

SERVER: Final = "small"
"""What the MCP server is called that `mcp=True` gives to an agent: tests/support/small_mcp.py."""

COMMAND: Final[Mapping[str, Sequence[str]]] = {
    "claude": ("-p", "--output-format", "stream-json", "--verbose"),
    "codex": ("exec", "--json", "--skip-git-repo-check"),
    "gemini": ("-o", "stream-json", "--skip-trust", "-m", "gemini-2.5-pro"),
    "opencode": ("run", "--format", "json"),
    "qwen": ("-o", "stream-json"),
    "copilot": ("--output-format", "json", "--no-ask-user"),
    "pi": ("-p", "--mode", "json"),
}

ALLOW: Final[Mapping[str, Sequence[str]]] = {
    "claude": ("--permission-mode", "bypassPermissions"),
    "codex": ("--dangerously-bypass-approvals-and-sandbox",),
    "gemini": ("--approval-mode", "yolo"),
    "opencode": ("--auto",),
    "qwen": ("--approval-mode", "yolo"),
    "copilot": ("--allow-all",),
    "pi": (),
}
"""Without these Pi and OpenCode do everything all the same, Codex only reads, the others refuse."""

RESUME: Final[Mapping[str, Callable[[str], Sequence[str]]]] = {
    "claude": lambda session: ("--resume", session),
    "codex": lambda session: ("resume", session),
    "gemini": lambda session: ("--resume", session),
    "opencode": lambda session: ("--session", session),
    "qwen": lambda session: ("--resume", session),
    "copilot": lambda session: (f"--resume={session}",),
    "pi": lambda session: ("--session", session),
}


def start(
    cli: AgentCli,
    directory: Path,
    prompt: str,
    *more: str,
    mcp: bool = False,
    resume: str | None = None,
    allowed: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a CLI in `directory` with its prompt given; its output is in pipes."""
    allow = ALLOW[cli.name] if allowed else ()
    options = [*allow, *(RESUME[cli.name](resume) if resume else ()), *(_mcp(cli) if mcp else ()), *more]
    if cli.name == "codex":
        options.append("-")  # the prompt is in stdin
    process = subprocess.Popen(
        [cli.program, *COMMAND[cli.name], *options],
        cwd=directory,
        env={**cli.env, "IS_SANDBOX": "1"},  # else Claude Code refuses root what is allowed here
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(prompt.encode())
    process.stdin.close()
    process.stdin = None
    return process


def _mcp(cli: AgentCli) -> Sequence[str]:
    """Give an agent an MCP server, by its flags or in its own settings."""
    command, args = sys.executable, ["-I", str(small_mcp.__file__)]
    stdio = {"command": command, "args": args}
    match cli.name:
        case "claude" | "qwen":
            return "--mcp-config", json.dumps({"mcpServers": {SERVER: stdio}})
        case "codex":
            server = f"mcp_servers.{SERVER}"
            return (
                "-c",
                f"{server}.command={json.dumps(command)}",
                "-c",
                f"{server}.args={json.dumps(args)}",
                "-c",
                f"{server}.required=true",  # else it begins without a slow one
            )
        case "gemini":
            settings = cli.home / ".gemini" / "settings.json"
            known = json.loads(settings.read_text())
            settings.write_text(json.dumps({**known, "mcpServers": {SERVER: {**stdio, "trust": True}}}))
        case "opencode":
            settings = cli.home / ".config" / "opencode" / "opencode.json"
            local = {"type": "local", "command": [command, *args], "enabled": True}
            settings.write_text(json.dumps({**json.loads(settings.read_text()), "mcp": {SERVER: local}}))
        case "copilot":
            local = {**stdio, "type": "local", "tools": ["*"]}
            return "--additional-mcp-config", json.dumps({"mcpServers": {SERVER: local}})
        case _:
            raise ValueError(f"{cli.name} has no MCP client")
    return ()
