"""The life of the daemon's process: its lock, its surroundings, its sockets, its end.

Killed at any point it leaves: agents as they are, a lock that the kernel frees, and a socket file and
`daemon.json` that the next daemon replaces.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from headcount import __version__
from headcount.config import Home, default_root
from headcount.daemon import lock, start
from headcount.daemon.notify import Notifier
from headcount.domain.errors import EXIT_INFRASTRUCTURE, HeadcountError
from headcount.runtimes import cgroup, system

BACKLOG: Final = 512
"""A hundred bridges may connect in one moment."""
FILES: Final = 65_536
SWITCH_S: Final = 0.0005
"""How long a thread that computes (transcripts, accounts) keeps the interpreter from an answer that wants it
back, which happens ten times or so for each answer; of its own accord Python takes ten times that."""


class _Told(Exception):
    """SIGTERM or SIGINT came before there was a loop to take it."""


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="headcountd", description="Headcount's daemon: one for each registry."
    )
    parser.add_argument(
        "--home", type=Path, help="the state directory; default: HEADCOUNT_HOME, or the platform's"
    )
    chosen = parser.parse_args(argv).home
    home = Home((chosen or default_root(os.environ)).expanduser().absolute())
    if "HEADCOUNT_AGENT_ID" in os.environ:
        return _refuse("not within an agent's tree, where it would end with the agent")
    try:
        home.make()
        manager = Notifier.taken_from(os.environ)
        held = _acquire(home, by_manager=bool(manager))
        if held is None:
            return _refuse(f"process {start.holder(home) or '?'} serves {home.root} already")
        _settle_in(home)
        return _serve(home, held, manager)
    except _Told:
        return 0
    except HeadcountError as error:
        return _refuse(error.message)


def _acquire(home: Home, *, by_manager: bool) -> lock.Held | None:
    """Take the lock. The daemon of a service manager takes the place of one that somebody's need started."""
    held = lock.acquire(os.fspath(home.daemon_lock))
    return start.take_from(home) if held is None and by_manager else held


def _refuse(why: str) -> int:
    sys.stderr.write(f"headcountd: {why}\n")
    return EXIT_INFRASTRUCTURE


def _settle_in(home: Home) -> None:
    """Depend on nothing of the process that started us, and give nothing of it to an agent."""
    kept = start.scrubbed(os.environ)
    os.environ.clear()
    os.environ.update(kept, HEADCOUNT_HOME=os.fspath(home.root))
    os.chdir("/")
    os.umask(0o077)
    sys.setswitchinterval(SWITCH_S)
    if cgroup.is_ours():  # started from within an agent's tree: the agent's is killed with it
        system.set_apart(map(os.fsencode, cgroup.places()), 0)
    if os.getsid(0) != os.getpid():
        with contextlib.suppress(PermissionError):  # a group leader: started by hand in a terminal
            os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _told)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _told(number: int, frame: FrameType | None) -> None:
    raise _Told


def _serve(home: Home, held: lock.Held, manager: Notifier) -> int:
    gc.disable()  # while so much is loaded it would only take time; `serve` enables it again
    from headcount.daemon import serve  # imports the SDK: not before it is known that we are to run

    port = _port(home)
    try:
        _publish(home, port)  # before anybody can connect: who is answered also finds where else we are
        serve.run(home, held, lambda: [_socket(home), port], person_token(home), manager)
    finally:
        home.daemon_socket.unlink(missing_ok=True)
        home.daemon_facts.unlink(missing_ok=True)
    return 0


def _socket(home: Home) -> socket.socket:
    """Listen on the Unix socket. What lies there is a dead daemon's: we have the lock."""
    home.daemon_socket.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    made.bind(os.fspath(home.daemon_socket))
    os.chmod(home.daemon_socket, 0o600)
    made.listen(BACKLOG)
    return made


def _port(home: Home) -> socket.socket:
    """Listen on the port of earlier daemons, for clients have it in their settings; on another only if
    it is taken."""
    file = home.root / "port"
    try:
        wanted = int(os.environ.get("HEADCOUNT_PORT") or file.read_text())
    except (OSError, ValueError):
        wanted = 0
    for port in (wanted, 0):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("127.0.0.1", port))
        except OSError:
            made.close()
            continue
        made.listen(BACKLOG)
        _write(file, str(made.getsockname()[1]))
        return made
    raise OSError("no port of 127.0.0.1 can be had")


def person_token(home: Home) -> str:
    """Return the token that makes a request on the port the person's; made once, 0600."""
    file = home.root / "token"
    try:
        found = file.read_text().strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = secrets.token_urlsafe(32)
        _write(file, found)
    return found


def _publish(home: Home, port: socket.socket) -> None:
    """Say where we are, for `headcount up`, doctor and connect."""
    number = port.getsockname()[1]
    facts = {
        "pid": os.getpid(),
        "version": __version__,
        "socket": os.fspath(home.daemon_socket),
        "port": number,
        "url": f"http://127.0.0.1:{number}/mcp",
        "token_file": os.fspath(home.root / "token"),
    }
    _write(home.daemon_facts, json.dumps(facts))


_ANEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW


def _write(path: Path, text: str) -> None:
    """Replace a small private file in one step."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(new, _ANEW, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)
