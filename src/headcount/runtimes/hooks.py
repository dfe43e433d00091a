"""Tells somebody outside: by a program, by an HTTP POST, or on the desktop. Each within a bounded time."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import html
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from headcount.domain.errors import Infrastructure
from headcount.domain.notices import Hook, How

if TYPE_CHECKING:
    from http.client import HTTPConnection

PATIENCE: Final = 10.0
"""Seconds for each answer of a server."""
WHOLE: Final = 30.0
"""Seconds for all of one POST, however slowly the answer drips."""
COMMAND_TIME: Final = 30.0
"""Seconds that a program may take."""
SECRET_MAX: Final = 4096
WORDS_MAX: Final = 300
DESKTOP: Final = "notify-send"
_KEPT: Final = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "HEADCOUNT_HOME",
)
"""What a program of a hook gets of our environment."""


class Untold(Infrastructure):
    """A hook was not told; `message` says why, in its own words if it gave some."""

    code = "notify_failed"


def tell(hook: Hook, facts: Mapping[str, object], environ: Mapping[str, str]) -> None:
    """Tell a hook, once.

    Raises:
        Untold: it did not take it, or nobody knows whether it did.
    """
    body = json.dumps(facts).encode()
    env = {name: environ[name] for name in _KEPT if name in environ}
    if hook.how is How.WEBHOOK:
        _post(hook, body)
    elif hook.how is How.COMMAND:
        _run(hook.command, body, env)
    else:
        text = html.escape(str(facts["text"]), quote=False)
        _run((DESKTOP, "--app-name=headcount", "--", "Headcount", text), b"", _with_bus(env))


def wrong(hook: Hook, environ: Mapping[str, str]) -> str:
    """Return what can be seen to be wrong with a hook without telling it anything; nothing: all is well."""
    try:
        if hook.how is How.WEBHOOK:
            _secret(hook)
        else:
            _program(hook.command[0] if hook.command else DESKTOP, environ)
    except Untold as error:
        return error.message
    return ""


# ---------------------------------------------------------------- programs


def _program(name: str, environ: Mapping[str, str]) -> str:
    found = shutil.which(os.path.expanduser(name), path=environ.get("PATH"))
    if found is None:
        raise Untold(f"there is no program {name}")
    return found


def _run(argv: Sequence[str], body: bytes, env: Mapping[str, str]) -> None:
    """Run a program to its end; what it has started is ended with it."""
    program = _program(argv[0], env)
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                (program, *argv[1:]),
                cwd="/",
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise Untold(f"{argv[0]} cannot be run: {error}") from error
        with process:
            try:
                process.communicate(body, timeout=COMMAND_TIME)
            except subprocess.TimeoutExpired:
                raise Untold(f"{argv[0]} did not end in {COMMAND_TIME:.0f} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            size = said.seek(0, os.SEEK_END)
            said.seek(max(0, size - WORDS_MAX))
            words = " ".join(said.read().decode("utf-8", "replace").split())
            raise Untold(f"{argv[0]} ended with {process.returncode}" + (f": {words}" if words else ""))


def _with_bus(env: Mapping[str, str]) -> dict[str, str]:
    """Name the bus of the user's session where the environment does not; the daemon's does not."""
    bus = f"{env.get('XDG_RUNTIME_DIR', '')}/bus"
    if "DBUS_SESSION_BUS_ADDRESS" in env or not os.path.exists(bus):
        return dict(env)
    return {**env, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}


# ---------------------------------------------------------------- webhooks


def _post(hook: Hook, body: bytes) -> None:
    import http.client  # only here: it takes 20 ms

    parts = urlsplit(hook.url)
    headers = {"Content-Type": "application/json", "User-Agent": "headcount"}
    if (secret := _secret(hook)) is not None:
        headers["X-Headcount-Signature"] = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    cut = threading.Timer(WHOLE, _cut, (connection,))
    cut.daemon = True
    cut.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Untold(
            f"{parts.hostname} does not answer: {str(error)[:WORDS_MAX] or type(error).__name__}"
        ) from error
    finally:
        cut.cancel()
        connection.close()
    if not 200 <= status < 300:
        raise Untold(f"{parts.hostname} answered {status}")


def _cut(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _secret(hook: Hook) -> bytes | None:
    """Return what signs, from a file that nobody else may read."""
    if not hook.secret_file:
        return None
    path = os.path.expanduser(hook.secret_file)
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or found.st_uid not in (os.getuid(), 0):
                raise Untold(f"the secret file {path} is not private to you", hint=f"chmod 600 {path}")
            secret = file.read(SECRET_MAX).strip()
    except OSError as error:
        raise Untold(f"the secret file {path} cannot be read: {error.strerror}") from error
    if not secret:
        raise Untold(f"the secret file {path} is empty")
    return secret
