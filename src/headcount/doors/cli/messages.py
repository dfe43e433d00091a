"""`headcount send`, `messages` and `cancel`: telling an agent something after its deploy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.arguments import text_of
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, paint

if TYPE_CHECKING:
    from headcount.services.answers import Cancelled, MessageFacts, MessageList, Sent

_WAYS = {
    "steer": "in the middle of its work",
    "report": "with the answer to a report",
    "resume": "by a further run",
}


@click.command(short_help="Tell an agent something.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@click.argument("text")
@click.option("--no-resume", is_flag=True, help="Do not let an agent that is over go on for it.")
@json_option
def send(*, agent: str, text: str, no_resume: bool, as_json: bool) -> int:
    """Tell an agent something: in the middle of its work if it was deployed with --steer, else with the
    answer to its next report; one that is over goes on with TEXT as its prompt. A TEXT of - is stdin.

    The message is kept until it has reached the agent. Exit code 1: it will not.
    """
    said = text_of("-", what="message") if text == "-" else text
    with fleets.opened() as fleet:
        sent = fleet.send_message(fleets.agent_id(fleet, agent), said, resume=not no_resume)
    show(sent, as_json=as_json, text=lambda: _sent(sent))
    return EXIT_FAILED if sent.state == "failed" else EXIT_DONE


def _sent(sent: Sent) -> str:
    way = f" {_WAYS[sent.way]}" if sent.way and sent.state == "delivered" else ""
    note = f": {harmless(sent.note)}" if sent.note else ""
    return f"message {sent.id} {sent.state}{way}{note}"


@click.command(short_help="Show what an agent was told.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many.",
)
@click.option("--cursor", type=click.IntRange(min=1), metavar="N", help="Go on behind an earlier answer.")
@json_option
def messages(*, agent: str, limit: int, cursor: int | None, as_json: bool) -> None:
    """Show what an agent was told after its deploy, newest first, and what became of each message."""
    with fleets.opened() as fleet:
        page = fleet.list_messages(fleets.agent_id(fleet, agent), limit=limit, cursor=cursor)
    show(page, as_json=as_json, text=lambda: _listing(page))


def _listing(page: MessageList) -> str:
    more = [f"more: --cursor {page.next_cursor}"] if page.next_cursor else []
    return "\n".join([*map(_line, page.messages), *more]) or "no messages"


def _line(each: MessageFacts) -> str:
    way = f" {_WAYS[each.way]}" if each.way else ""
    run = f", run {each.run}" if each.run else ""
    why = f": {harmless(each.reason)}" if each.reason else ""
    head = f"{each.id}  {each.state}{way}{run}{why}"
    return f"{paint(head, 'bold')}\n    {each.sender or 'a person'}, {each.at}\n    {harmless(each.text)}"


@click.command(short_help="End what an agent does at the moment.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@json_option
def cancel(*, agent: str, as_json: bool) -> int:
    """End what a live agent does at the moment, without ending its conversation; for agents that were
    deployed with --steer, where the harness can do that. Exit code 1: it did not.
    """
    with fleets.opened() as fleet:
        answer = fleet.cancel_turn(fleets.agent_id(fleet, agent))
    show(answer, as_json=as_json, text=lambda: _cancelled(answer))
    return EXIT_FAILED if answer.state == "failed" else EXIT_DONE


def _cancelled(answer: Cancelled) -> str:
    return f"{answer.agent_id} {answer.state}" + (f": {harmless(answer.note)}" if answer.note else "")
