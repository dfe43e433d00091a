"""`headcount version`."""

from __future__ import annotations

import click

from headcount.domain.errors import Infrastructure
from headcount.doors.cli import programs
from headcount.doors.cli.show import json_option, show


@click.command(short_help="Show versions.")
@json_option
def version(*, as_json: bool) -> None:
    """Show the versions of Headcount and of what it stands on."""
    import platform

    from headcount import __version__

    facts = {
        "headcount": __version__,
        "python": platform.python_version(),
        "sqlite": _sqlite(),
        "tmux": _tmux(),
        "system": f"{platform.system()} {platform.release()}",
    }
    show(
        facts,
        as_json=as_json,
        text=lambda: "\n".join(f"{name:<10} {value or 'not found'}" for name, value in facts.items()),
    )


def _sqlite() -> str:
    from _sqlite3 import sqlite_version  # not `sqlite3`: SQL is the store's

    return str(sqlite_version)


def _tmux() -> str | None:
    try:
        code, said = programs.ran(["tmux", "-V"], timeout=2.0)
    except Infrastructure:
        return None
    return said.removeprefix("tmux ") if code == 0 else None
