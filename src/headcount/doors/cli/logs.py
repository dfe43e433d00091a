"""`headcount logs`: what an agent wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.transcript import render
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, to_json
from headcount.doors.cli.text import harmless

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.domain.output import OutputPage

_PAGE: Final = 256_000
"""Bytes of one look; longer output is read in several."""
_STEP: Final = 0.2
"""Seconds between two looks of -f; the end of the agent is seen at once."""
_FORMATS: Final = ("text", "jsonl", "parsed", "summary", "recent")


@click.command(short_help="Show what an agent wrote.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@click.option("--tail", type=click.IntRange(min=1), metavar="N", help="Only the last N lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the agent has ended.")
@click.option("--raw", is_flag=True, help="As the agent wrote it: nothing rendered, nothing escaped.")
@click.option("--stderr", is_flag=True, help="Its standard error instead of its output.")
@click.option("--filter", metavar="REGEX", help="Only lines in which this is found.")
@click.option("--format", type=click.Choice(_FORMATS), help="Another form than the readable one.")
@click.option(
    "--run", type=click.IntRange(min=1), metavar="N", help="Of an earlier run [default: the latest]."
)
@click.option(
    "--cursor", type=click.IntRange(min=0), metavar="N", help="Go on behind an earlier --json answer."
)
@json_option
def logs(
    *, agent: str, tail: int | None, follow: bool, raw: bool, cursor: int | None, as_json: bool, **asked: Any
) -> None:
    """Show what an agent wrote, during its run or after it, in readable form.

    Control characters are shown, not obeyed, unless --raw. --json prints one page; its next_cursor
    and counts say what is left out.
    """
    if as_json and follow:
        raise click.UsageError("--json answers once, -f goes on; choose one.")
    with fleets.opened() as fleet:
        source = Source(fleet, fleets.agent_id(fleet, agent), raw=raw, **asked)
        if as_json:
            print(to_json(source.page(cursor=cursor, tail=tail)))
            return
        for part in source.parts(cursor=cursor, tail=tail, follow=follow):
            sys.stdout.write(part)
            sys.stdout.flush()


class Source:
    """One stream of one agent, read in pages."""

    def __init__(
        self,
        fleet: Headcount,
        agent_id: str,
        *,
        raw: bool = False,
        stderr: bool = False,
        filter: str | None = None,
        format: str | None = None,
        run: int | None = None,
    ) -> None:
        self._fleet = fleet
        self._agent_id = agent_id
        self._raw = raw
        self._rendered = not (raw or stderr or format) and _needs_rendering(fleet, agent_id)
        self._asked: dict[str, Any] = {
            "stream": "stderr" if stderr else "output",
            "format": format or ("parsed" if self._rendered else "text"),
            "filter": filter,
            "run": run,
        }

    def page(self, *, cursor: int | None, tail: int | None = None) -> OutputPage:
        return self._fleet.get_agent_output(
            self._agent_id, cursor=cursor, tail=tail, max_bytes=_PAGE, **self._asked
        )

    def parts(self, *, cursor: int | None, tail: int | None, follow: bool) -> Iterator[str]:
        """Yield the output in parts, from its beginning unless told otherwise."""
        one_page = tail is not None or self._asked["format"] in {"summary", "recent"}
        if cursor is None and not one_page:
            cursor = 0
        while True:
            # before the look, so that nothing written before the end is missed
            over = not follow or self._over()
            page = self.page(cursor=cursor, tail=tail if cursor is None else None)
            yield self._cut(cursor, page)
            yield self._shown(page.text)
            cursor = page.next_cursor
            if not page.more and over:
                return

    def end(self) -> str:
        """Return the end of the output, of one page."""
        return self._shown(self.page(cursor=None).text)

    def _cut(self, cursor: int | None, page: OutputPage) -> str:
        """Return the line that stands where the output cap took something away; --raw has none."""
        lost = 0 if cursor is None or self._raw else page.start - cursor
        return f"\n[{lost} bytes were cut here by the output cap]\n" if lost > 0 else ""

    def _over(self) -> bool:
        return self._fleet.wait_for_agents([self._agent_id], timeout=_STEP).done

    def _shown(self, text: str) -> str:
        if self._raw:
            return text
        if not self._rendered:
            return harmless(text, lines=True)
        return "".join(f"{line}\n" for line in render(map(_entry, text.splitlines())))


def _needs_rendering(fleet: Headcount, agent_id: str) -> bool:
    return fleet.context.harness(fleet.get_agent(agent_id).harness).renders


def _entry(line: str) -> Entry:
    found = json.loads(line)
    return Entry(EntryKind(found["kind"]), found["text"], found.get("data") or {})
