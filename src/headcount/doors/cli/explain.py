"""`headcount explain`: why an agent stands as it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, paint

if TYPE_CHECKING:
    from headcount.services.answers import Explained, FlagFacts


@click.command(short_help="Explain the state of an agent.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@json_option
def explain(*, agent: str, as_json: bool) -> None:
    """Explain the state of an agent, live or over: which signals there are and since when, what the watchdog
    has flagged and done, and what would change it.
    """
    with fleets.opened() as fleet:
        found = fleet.explain_agent(fleets.agent_id(fleet, agent))
    show(found, as_json=as_json, text=lambda: "\n".join(_lines(found)))


def _lines(found: Explained) -> Iterator[str]:
    word = found.outcome or found.state
    yield f"{paint(found.agent_id, 'bold')}  run {found.run}  {paint(word, word)}"
    yield harmless(found.why)
    yield ""
    for each in found.signals:
        since = f"  (since {each.since})" if each.since else ""
        yield f"{each.name:<11}{harmless(each.value)}{since}"
    if found.flags:
        yield ""
        yield from (_flag(each) for each in found.flags)
    yield ""
    yield "What would change it:"
    yield from (f"  {harmless(each)}" for each in found.changes)


def _flag(flag: FlagFacts) -> str:
    until = f" until {flag.cleared_at}" if flag.cleared_at else ""
    facts = ", ".join(f"{name} {value}" for name, value in flag.evidence.items() if value is not None)
    did = f"; {flag.action} at {flag.acted_at}" if flag.acted_at else ""
    why = f": {flag.reason}" if flag.reason else ""
    return harmless(f"{flag.kind:<11}run {flag.run}, since {flag.raised_at}{until} ({facts}){did}{why}")
