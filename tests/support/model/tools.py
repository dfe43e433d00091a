"""A step of a script in the tools that a client offers: each names and shapes the same ones differently."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.model.script import Step

NAMES: Final[Mapping[str, Sequence[str]]] = {
    "bash": ("Bash", "exec_command", "shell_command", "run_shell_command", "bash", "shell"),
    "write": ("Write", "write_file", "write", "create"),
    "edit": ("Edit", "replace", "edit"),
    "read": ("Read", "read_file", "read", "view"),
}
"""How clients call their tools, the most particular first."""

WORDS: Final[Mapping[str, Sequence[str]]] = {
    "command": ("command", "cmd"),
    "path": ("file_path", "filePath", "path", "absolute_path"),
    "content": ("content", "file_text"),
    "old": ("old_string", "oldString", "oldText", "old_str"),
    "new": ("new_string", "newString", "newText", "new_str"),
}
"""How clients call the arguments of those tools."""

EMPTY: Final[Mapping[str, object]] = {"boolean": False, "number": 1, "integer": 1, "array": [], "object": {}}


@dataclass(frozen=True)
class Tool:
    """A tool that is offered: `free` takes text and no object, `search` finds the hidden ones."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict, repr=False)
    namespace: str = ""
    free: bool = False
    search: bool = False

    @property
    def whole_name(self) -> str:
        return f"{self.namespace.rstrip('_')}__{self.name}" if self.namespace else self.name

    @property
    def properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.schema.get("properties") or {}
        return found


@dataclass(frozen=True)
class Call:
    """A call to make. `given` is text for a free tool; `search` says that it only looks for one."""

    name: str
    given: Mapping[str, Any] | str
    namespace: str = ""
    search: bool = False
    id: str = ""

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.given if isinstance(self.given, Mapping) else {"input": self.given}


class NotOfferedError(Exception):
    """No tool of the request can do a step."""


def calls_of(step: Step, tools: Sequence[Tool], *, searched: bool) -> list[Call]:
    """Return the calls of a step; alone the search for a hidden tool, if that has to come first.

    Raises:
        NotOfferedError: the client offers nothing for it.
    """
    made = [call for each in step.get("calls", [step]) if (call := _call(each, tools, searched=searched))]
    return next(([call] for call in made if call.search), made)


def _call(step: Step, tools: Sequence[Tool], *, searched: bool) -> Call | None:
    match step:
        case {"bash": str(command)}:
            return _bash(command, tools)
        case {"write": {"path": path, "content": content}}:
            return _written("write", {"path": path, "content": content}, tools)
        case {"edit": {"path": path, "old": old, "new": new}}:
            return _written("edit", {"path": path, "old": old, "new": new}, tools)
        case {"read": str(path)}:
            tool = _offered("read", tools)
            return _made(tool, {"path": path}) if tool else _bash(f"cat {shlex.quote(path)}", tools)
        case {"mcp": {"server": str(server), "tool": str(name)} as wanted}:
            given = wanted.get("arguments", {})
            return _mcp(server, name, given, tools=tools, searched=searched)
        case {"tool": {"name": name, "input": given}}:
            found = next((tool for tool in tools if name in {tool.name, tool.whole_name}), None)
            return Call(found.name, given, found.namespace) if found else Call(name, given)
    return None


def _bash(command: str, tools: Sequence[Tool]) -> Call:
    tool = _offered("bash", tools)
    if tool is None:
        raise NotOfferedError(f"no shell among {_names(tools)}")
    return _made(tool, {"command": command})


def _written(kind: str, given: Mapping[str, str], tools: Sequence[Tool]) -> Call:
    if tool := _offered(kind, tools):
        return _made(tool, given)
    patch = _patch(given)
    for tool in tools:
        if tool.name == "apply_patch":
            return Call(tool.name, patch if tool.free else {next(iter(tool.properties), "input"): patch})
    raise NotOfferedError(f"nothing to {kind} a file with among {_names(tools)}")


def _patch(given: Mapping[str, str]) -> str:
    """Return a change in the form that OpenAI's models are used to; it takes whole lines only."""
    if "old" in given:
        lines = [f"*** Update File: {given['path']}", "@@"]
        lines += [f"-{line}" for line in given["old"].splitlines()]
        lines += [f"+{line}" for line in given["new"].splitlines()]
    else:
        lines = [f"*** Add File: {given['path']}", *(f"+{line}" for line in given["content"].splitlines())]
    return "\n".join(("*** Begin Patch", *lines, "*** End Patch", ""))


def _offered(kind: str, tools: Sequence[Tool]) -> Tool | None:
    by_name = {tool.name: tool for tool in tools if not tool.namespace and not tool.free}
    return next((by_name[name] for name in NAMES[kind] if name in by_name), None)


def _names(tools: Sequence[Tool]) -> str:
    return ", ".join(tool.whole_name for tool in tools)


# ---------------------------------------------------------------- arguments


def _made(tool: Tool, given: Mapping[str, str]) -> Call:
    """Return a call with the arguments that the tool's schema has words for, and any other that it wants."""
    arguments: dict[str, Any] = {}
    if edits := tool.properties.get("edits"):  # a list of changes, as Pi's
        inner = edits.get("items", {}).get("properties", {})
        change = {_word(word, inner): given[word] for word in ("old", "new")}
        arguments = {"edits": [change]}
        given = {"path": given["path"]}
    arguments |= {_word(word, tool.properties): value for word, value in given.items()}
    for name in tool.schema.get("required") or ():
        arguments.setdefault(name, smallest(tool.properties.get(name, {})))
    return Call(tool.name, arguments, tool.namespace)


def _word(word: str, properties: Mapping[str, Any]) -> str:
    return next((each for each in WORDS[word] if each in properties), WORDS[word][0])


def smallest(schema: Mapping[str, Any]) -> Any:
    """Return about the smallest value that fits a JSON Schema."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return smallest(options[0])
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "string")
    kind = (kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        inner = schema.get("properties") or {}
        return {name: smallest(inner.get(name, {})) for name in schema.get("required") or inner}
    return EMPTY.get(kind, "scripted")


# ---------------------------------------------------------------- MCP


def _mcp(server: str, name: str, given: Mapping[str, Any], *, tools: Sequence[Tool], searched: bool) -> Call:
    """Return the call of an MCP tool, whatever the client has made of its name, or the search for it."""
    wanted = {_plain(f"mcp_{server}_{name}"), _plain(f"{server}_{name}")}
    for tool in tools:
        if _plain(tool.whole_name) in wanted:
            return Call(tool.name, given, tool.namespace)
    hidden = f"mcp__{server}__{name}"
    offered = {tool.name: tool for tool in tools}
    if not searched and (search := next((tool for tool in tools if tool.search), None)):
        return _search(search, hidden)
    if searched and "tool_call" in offered:  # Qwen Code's way to what was found
        return Call("tool_call", {"name": hidden, "arguments": given})
    if searched and "ToolSearch" in offered:  # Claude Code's list has it only as found
        return Call(hidden, given)
    raise NotOfferedError(f"no tool {name} of {server} among {_names(tools)}")


def _search(search: Tool, hidden: str) -> Call:
    query = hidden.replace("_", " ") if search.free else f"select:{hidden}"
    given: dict[str, Any] = {"query": query}
    for name in search.schema.get("required") or ():
        given.setdefault(name, 5 if name == "max_results" else smallest(search.properties.get(name, {})))
    return Call(search.name, given, search=True)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def as_text(value: object) -> str:
    """Return the text in whatever a client sends as content, joined by lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(as_text, value)))
    if isinstance(value, Mapping):
        for key in ("text", "content", "output"):
            if key in value:
                return as_text(value[key])
        return json.dumps(value)
    return ""
