"""`headcount up`, `headcount down`, and the help of `headcount mcp`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from headcount.domain.errors import Infrastructure, NotAllowed
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.show import json_option, show

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.config import Home


@click.command(short_help="Start the daemon.")
@json_option
def up(*, as_json: bool) -> None:
    """Start the daemon and answer when it takes connections. It also starts on first need.

    The daemon serves MCP and watches; correctness never depends on it.
    """
    from headcount.daemon import start

    with fleets.opened() as fleet:
        home = _home(fleet)
        began = start.ensure(home)
        if not start.wait_ready(home):
            raise Infrastructure("the daemon does not answer", hint=f"{home.daemon_log} says why")
        facts = {
            "running": True,
            "started": began,
            "pid": start.holder(home),
            "socket": str(home.daemon_socket),
            **_port(home),
        }
    state = "started" if began else "was running already"
    show(
        facts,
        as_json=as_json,
        text=lambda: f"the daemon {state}, pid {facts['pid']}, socket {facts['socket']}",
    )


@click.command(short_help="Stop the daemon; agents go on.")
@json_option
def down(*, as_json: bool) -> None:
    """Stop the daemon. Agents go on running, and the next daemon finds them again.

    If no agent is live, the empty tmux server ends too, and nothing of Headcount is left running.
    """
    from headcount.daemon import start

    with fleets.opened() as fleet:
        home = _home(fleet)
        pid = start.holder(home)
        if not start.stop(home):
            raise Infrastructure(f"the daemon, pid {pid}, does not end", hint=f"{home.daemon_log} says why")
        live = len(fleets.all_agents(fleet))
        if not live:
            fleet.context.views.shut()  # the view server stays while there is something to show
    facts = {"running": False, "stopped_pid": pid, "live_agents": live}
    state = f"the daemon, pid {pid}, has ended" if pid else "no daemon was running"
    still = f"live agents, which go on: {live}; 'headcount halt' ends them" if live else "no agent is live"
    show(facts, as_json=as_json, text=lambda: f"{state}; {still}")


def _home(fleet: Headcount) -> Home:
    """Return the home of a person's fleet; the daemon is not an agent's to start or stop."""
    if fleet.context.token is not None:
        raise NotAllowed("an agent does not start or stop the daemon")
    return fleet.context.home


def _port(home: Home) -> dict[str, Any]:
    """Return the address of 127.0.0.1 that the daemon serves pages on, as it wrote it down."""
    try:
        found = json.loads(home.daemon_facts.read_text())
    except (OSError, ValueError):
        return {}
    return {"port": found.get("port")} if isinstance(found, dict) else {}


@click.command(
    short_help="Serve MCP on stdin and stdout, for a client to start.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.pass_context
def mcp(context: click.Context) -> int:
    """Serve MCP on stdin and stdout. A client starts this; 'headcount connect' registers it there.

    It passes everything on to the daemon, which it starts if there is none.
    """
    from headcount.doors.mcp import bridge

    sys.stdout.flush()
    return bridge.main(context.args)
