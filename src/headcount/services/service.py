"""The daemon as a service that the machine keeps alive: what that unit says, and having it installed."""

from __future__ import annotations

import os
from pathlib import Path

from headcount.domain.errors import Infrastructure
from headcount.domain.unit import unit_text
from headcount.services import stop
from headcount.services.answers import ServiceFacts
from headcount.services.context import Context, ServiceManager


def get(context: Context) -> ServiceFacts:
    """Return the unit of this home's daemon, and how it stands. Changes nothing."""
    manager, text = context.service_manager, _text(context)
    why, path = manager.why_not(), Path(manager.directory, manager.unit)
    installed = path.exists()
    return ServiceFacts(
        name=manager.unit,
        path=str(path),
        unit=text,
        installed=installed,
        current=installed and path.read_text("utf-8", "replace") == text,
        state="" if why else manager.state(),
        lingers=None if why else manager.lingers(),
        why=why,
    )


def install(context: Context) -> ServiceFacts:
    """Write the unit, enable and start it; a daemon that runs without it makes room.

    Raises:
        NotAllowed: an agent asks.
        Infrastructure: there is no service manager, or it could not start the daemon.
    """
    stop.person_only(context, "install the service")
    manager = _manager(context)
    manager.install(_text(context))
    return get(context)


def remove(context: Context) -> ServiceFacts:
    """Take the unit away, and end its daemon; agents are left as they are.

    Raises:
        NotAllowed, Infrastructure: as `install`.
    """
    stop.person_only(context, "remove the service")
    manager = _manager(context)
    manager.remove()
    return get(context)


def _manager(context: Context) -> ServiceManager:
    manager = context.service_manager
    why = manager.why_not()
    if why:
        raise Infrastructure(
            f"no service can be kept here: {why}",
            hint="'headcount service print' shows the unit; 'headcount up' starts the daemon without one",
        )
    return manager


def _text(context: Context) -> str:
    root = str(context.home.root)
    command = (*context.service_manager.command, "--home", root)
    return unit_text(command, home=root, path=context.caller.env.get("PATH", os.defpath))
