"""`headcount harness`: the programs that can be agents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, paint, table

if TYPE_CHECKING:
    from headcount.services.answers import HarnessFacts, HarnessList, HarnessWhole

_COLOURS = {"ready": "ok", "missing": "dim", "too_old": "medium", "not_ready": "medium", "broken": "bad"}


@click.group(short_help="List the harnesses, and what each can do.")
def harness() -> None:
    """List the harnesses: the programs that can be agents, and what each can do."""


@harness.command("list", short_help="List the harnesses.")
@click.option("--abilities", is_flag=True, help="What each can do, too.")
@json_option
def list_(*, abilities: bool, as_json: bool) -> None:
    """List the harnesses: whether the program of each is here, which version, and whether it would work.

    A program whose package does not say its version is asked for it, with no files and variables of yours.
    """
    with fleets.opened() as fleet:
        found = fleet.list_harnesses()
    show(found, as_json=as_json, text=lambda: _listing(found, abilities=abilities))


def _listing(found: HarnessList, *, abilities: bool) -> str:
    rows = [
        (
            each.name,
            each.program or "-",
            each.version or "-",
            each.state.replace("_", " "),
            _last(each, abilities=abilities),
        )
        for each in found.harnesses
    ]
    head = ("NAME", "PROGRAM", "VERSION", "STATE", "ABILITIES" if abilities else "WHAT TO DO")
    return table(rows, head=head, last=10_000 if abilities else None)


def _last(each: HarnessFacts, *, abilities: bool) -> str:
    if abilities:
        return " ".join(each.abilities) or "-"
    why = "" if each.state == "missing" else each.why
    return harmless("; ".join(filter(None, (why, each.hint)))) or "-"


@harness.command("show", short_help="Show all that is known of a harness.")
@click.argument("name", metavar="NAME")
@json_option
def show_(*, name: str, as_json: bool) -> None:
    """Show all that is known of a harness: its program, what it can do and what not, and the variables of
    yours that its agents get.
    """
    with fleets.opened() as fleet:
        found = fleet.get_harness(name)
    show(found, as_json=as_json, text=lambda: "\n".join(_lines(found)))


def _lines(found: HarnessWhole) -> Iterator[str]:
    word = found.state.replace("_", " ")
    yield f"{paint(found.name, 'bold')}  {paint(word, _COLOURS[found.state])}"
    rows = {
        "why": found.why,
        "to do": found.hint,
        "package": found.package or "",
        "program": " ".join(filter(None, (found.path or found.program, found.version))),
        "oldest": found.oldest or "",
        "logged in": {True: "yes", False: "no", None: "" if not found.program else "cannot be told"}[
            found.logged_in
        ],
        "by": ", ".join(found.login_by),
        "needs": ", ".join(_needs(found)),
        "can": ", ".join(found.abilities) or "none of the options",
        "cannot": ", ".join(found.lacks),
        "permissions": ", ".join(found.permissions) or "it has no say",
        "efforts": ", ".join(found.efforts) or "none",
        "variables": ", ".join(found.variables) or "none beyond those of every agent",
    }
    yield from (f"{title:<12}{harmless(text)}" for title, text in rows.items() if text)


def _needs(found: HarnessWhole) -> Iterator[str]:
    if found.needs_prompt:
        yield "a prompt"
    if found.needs_command:
        yield "a program behind '--'"
