"""What an agent may do unasked: permissions, then rules about tools, over what it asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALLOW, DENY, ASK = "allow", "deny", "ask"

WORDS: Mapping[str, str] = {
    "execute": "shell",
    "edit": "edit",
    "delete": "edit",
    "move": "edit",
    "read": "read",
    "search": "search",
    "fetch": "web",
    "think": "think",
}
"""Our word for each of ACP's kinds of tools."""
HARMLESS = ("read", "search", "think")
OURS = re.compile(r"(mcp__headcount__|mcp_headcount_|headcount[_-])\w+|\w+ \(headcount MCP Server\)")
JOINTS = re.compile(r"[;&|\n()`]|\$\(")
NOT_PLAIN = re.compile(r"[;&|\n()`$<>]")
PATCHED = re.compile(r"^\*\*\* (?:Add|Update|Delete) File: (.+)$", re.MULTILINE)
PATHS = ("path", "file_path", "filePath", "abs_path", "notebook_path")
COMMANDS = ("command", "cmd")


class Use:
    """A use of a tool that somebody has to decide on; `kind` is ACP's word for what it does."""

    __slots__ = ("arguments", "kind", "paths", "title", "tool")

    def __init__(
        self,
        tool: str,
        *,
        kind: str,
        title: str = "",
        arguments: Mapping[str, Any] | None = None,
        paths: Iterable[str] = (),
    ) -> None:
        self.tool = tool
        self.kind = kind
        self.title = title or tool
        self.arguments = arguments or {}
        self.paths = tuple(paths) or tuple(named_paths(self.arguments))

    @property
    def word(self) -> str:
        return WORDS.get(self.kind, self.kind)

    @property
    def command(self) -> str:
        """The command line of a shell's use, as far as it is known."""
        for name in COMMANDS:
            found = self.arguments.get(name)
            if isinstance(found, str):
                return found
            if isinstance(found, list):
                return " ".join(map(str, found))
        return self.title

    @property
    def ours(self) -> bool:
        return self.word not in WORDS.values() and any(map(OURS.fullmatch, (self.tool, self.title)))


class Policy:
    """`decide` is all of it."""

    def __init__(
        self, permissions: str, *, cwd: str, allowed: Sequence[str] = (), denied: Sequence[str] = ()
    ) -> None:
        self._permissions = permissions
        self._cwd = os.path.realpath(cwd)
        self._allowed = tuple(allowed)
        self._denied = tuple(denied)

    def decide(self, use: Use) -> tuple[str, str]:
        """Return ALLOW, DENY or ASK, and why."""
        for rule in self._denied:
            if _denies(rule, use):
                return DENY, f"denied by the rule {rule}"
        if use.ours:
            return ALLOW, "it is Headcount's own"
        if self._permissions == "bypass":
            return ALLOW, "permissions are bypass"
        for rule in self._allowed:
            if _allows(rule, use):
                return ALLOW, f"allowed by the rule {rule}"
        if self._may(use):
            return ALLOW, f"permissions are {self._permissions}"
        if self._permissions == "ask":
            return ASK, "permissions are ask"
        return DENY, f"permissions are {self._permissions}"

    def _may(self, use: Use) -> bool:
        if use.word in HARMLESS:
            return True
        return use.word == "edit" and self._permissions != "read" and all(map(self._is_here, use.paths))

    def _is_here(self, path: str) -> bool:
        whole = os.path.realpath(os.path.join(self._cwd, path))
        return os.path.commonpath((whole, self._cwd)) == self._cwd


def named_paths(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that the arguments of a tool name."""
    for name in PATHS:
        if isinstance(arguments.get(name), str):
            yield arguments[name]
    for value in arguments.values():
        if isinstance(value, str) and value.startswith("*** Begin Patch"):
            yield from PATCHED.findall(value)


def _allows(rule: str, use: Use) -> bool:
    word, prefix = _split(rule)
    if prefix is None:
        return rule in (use.word, use.tool)
    command = use.command
    return use.word == word and not NOT_PLAIN.search(command) and _begins(command, prefix)


def _denies(rule: str, use: Use) -> bool:
    word, prefix = _split(rule)
    if prefix is None:
        return rule in (use.word, use.tool)
    return use.word == word and any(_begins(part, prefix) for part in JOINTS.split(use.command))


def _split(rule: str) -> tuple[str, list[str] | None]:
    word, bracket, rest = rule.partition("(")
    if not bracket or not rest.endswith(")") or word != "shell":
        return rule, None
    return word, rest[:-1].split()


def _begins(command: str, prefix: Sequence[str]) -> bool:
    return command.split()[: len(prefix)] == list(prefix)
