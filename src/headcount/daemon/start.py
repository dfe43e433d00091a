"""Find, start and stop the daemon. Light: the bridge and every deploy use it.

What an agent starts dies with the agent; the daemon does not, for a runner spares who holds the lock.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Protocol

from headcount.daemon import lock
from headcount.domain.errors import Infrastructure

OUR_CONTRACT = ("AGENT_ID", "RUN", "TASK_ID", "TOKEN", "SOCKET")
"""Variables of an agent: a daemon that has one of these would take itself for that agent."""
KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "SSL_CERT_FILE",
)
POLL = 0.01


class Place(Protocol):
    """What must be known of a home: `config.Home` is one."""

    @property
    def root(self) -> str | os.PathLike[str]: ...
    @property
    def daemon_lock(self) -> str | os.PathLike[str]: ...
    @property
    def daemon_log(self) -> str | os.PathLike[str]: ...
    @property
    def daemon_socket(self) -> str | os.PathLike[str]: ...


def holder(home: Place) -> int | None:
    """Return the daemon's pid, None if none runs. Never to be called by the daemon itself."""
    return lock.holder(os.fspath(home.daemon_lock))


def ensure(home: Place, environ: Mapping[str, str] | None = None) -> bool:
    """Start the daemon if none runs, without waiting for it; return whether one was started.

    Two at once do no harm: the second finds the lock held and exits.
    """
    environ = os.environ if environ is None else environ
    if "HEADCOUNT_AGENT_ID" in environ or holder(home) is not None:
        return False
    spawn(home, environ)
    return True


def ensure_from_inside(home: Place, environ: Mapping[str, str]) -> bool:
    """Start the daemon from within an agent's tree if none runs; return whether one was started.

    It outlives the agent, and gets no setting of the agent's making. Not out of a sandbox, of which every
    later deploy would be part: we must be as free as the agent's runner, which is outside of any.
    """
    from headcount.runtimes import confined

    run = f"{environ.get('HEADCOUNT_AGENT_ID')}.{environ.get('HEADCOUNT_RUN')}"
    runner = lock.holder(os.path.join(os.fspath(home.root), "live", run, "lock"))
    if holder(home) is not None or runner is None or not confined.is_free_as(runner):
        return False
    spawn(home, {name: value for name, value in environ.items() if not name.startswith("HEADCOUNT_")})
    return True


def spawn(home: Place, environ: Mapping[str, str]) -> None:
    """Start a daemon in a session of its own. The shell between us and it exits at once, so that it is
    nobody's child and leaves nobody a zombie.

    Raises:
        Infrastructure: it cannot be started.
    """
    script = 'exec "$@" &'
    argv = (
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        "-P",
        "-m",
        "headcount.daemon",
        "--home",
        os.fspath(home.root),
    )
    log = os.fspath(home.daemon_log)
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            argv,
            scrubbed(environ),
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE),
        )
    except OSError as error:
        raise Infrastructure(
            f"the daemon cannot be started with its log in {log}: {error.strerror}",
            hint="make that directory one that you can write to, or set HEADCOUNT_HOME",
        ) from error
    os.waitpid(pid, 0)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the daemon gets of its starter's environment: where things are, and settings. No agent
    ever gets a variable from it."""
    ours = {name: value for name, value in environ.items() if name.startswith("HEADCOUNT_")}
    contract = {f"HEADCOUNT_{name}" for name in OUR_CONTRACT}
    kept = {name: environ[name] for name in KEPT if name in environ}
    return {**kept, **{name: value for name, value in ours.items() if name not in contract}}


def wait_ready(home: Place, timeout: float = 10.0) -> bool:
    """Wait until the daemon takes connections; False if it does not in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not _answers(os.fspath(home.daemon_socket)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(1.0)
        try:
            tried.connect(path)
        except OSError:
            return False
        return True


def stop(home: Place, timeout: float = 5.0) -> bool:
    """End the daemon, agents untouched; True if none runs any more."""
    deadline = time.monotonic() + timeout
    asked: int | None = None
    while (pid := holder(home)) is not None:
        if pid != asked:
            _terminate(pid)
            asked = pid
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def take_from(home: Place, patience: float = 1.0) -> lock.Held | None:
    """End the daemon and take its lock; None if it does not end. Of the two locks of a dying process the
    second is free a moment after the first."""
    if not stop(home):
        return None
    deadline = time.monotonic() + patience
    while (held := lock.acquire(os.fspath(home.daemon_lock))) is None and time.monotonic() < deadline:
        time.sleep(POLL)
    return held


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
