"""`headcount service`: have systemd keep the daemon alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.show import json_option, show

if TYPE_CHECKING:
    from headcount.services.answers import ServiceFacts

_LINGER: Final = (
    "your services end with your last session, and agents with them; 'loginctl enable-linger' keeps them"
)


@click.group(short_help="Have systemd keep the daemon alive.")
def service() -> None:
    """Have systemd keep the daemon alive: restart it if it crashes or hangs, and start it at each login.

    Agents need no daemon, and none of this ends one.
    """


@service.command(short_help="Install and start the unit.")
@json_option
def install(*, as_json: bool) -> None:
    """Write the systemd user unit of this home, enable it and start it; a daemon that runs makes room.

    Where systemd cannot be asked it says so, with exit code 5; 'service print' shows the unit.
    """
    with fleets.opened() as fleet:
        found = fleet.install_service()
    show(found, as_json=as_json, text=lambda: _facts(found))


@service.command(name="print", short_help="Print the unit.")
@json_option
def print_(*, as_json: bool) -> None:
    """Print the unit as 'service install' would write it. Changes nothing."""
    with fleets.opened() as fleet:
        found = fleet.get_service()
    if found.why and not as_json:
        click.echo(f"headcount: {found.why}; the unit is for another place", err=True)
    show(found, as_json=as_json, text=found.unit.rstrip)


@service.command(short_help="Stop and remove the unit; agents go on.")
@json_option
def remove(*, as_json: bool) -> None:
    """Stop the unit and take it away. Agents go on, and the daemon starts on need, as without it."""
    with fleets.opened() as fleet:
        found = fleet.remove_service()
    show(found, as_json=as_json, text=lambda: f"{found.name} is removed; agents go on")


@service.command(short_help="Show how the unit stands.")
@json_option
def status(*, as_json: bool) -> None:
    """Show whether the unit is installed, how it stands, and what it needs to outlive your sessions."""
    with fleets.opened() as fleet:
        found = fleet.get_service()
    show(found, as_json=as_json, text=lambda: _facts(found))


def _facts(found: ServiceFacts) -> str:
    if not found.installed:
        said = f"{found.name} is not installed"
    else:
        said = f"{found.name} is {found.state or 'installed'}, {found.path}"
    lines = [said]
    if found.installed and not found.current:
        lines.append("it is not as it would be written now; 'headcount service install' writes it anew")
    if found.why:
        lines.append(found.why)
    elif not found.lingers:
        lines.append(_LINGER)
    return "\n".join(lines)
