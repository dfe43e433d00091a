"""The composition root: reads the environment and the clock, and picks the concretes."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headcount import config
from headcount.client import DaemonClient
from headcount.daemon import start as daemon
from headcount.domain.environment import NEVER_PREFIXES, select
from headcount.domain.errors import Infrastructure
from headcount.domain.model import Caller
from headcount.harnesses import catalogue, installed, program
from headcount.harnesses.base import Launch, Probe
from headcount.runtimes import terminal
from headcount.runtimes.base import Views
from headcount.runtimes.local import LocalPlacement
from headcount.runtimes.systemd import Systemd
from headcount.runtimes.tmux_view import NoViews, TmuxViews
from headcount.runtimes.worktrees import GitRepositories
from headcount.services.context import Context, Offered
from headcount.store.registry import Registry

if TYPE_CHECKING:
    from headcount.domain.notices import Hook


class SystemClock:
    """The machine's clocks and its source of chance."""

    def now(self) -> float:
        return time.time()

    def boottime(self) -> float:
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def monotonic(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def chance(self) -> int:
        return secrets.randbits(64)

    def token(self) -> str:
        return secrets.token_urlsafe(32)


def context(
    home: str | Path | None,
    given: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    on_statement: Callable[[str], None] | None = None,
    is_daemon: bool = False,
) -> Context:
    """Return a fleet on this machine, as the calling process may use it.

    The daemon never asks for its own lock: to open and close that file again would drop it.

    Raises:
        InvalidInput: a setting is wrong.
        Infrastructure: the home cannot be used.
    """
    environ = os.environ if environ is None else environ
    place = config.Home(config.default_root(environ) if home is None else Path(home).expanduser().absolute())
    place.make()
    settings = config.load(place, environ, given)
    clock = SystemClock()
    inside = bool(environ.get("HEADCOUNT_AGENT_ID"))
    token = environ.get("HEADCOUNT_TOKEN", "") if inside else None  # without one it is still no person
    return Context(
        home=place,
        settings=settings,
        registry=Registry(
            place.registry,
            place.registry_lock,
            quarantine=place.quarantine,
            backups=place.backups,
            wait=settings.registry_wait,
            clock=clock.now,
            on_statement=on_statement,
            traces=place.runs,
        ),
        placement=LocalPlacement(place),
        repositories=GitRepositories(environ),
        views=_views(place, settings, environ),
        clock=clock,
        harness=catalogue.find_of_run,
        known_harness=catalogue.find,
        offered=_offered,
        programs=OurPrograms(),
        on_terminal=on_terminal,
        harness_names=catalogue.names(),
        headcount=own_command(),
        caller=_caller(environ, settings),
        token=token,
        remote=_remote(place, environ, starts=settings.autostart) if inside else None,
        ensure_daemon=lambda: _ensure_daemon(place, environ, wanted=settings.autostart and not is_daemon),
        daemon_pid=lambda: os.getpid() if is_daemon else daemon.holder(place),
        daemon=OurDaemon(place),
        tell=lambda hook, facts: _tell(hook, facts, environ),
        hook_wrong=lambda hook: _hook_wrong(hook, environ),
        memory_kill=_memory_kill,
        service_manager=Systemd(environ, place.root, (sys.executable, "-P", "-m", "headcount.daemon")),
    )


def on_terminal(launch: Launch, run_path: str) -> Launch:
    """Return how to start the same on a terminal of its own, that windows can be opened onto."""
    argv = terminal.kept(launch.argv, run_path)
    return replace(launch, argv=argv, env={**terminal.ENV, **launch.env}, stdin=None)


def _offered() -> Sequence[Offered]:
    return [Offered(each.name, each.package, each.harness, each.why) for each in catalogue.every()]


class OurPrograms:
    """The agent programs of this machine."""

    def path(self, probe: Probe, *, env: Mapping[str, str], cwd: str) -> str:
        return program.find_program(probe.program, env=env, cwd=cwd, hint=probe.install)

    def version(self, path: str, probe: Probe, *, env: Mapping[str, str], asks: bool) -> str | None:
        found = installed.package_version(path, os.path.basename(probe.program))
        if found is not None or not asks:
            return found
        from headcount.runtimes import asked  # only here: it starts processes

        said = asked.version((path, *probe.version_args), path=env.get("PATH", program.DEFAULT_PATH))
        numbers = installed.parse_version(said or "")
        return ".".join(map(str, numbers)) or None

    def is_old(self, version: str, probe: Probe) -> bool:
        return installed.parse_version(version) < probe.oldest

    def logged_in(self, probe: Probe, *, env: Mapping[str, str]) -> bool | None:
        return installed.logged_in(probe, env=env)


def _tell(hook: Hook, facts: Mapping[str, object], environ: Mapping[str, str]) -> None:
    from headcount.runtimes import hooks  # only here: most commands tell nobody

    hooks.tell(hook, facts, environ)


def _hook_wrong(hook: Hook, environ: Mapping[str, str]) -> str:
    from headcount.runtimes import hooks  # only here, as above

    return hooks.wrong(hook, environ)


def _memory_kill(pids: Collection[int], within: float) -> str | None:
    from headcount.runtimes import kernel_log  # only here: post-mortems are seldom made

    return kernel_log.memory_kill(pids, within)


class OurDaemon:
    """The daemon of a home."""

    def __init__(self, home: config.Home) -> None:
        self._home = home

    def start(self) -> bool:
        return daemon.ensure(self._home)

    def ready(self) -> bool:
        return daemon.wait_ready(self._home)

    def stop(self) -> bool:
        return daemon.stop(self._home)


def _ensure_daemon(home: config.Home, environ: Mapping[str, str], *, wanted: bool) -> None:
    """Start the daemon if it is wanted and absent. Nothing depends on it: where it cannot be started,
    because the home cannot be written, the caller meets that himself."""
    if wanted:
        with suppress(Infrastructure):
            daemon.ensure(home, environ)


def own_command() -> tuple[str, ...]:
    """Return the argv prefix that runs our own command: the script beside this interpreter if it is
    there, for its directory goes into the agents' PATH."""
    beside = Path(sys.executable).parent / "headcount"
    if beside.exists():
        return (str(beside),)
    found = shutil.which("headcount")
    return (found,) if found else (sys.executable, "-m", "headcount")


def _caller(environ: Mapping[str, str], settings: config.Settings) -> Caller:
    """Return the calling process as a caller. All its variables are kept here, in memory: what an
    agent gets of them is selected at deploy, when its harness is known."""
    _, dropped = select(environ, names=settings.env)
    kept = {name: value for name, value in environ.items() if not name.startswith(NEVER_PREFIXES)}
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = ""  # it has been deleted
    return Caller(cwd=cwd, env=kept, dropped_env=dropped)


def _views(home: config.Home, settings: config.Settings, environ: Mapping[str, str]) -> Views:
    if not settings.views:
        return NoViews("views are switched off (setting views)")
    tmux = shutil.which("tmux", path=environ.get("PATH"))
    if tmux is None:
        return NoViews()
    return TmuxViews(str(home.tmux_socket), tmux=tmux, env=environ, deploys=str(home.gates / "deploys"))


def _remote(home: config.Home, environ: Mapping[str, str], *, starts: bool) -> DaemonClient:
    def wake() -> bool:
        with suppress(Infrastructure):
            return daemon.holder(home) is not None or (starts and daemon.ensure_from_inside(home, environ))
        return False

    return DaemonClient(home, environ, wake)
