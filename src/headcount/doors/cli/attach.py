"""`headcount attach`: an agent's view."""

from __future__ import annotations

import click

from headcount.domain.errors import Infrastructure, Refused
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import programs, terminal
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show


@click.command(short_help="Go to a live agent's tmux session.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@json_option
def attach(*, agent: str, as_json: bool) -> None:
    """Go to a live agent's tmux session; Ctrl-B D leaves it, and the agent does not notice.

    --json only prints the command that goes there.
    """
    with fleets.opened() as fleet:
        agent_id = fleets.agent_id(fleet, agent)
        argv = fleet.attach_command(agent_id)
    if as_json:
        show({"agent_id": agent_id, "command": argv}, as_json=True, text=str)
        return
    if not terminal.interactive():
        raise Refused(
            "there is no terminal to attach to",
            code="no_terminal",
            limit="view",
            hint=f"'headcount logs -f {agent_id}' follows it anywhere",
        )
    go(argv, agent_id)


def go(argv: tuple[str, ...], agent_id: str, *, patience: float = 0.0) -> None:
    """Ask tmux first whether the session is there, which for a new one may take a while: what it would say
    instead is no help."""
    socket = argv[: argv.index("attach-session")] if "attach-session" in argv else None
    until = terminal.ticking() + patience
    while socket is not None and not (there := _is_there(socket, agent_id)) and terminal.ticking() < until:
        terminal.pause(0.05)
    if socket is not None and not there:
        raise Infrastructure(
            f"agent {agent_id} has no tmux session at the moment",
            hint=f"'headcount repair --apply' makes it again; 'headcount logs -f {agent_id}' needs none",
        )
    programs.become(argv)


def _is_there(socket: tuple[str, ...], agent_id: str) -> bool:
    return programs.ran([*socket, "has-session", "-t", f"={agent_id}"], timeout=5.0)[0] == 0
