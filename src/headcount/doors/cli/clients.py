"""The MCP clients that `headcount connect` knows: where each keeps its servers, and in which words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NAME: Final = "headcount"
"""What the server is called in every client."""


@dataclass(frozen=True, slots=True)
class Server:
    """How a client starts us."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Client:
    """One MCP client. `file` is below the user's home; `key` leads to the servers in it."""

    name: str
    title: str
    file: Callable[[Path, Mapping[str, str]], Path]
    key: str
    entry: Callable[[Server], Mapping[str, Any]]
    add: Callable[[Server], Sequence[str]] | None = None  # the client's own command, where it has one
    remove: Sequence[str] = ()


def _below(*parts: str) -> Callable[[Path, Mapping[str, str]], Path]:
    return lambda home, _: home.joinpath(*parts)


def _codex(home: Path, environ: Mapping[str, str]) -> Path:
    return Path(environ.get("CODEX_HOME") or home / ".codex") / "config.toml"


def _claude(home: Path, environ: Mapping[str, str]) -> Path:
    if given := environ.get("CLAUDE_CONFIG_DIR"):
        return Path(given) / ".claude.json"
    return home / ".claude.json"


def _config(home: Path, environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def _opencode(home: Path, environ: Mapping[str, str]) -> Path:
    return _config(home, environ) / "opencode" / "opencode.json"


def _vscode(home: Path, environ: Mapping[str, str]) -> Path:
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "Code" / "User" / "mcp.json"
    return _config(home, environ) / "Code" / "User" / "mcp.json"


def _plain(server: Server) -> dict[str, Any]:
    entry: dict[str, Any] = {"command": server.argv[0], "args": list(server.argv[1:])}
    return {**entry, "env": dict(server.env)} if server.env else entry


def _stdio(server: Server) -> dict[str, Any]:
    return {"type": "stdio", **_plain(server)}


def _copilot(server: Server) -> dict[str, Any]:
    return {"type": "local", **_plain(server), "tools": ["*"]}


def _local(server: Server) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "local", "command": list(server.argv), "enabled": True}
    return {**entry, "environment": dict(server.env)} if server.env else entry


def _claude_add(server: Server) -> list[str]:
    variables = [part for name, value in server.env.items() for part in ("-e", f"{name}={value}")]
    return ["claude", "mcp", "add", "--scope", "user", NAME, *variables, "--", *server.argv]


def _codex_add(server: Server) -> list[str]:
    variables = [part for name, value in server.env.items() for part in ("--env", f"{name}={value}")]
    return ["codex", "mcp", "add", NAME, *variables, "--", *server.argv]


CLIENTS: Final[Mapping[str, Client]] = {
    client.name: client
    for client in (
        Client(
            "claude", "Claude Code", _claude, "mcpServers", _stdio,
            add=_claude_add, remove=("claude", "mcp", "remove", "--scope", "user", NAME),
        ),
        Client(
            "codex", "Codex", _codex, "mcp_servers", _plain,
            add=_codex_add, remove=("codex", "mcp", "remove", NAME),
        ),
        Client("gemini", "Gemini CLI", _below(".gemini", "settings.json"), "mcpServers", _plain),
        Client("opencode", "OpenCode", _opencode, "mcp", _local),
        Client("qwen", "Qwen Code", _below(".qwen", "settings.json"), "mcpServers", _plain),
        Client("copilot", "Copilot CLI", _below(".copilot", "mcp-config.json"), "mcpServers", _copilot),
        Client("cursor", "Cursor", _below(".cursor", "mcp.json"), "mcpServers", _plain),
        Client("vscode", "VS Code", _vscode, "servers", _stdio),
    )
}  # fmt: skip
