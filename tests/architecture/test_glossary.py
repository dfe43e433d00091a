"""The alias table of the glossary names things that exist, at every door."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from headcount import Headcount

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"


NO_USE_CASE = {"of", "context", "acting_as", "close"}
"""Methods that are about the object, not about the fleet."""


def rows() -> list[tuple[str, str, str, str, str]]:
    table = GLOSSARY.read_text().partition("| use case |")[2].splitlines()[2:]
    cells = [
        tuple(cell.strip().strip("`") for cell in line.strip("|").split("|"))
        for line in table
        if line.startswith("|")
    ]
    return [(use, service, python, command, tool) for use, service, python, command, tool in cells]


def test_every_method_and_tool_stands_in_the_glossary() -> None:
    from headcount.doors.mcp import tools

    named = rows()
    public = {name for name in vars(Headcount) if not name.startswith("_")} - NO_USE_CASE
    assert {python for _, _, python, _, _ in named} == public
    assert {tool for *_, tool in named if tool} == set(tools.BY_NAME)


@pytest.mark.parametrize(("use", "service", "python", "command", "tool"), rows())
def test_a_use_case_has_its_name_at_every_door(
    use: str, service: str, python: str, command: str, tool: str
) -> None:
    from headcount.doors.cli.root import root
    from headcount.doors.mcp import tools

    assert find_spec(f"headcount.services.{service}"), use
    assert callable(getattr(Headcount, python)), use
    if command:
        import click

        found: click.Command | None = root
        for word in command.split():
            assert isinstance(found, click.Group)
            found = found.get_command(click.Context(found), word)
            assert found is not None, command
    if tool:
        assert tool in tools.BY_NAME, tool
