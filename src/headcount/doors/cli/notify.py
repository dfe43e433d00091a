"""`headcount notify`: who outside is told of what happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, table

if TYPE_CHECKING:
    from headcount.services.answers import HookFacts, HookList, Tested


@click.group(short_help="List or test the hooks that tell you what happens.")
def notify() -> None:
    """List or test the hooks that tell you what happens: programs, webhooks, the desktop.

    They stand in settings.toml, each as a table [[notify]]; the daemon tells them.
    """


@notify.command(name="list", short_help="List the hooks.")
@json_option
def list_(*, as_json: bool) -> None:
    """List the hooks: what each is told of, how much of that it was told, and what is wrong with it."""
    with fleets.opened() as fleet:
        found = fleet.list_hooks()
    show(found, as_json=as_json, text=lambda: "\n".join(_listing(found)))


def _listing(found: HookList) -> Iterator[str]:
    if not found.hooks:
        yield "no hooks: settings.toml has no [[notify]]"
        return
    rows = [
        (
            each.name,
            each.how,
            ",".join(each.on),
            f"{each.delivered} told, {each.queued} queued, {each.dead} dead",
            harmless(each.to),
        )
        for each in found.hooks
    ]
    yield table(rows, head=("HOOK", "HOW", "ON", "NOTICES", "TO"))
    for each in found.hooks:
        yield from _trouble(each)


def _trouble(hook: HookFacts) -> Iterator[str]:
    if hook.wrong:
        yield f"{hook.name} is wrong: {harmless(hook.wrong)}"
    if hook.last_failure and (hook.queued or hook.dead):
        yield f"{hook.name} last failed: {harmless(hook.last_failure)}"


@notify.command(short_help="Tell a hook something now.")
@click.argument("name", metavar="NAME")
@json_option
def test(*, name: str, as_json: bool) -> int:
    """Tell a hook something now, once, and say whether it took it. Exit code 1: it did not."""
    with fleets.opened() as fleet:
        found = fleet.test_hook(name)
    show(found, as_json=as_json, text=lambda: _tested(found))
    return EXIT_DONE if found.delivered else EXIT_FAILED


def _tested(found: Tested) -> str:
    return (
        f"{found.name} took it"
        if found.delivered
        else f"{found.name} did not take it: {harmless(found.note)}"
    )
