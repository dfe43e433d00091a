"""`headcount report` and `headcount finding`: what an agent says of itself and its work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless

if TYPE_CHECKING:
    from headcount.services.answers import Reported

_agent_option = click.option(
    "--agent",
    metavar="AGENT",
    shell_complete=complete_agent,
    help="For whom; inside an agent only itself [default].",
)


@click.command(short_help="Report your own progress.")
@click.argument("status", type=click.Choice(["working", "blocked", "done", "failed"]))
@click.argument("message")
@click.option("--progress", type=click.IntRange(0, 100), metavar="PERCENT", help="How far, 0 to 100.")
@_agent_option
@json_option
def report(*, status: str, message: str, progress: int | None, agent: str | None, as_json: bool) -> None:
    """Report your own progress from inside an agent, which is known by its token."""
    with fleets.opened() as fleet:
        named = None if agent is None else fleets.agent_id(fleet, agent)
        answer = fleet.update_agent_progress(status, message, progress=progress, agent_id=named)
    show(answer, as_json=as_json, text=lambda: _said("report", answer))


@click.command(short_help="Report something that you discovered.")
@click.argument("type_", metavar="TYPE")
@click.argument("message")
@click.option(
    "--severity",
    type=click.Choice(["critical", "high", "medium", "low", "info"]),
    default="info",
    show_default=True,
    help="How much it matters.",
)
@click.option("--data", metavar="JSON", help="Facts that belong to it, as one JSON object.")
@_agent_option
@json_option
def finding(
    *, type_: str, message: str, severity: str, data: str | None, agent: str | None, as_json: bool
) -> None:
    """Report something that you discovered, from inside an agent. TYPE is a word such as bug or risk."""
    facts = _data(data)
    with fleets.opened() as fleet:
        named = None if agent is None else fleets.agent_id(fleet, agent)
        answer = fleet.report_agent_finding(type_, message, severity=severity, data=facts, agent_id=named)
    show(answer, as_json=as_json, text=lambda: _said("finding", answer))


def _data(text: str | None) -> Mapping[str, object] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--data") from error
    if not isinstance(found, dict):
        raise click.BadParameter("not a JSON object", param_hint="--data")
    return found


def _said(kind: str, answer: Reported) -> str:
    told = [
        f"message {each.id} from {each.sender or 'a person'}:\n{harmless(each.text, lines=True)}"
        for each in answer.messages
    ]
    return "\n".join([f"{kind} {answer.id} {answer.note or 'recorded'}", *told])
