"""The daemon, as a person starts and stops it. Nothing depends on it but speed and the watch."""

from __future__ import annotations

from headcount.domain.errors import Infrastructure
from headcount.services import settle, stop
from headcount.services.answers import DaemonFacts
from headcount.services.context import Context


def up(context: Context) -> DaemonFacts:
    """Start the daemon if none runs; return when it answers."""
    stop.person_only(context, "start the daemon")
    began = context.daemon.start()
    if not context.daemon.ready():
        raise Infrastructure("the daemon does not answer", hint=f"{context.home.daemon_log} says why")
    return _facts(context, running=True, changed=began, pid=context.daemon_pid())


def down(context: Context) -> DaemonFacts:
    """End the daemon, and the view server if it has nothing to show."""
    stop.person_only(context, "stop the daemon")
    pid = context.daemon_pid()
    if not context.daemon.stop():
        raise Infrastructure(
            f"the daemon, pid {pid}, does not end", hint=f"{context.home.daemon_log} says why"
        )
    facts = _facts(context, running=False, changed=pid is not None, pid=pid)
    if not facts.live_agents:
        context.views.shut()
    return facts


def _facts(context: Context, *, running: bool, changed: bool, pid: int | None) -> DaemonFacts:
    settle.observe(context)
    with context.registry.read() as tx:
        live = len(tx.runs.live())
    return DaemonFacts(running, changed, pid, str(context.home.daemon_socket), live)
