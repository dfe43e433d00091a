"""`headcount up`, `headcount down`, and the help of `headcount mcp`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.show import json_option, show

if TYPE_CHECKING:
    from headcount.config import Home


@click.command(short_help="Start the daemon.")
@json_option
def up(*, as_json: bool) -> None:
    """Start the daemon and answer when it takes connections. It also starts on first need.

    The daemon serves MCP and watches; correctness never depends on it.
    """
    with fleets.opened() as fleet:
        found = fleet.up()
        facts = {
            "running": True,
            "started": found.changed,
            "pid": found.pid,
            "socket": found.socket,
            **_port(fleet.context.home),
        }
    state = "started" if found.changed else "was running already"
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
    with fleets.opened() as fleet:
        found = fleet.down()
    pid, live = found.pid, found.live_agents
    facts = {"running": False, "stopped_pid": pid, "live_agents": live}
    state = f"the daemon, pid {pid}, has ended" if pid else "no daemon was running"
    still = f"live agents, which go on: {live}; 'headcount halt' ends them" if live else "no agent is live"
    show(facts, as_json=as_json, text=lambda: f"{state}; {still}")


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
