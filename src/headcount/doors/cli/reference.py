"""The reference page of the command line, as `python -m` on this module prints it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from headcount.doors.cli.commands import SECTIONS
from headcount.doors.cli.root import root

_HEAD = """\
# The command line

Drawn from the commands by `python -m headcount.doors.cli.reference`; a test checks that it is current.

`HEADCOUNT_HOME` moves all state. Every command that answers takes `--json` and prints one JSON object:
the facts, or `{"error": {"code", "message", "hint", ...}}`; a refusal has `limit`, `value` and `holders`
too. Keys are added, never renamed. Otherwise an error is a line or two on stderr: what failed, on what,
and what to do next.

An agent is named by its id, by the beginning of one, or by its role, if only one fits; live ones come first.
A task is named by its id or the beginning of one.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the work failed; `doctor`, `audit`, `repair --apply`: unhealthy; `stop`, `kill`, `halt`: survivors |
| 2 | usage |
| 3 | refused by a limit or rule |
| 4 | not found |
| 5 | infrastructure: the machine, the registry or a tool did not do what was asked |
| 6 | a wait ran out |
| 130, 143 | interrupted by Ctrl-C, by TERM |
| 141 | the reader of the output has gone |
"""
_WIDTH = 90


def page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    top = click.Context(root, info_name="headcount", **root.context_settings)
    for title, section in SECTIONS.items():
        yield f"## {title}\n"
        for name in section:
            command = root.get_command(top, name)
            if command is not None:
                yield from _command(command, name, top)


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH)
    yield f"### {context.command_path}\n\n```\n{_help(command, context)}\n```\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            if found is not None:
                yield from _command(found, each, context)


def _help(command: click.Command, context: click.Context) -> str:
    lines = command.get_help(context).splitlines()
    return "\n".join(line.rstrip() for line in lines if "-h, --help" not in line)


if __name__ == "__main__":
    print(page(), end="")
