"""`headcount postmortem`: what is known of the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import dollars, harmless, paint, span, tokens

if TYPE_CHECKING:
    from headcount.services.answers import PostMortem

_FILES_MAX: Final = 20
_LINES_MAX: Final = 4
"""Lines that are shown of an entry; --json has more."""


@click.command(short_help="Show what is known of the end of a run.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@click.option(
    "--run",
    "n",
    type=click.IntRange(min=1),
    metavar="N",
    help="The number of the run. Default: the agent's latest that is over.",
)
@json_option
def postmortem(*, agent: str, n: int | None, as_json: bool) -> None:
    """Show what is known of the end of a run: how and why it ended, who asked for that, what it said and did
    last, which limits were near, which files were changed since its start, and what nobody knows.
    """
    with fleets.opened() as fleet:
        found = fleet.get_postmortem(fleets.agent_id(fleet, agent), run=n)
    show(found, as_json=as_json, text=lambda: "\n".join(_lines(found)))


def _lines(found: PostMortem) -> Iterator[str]:
    word = found.outcome or found.state
    yield f"{paint(f'{found.agent_id} run {found.run}', 'bold')}  {paint(word, word)}"
    yield from _row("how", found.how)
    yield from _row("why", "" if found.reason in (None, found.how) else str(found.reason))
    yield from _row("asked", _stop(found.stop))
    yield from _row("ran", f"{span(found.ran_s)}, until {found.ended_at}" if found.ran_s is not None else "")
    yield from _row("memory", str(found.out_of_memory["evidence"]))
    for what in found.unknown:
        yield from _row("unknown", what)
    yield from _row("said", _report(found.last_report))
    yield from _row("last call", found.last_tool_call or "")
    for each in found.near_limits:
        yield from _row("near", f"{each['limit']} {_number(each['value'])}: {_number(each['used'])}")
    for each in found.flags:
        yield from _row("flag", f"{each['kind']} since {each['raised_at']}, action {each['action']}")
    yield from _row("used", _used(found.account or {}))
    yield from _row("files", _files(found.files))
    for each in found.runs:
        ended = each["ending"] or each["outcome"] or each["state"]
        yield from _row(f"run {each['run']}", f"{each['why']}, {ended} {each['ended_at'] or ''}")
    yield from _wrote(found)


def _row(name: str, value: str) -> Iterator[str]:
    if value:
        yield f"{name:<11}{harmless(value)}"


def _stop(stop: Mapping[str, Any] | None) -> str:
    return "" if stop is None else f"by {stop['by']}: {stop['reason']} ({stop['asked_at']})"


def _report(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return "it never reported"
    progress = "" if said["progress"] is None else f" {said['progress']}%"
    return f"{said['status']}{progress}: {said['message']} ({said['at']})"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _used(account: Mapping[str, Any]) -> str:
    said = tokens(account.get("input"), account.get("output"), account.get("cached"))
    if account.get("cost_usd") is not None:
        said.append(dollars(account["cost_usd"]))
    return ", ".join(said)


def _files(files: Mapping[str, Any]) -> str:
    names, count = files["files"][:_FILES_MAX], files["count"]
    if count is None:
        return str(files.get("note", ""))
    more = f" and {count - len(names)} more" if count > len(names) else ""
    note = f" ({files['note']})" if files.get("note") else ""
    return f"{count} changed{note}: {', '.join(names)}{more}" if count else f"none changed{note}"


def _wrote(found: PostMortem) -> Iterator[str]:
    if found.entries:
        yield "last of its output:"
    for each in found.entries:
        first, *others = harmless(str(each["text"]), lines=True).split("\n")[:_LINES_MAX] or [""]
        yield f"  [{each['kind']}] {first}"
        yield from (f"    {line}" for line in others)
    if found.stderr.strip():
        yield "end of its stderr:"
        yield from (f"  {line}" for line in harmless(found.stderr.strip(), lines=True).splitlines())
