"""`headcount logs` and `headcount attach`: what an agent wrote, and its view."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from headcount.domain.errors import Refused
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import programs, terminal, tree
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show, to_json
from headcount.doors.cli.text import harmless

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.domain.output import OutputPage

_PAGE: Final = 256_000
"""Bytes of one look; longer output is read in several."""
_STEP: Final = 0.2
"""Seconds between two looks of -f."""


@click.command(short_help="Show what an agent wrote.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@click.option("--tail", type=click.IntRange(min=1), metavar="N", help="Only the last N lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the agent has ended.")
@click.option("--raw", is_flag=True, help="As the agent wrote it: nothing rendered, nothing escaped.")
@click.option("--stderr", is_flag=True, help="Its standard error instead of its output.")
@click.option(
    "--run", type=click.IntRange(min=1), metavar="N", help="Of an earlier run [default: the latest]."
)
@json_option
def logs(
    *, agent: str, tail: int | None, follow: bool, raw: bool, stderr: bool, run: int | None, as_json: bool
) -> None:
    """Show what an agent wrote, during its run or after it, in readable form.

    Control characters are shown, not obeyed, unless --raw. --json prints one page; its next_cursor
    and counts say what is left out.
    """
    if as_json and follow:
        raise click.UsageError("--json answers once, -f goes on; choose one.")
    stream = "stderr" if stderr else "output"
    with fleets.opened() as fleet:
        agent_id = fleets.agent_id(fleet, agent)

        def read(cursor: int | None, tail: int | None = None) -> OutputPage:
            return fleet.get_agent_output(
                agent_id,
                run=run,
                stream=stream,
                format="raw" if raw else "text",
                tail=tail,
                max_bytes=_PAGE,
                cursor=cursor,
            )
