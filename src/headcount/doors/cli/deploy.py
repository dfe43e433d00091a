"""`headcount deploy`, and `headcount spawn` for use inside an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.arguments import (
    WithCommand,
    harness_options,
    harness_or_default,
    prompt_of,
    prompt_options,
)
from headcount.doors.cli.complete import complete_agent, complete_task
from headcount.doors.cli.policy import policy_options
from headcount.doors.cli.show import json_option, show

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.services.answers import Deployed

_F = TypeVar("_F", bound=Callable[..., Any])


def _deploy_options(command: _F) -> _F:
    """Give a command what `deploy` and `spawn` both take; `_deploy` understands it."""
    for option in reversed(
        (
            click.option("--cwd", metavar="DIR", help="Where it works [default: the task's project]."),
            click.option(
                "--allow-duplicate-role", is_flag=True, help="Even if a live agent of the task has the role."
            ),
            click.option(
                "--allow-same-work",
                is_flag=True,
                help="Even if a live agent of the task has the same prompt.",
            ),
            click.option(
                "--resume-on-crash",
                type=click.IntRange(min=0, max=100),
                default=0,
                metavar="N",
                help="Let it go on after a crash, at most N times.",
            ),
            click.option(
                "--idempotency-key", metavar="KEY", help="The same key answers the same deploy again."
            ),
        )
    ):
        command = option(command)
    return prompt_options(harness_options(policy_options(command)))


@click.command(cls=WithCommand, short_help="Deploy one agent for a task.")
@click.argument("task", metavar="TASK", shell_complete=complete_task)
@click.option(
    "--role",
    required=True,
    metavar="ROLE",
    help="What the agent is: investigator, builder, fixer, reviewer, tester, ...",
)
@click.option(
    "--parent", metavar="AGENT", shell_complete=complete_agent, help="The live agent whose child it is."
)
@_deploy_options
@json_option
def deploy(*, task: str, role: str, parent: str | None, as_json: bool, **asked: Any) -> None:
    """Deploy one agent and answer when its process is confirmed to run.

    A plain program is an agent too: give it behind --, and the prompt is its stdin.
    """
    with fleets.opened() as fleet:
        above = None if parent is None else fleets.agent_id(fleet, parent)
        made = _deploy(fleet, fleets.task_id(fleet, task), role=role, parent=above, **asked)
    show(made, as_json=as_json, text=lambda: _said(made))


@click.command(cls=WithCommand, short_help="Deploy a child of your own for the same task.")
@click.argument("role")
@click.option("--task", envvar="HEADCOUNT_TASK_ID", metavar="TASK", help="[default: your own]")
@_deploy_options
@json_option
def spawn(*, role: str, task: str | None, as_json: bool, **asked: Any) -> None:
    """Deploy a child of the agent that this shell belongs to; it outlives you.

    Only inside an agent, which is known by its token.
    """
    if task is None:
        raise click.UsageError("This is not the shell of an agent; 'headcount deploy' is for people.")
    with fleets.opened() as fleet:
        made = _deploy(fleet, task, role=role, **asked)
    show(made, as_json=as_json, text=lambda: _said(made))


def _deploy(
    fleet: Headcount,
    task_id: str,
    *,
    prompt: str | None,
    prompt_file: str | None,
    harness: str | None,
    command: tuple[str, ...],
    **asked: Any,
) -> Deployed:
    """Deploy as the options say; those that mean the same here and there go through as they are."""
    return fleet.deploy(
        task_id,
        prompt=prompt_of(prompt, prompt_file),
        harness=harness_or_default(harness, command),
        command=command,
        **asked,
    )


def _said(made: Deployed) -> str:
    again = " (deployed before, with the same key)" if made.repeated else ""
    return f"{made.agent_id} is {made.state}, pid {made.pid}{again}"
