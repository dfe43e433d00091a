"""`headcount resume`: an agent that is over goes on."""

from __future__ import annotations

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.arguments import prompt_of, prompt_options
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show


@click.command(short_help="Let an agent that is over go on.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@prompt_options
@click.option(
    "--env", multiple=True, metavar="NAME", help="A further variable of yours that it gets; repeatable."
)
@click.option("--idempotency-key", metavar="KEY", help="The same key answers the same call again.")
@json_option
def resume(
    *,
    agent: str,
    prompt: str | None,
    prompt_file: str | None,
    env: tuple[str, ...],
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Let an agent that is over go on with its conversation: a further run of it, with the same options in
    the same directory, and a new prompt. Answers when its process is confirmed to run.
    """
    asked = prompt_of(prompt, prompt_file)
    if asked is None:
        raise click.UsageError("Give --prompt or --prompt-file.")
    with fleets.opened() as fleet:
        named = fleets.agent_id(fleet, agent)
        made = fleet.resume_agent(named, asked, env=env, idempotency_key=idempotency_key)
    show(
        made,
        as_json=as_json,
        text=lambda: f"{made.agent_id} is {made.state} again, run {made.run}, pid {made.pid}",
    )
