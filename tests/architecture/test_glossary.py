"""The alias table of the glossary names things that exist, at every door."""

from __future__ import annotations

from pathlib import Path

import pytest

from headcount import Headcount

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"


def rows() -> list[tuple[str, str, str, str]]:
    table = GLOSSARY.read_text().partition("| use case |")[2].splitlines()[2:]
    cells = [
        tuple(cell.strip().strip("`") for cell in line.strip("|").split("|"))
        for line in table
        if line.startswith("|")
    ]
    return [(use, python, command, tool) for use, python, command, tool in cells]


@pytest.mark.parametrize(("use", "python", "command", "tool"), rows())
def test_a_use_case_has_its_name_at_every_door(use: str, python: str, command: str, tool: str) -> None:
    from headcount.doors.cli.root import root
    from headcount.doors.mcp import tools

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
