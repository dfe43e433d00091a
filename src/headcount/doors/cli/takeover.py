"""`headcount takeover` and `handback`: a person goes on with an agent's conversation, then it again."""

from __future__ import annotations

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import terminal
from headcount.doors.cli.arguments import prompt_of, prompt_options
from headcount.doors.cli.attach import go
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show

_env_option = click.option(
    "--env", multiple=True, metavar="NAME", help="A further variable of yours that it gets; repeatable."
)


@click.command(short_help="Go on with an agent's conversation yourself.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@_env_option
@click.option("--detach", is_flag=True, help="Do not go there; 'headcount attach' does.")
@json_option
def takeover(*, agent: str, env: tuple[str, ...], detach: bool, as_json: bool) -> None:
    """Go on with an agent's conversation yourself, in its program's own interactive form.

    What the agent does at the moment is ended first. Then its tmux session shows its program, and takes your
    keys; Ctrl-B D leaves it, and it stays. 'headcount handback' lets the agent go on.
    """
    with fleets.opened() as fleet:
        made = fleet.take_over(fleets.agent_id(fleet, agent), env=env)
        goes = made.tmux_session is not None and not (detach or as_json) and terminal.interactive()
        argv = fleet.attach_command(made.agent_id) if goes else ()
    if goes:
        go(argv, made.agent_id, patience=10.0)
    show(
        made,
        as_json=as_json,
        text=lambda: f"{made.agent_id} is yours, run {made.run}: 'headcount attach {made.agent_id}'",
    )


@click.command(short_help="Let an agent that was taken over go on headless.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@prompt_options
@_env_option
@json_option
def handback(
    *,
    agent: str,
    prompt: str | None,
    prompt_file: str | None,
    env: tuple[str, ...],
    as_json: bool,
) -> None:
    """Let an agent that was taken over go on headless: with all that was said meanwhile, and a new prompt.

    Its interactive run is ended first. Answers when its process is confirmed to run.
    """
    asked = prompt_of(prompt, prompt_file)
    if asked is None:
        raise click.UsageError("Give --prompt or --prompt-file.")
    with fleets.opened() as fleet:
        made = fleet.hand_back(fleets.agent_id(fleet, agent), asked, env=env)
    show(made, as_json=as_json, text=lambda: f"{made.agent_id} is {made.state} again, run {made.run}")
