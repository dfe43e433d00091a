"""Completion of ids from the registry. It never fails: no candidates is an answer too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from headcount.domain.errors import HeadcountError
from headcount.doors.cli.fleet import opened
from headcount.doors.cli.text import harmless

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_MOST: Final = 100


def complete_agent(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer live agents; where none fits, ended ones."""
    from click.shell_completion import CompletionItem

    try:
        with opened() as fleet:
            for ended in (False, True):
                agents = fleet.list_agents(all=ended, limit=_MOST).agents
                fits = [each for each in agents if each.agent_id.startswith(incomplete)]
                if fits:
                    return [
                        CompletionItem(each.agent_id, help=f"{each.outcome or each.state}") for each in fits
                    ]
    except HeadcountError:
        return []
    return []


def complete_task(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer tasks, newest first."""
    from click.shell_completion import CompletionItem

    try:
        with opened() as fleet:
            tasks = fleet.list_tasks(limit=_MOST).tasks
    except HeadcountError:
        return []
    return [
        CompletionItem(each.task_id, help=harmless(each.description)[:40])
        for each in tasks
        if each.task_id.startswith(incomplete)
    ]
