"""Writes the second part of docs/mcp.md, behind the mark, from the code. A test says when it is old."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headcount.doors.mcp.arguments import Arguments
from headcount.doors.mcp.tools import TOOLS, Tool, Who

PAGE = Path(__file__).parent.parent / "docs" / "mcp.md"

MARK = "<!-- From here on written by scripts/write_mcp_reference.py. -->\n"


def reference() -> str:
    """Return the page: its first part as it is, its second as it should be."""
    parts = [PAGE.read_text("utf-8").partition(MARK)[0] + MARK]
    for who, title in ((Who.PERSON, "Tools of a person"), (Who.AGENT, "Tools of an agent")):
        tools = [tool for tool in TOOLS if who in tool.who]
        parts.append(f"## {title}\n\n{_table(tools)}")
    return "\n".join([*parts, "## Arguments\n", *(_section(tool) for tool in TOOLS)])


def _table(tools: list[Tool]) -> str:
    rows = [f"| [`{tool.name}`](#{tool.name}) | {tool.title} | {_kind(tool)} |" for tool in tools]
    return "\n".join(["| tool | what it does | changes |", "|---|---|---|", *rows, ""])


def _kind(tool: Tool) -> str:
    if tool.reads_only:
        return "nothing"
    return "ends processes" if tool.destroys else "yes"


def _section(tool: Tool) -> str:
    schema = Arguments(tool).schema
    needed = set(schema.get("required", ()))
    rows = [_row(name, field, needed=name in needed) for name, field in schema["properties"].items()]
    head = ["| argument | type | default | meaning |", "|---|---|---|---|"] if rows else ["No arguments."]
    answer = f"Answers `{tool.answer.__name__}`."
    return "\n".join([f"### {tool.name}\n", f"{tool.description} {answer}\n", *head, *rows, ""])


def _row(name: str, field: Mapping[str, Any], *, needed: bool) -> str:
    default = "required" if needed else f"`{json.dumps(field['default'])}`" if "default" in field else ""
    return f"| `{name}` | {_type(field)} | {default} | {field.get('description', '')}{_bounds(field)} |"


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {field['items'].get('type', 'any')}"
    return kind


def _bounds(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return ""
    return f" ({low} to {high})" if high is not None else f" ({low} or more)"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
