"""A run's tmux session: a window onto an agent, never its supervisor.

One private server per registry. A session is made beside the caller's path and ends by itself with the
runner; losing it, or the server, costs a window. Nothing that a user wrote reaches tmux but the path of
the run directory, as one word of the command that a session runs, which tmux does not interpret.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import sys
from _thread import get_ident
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headcount.domain.errors import Infrastructure, InvalidInput
from headcount.domain.ids import check_id
from headcount.domain.model import RunKey
from headcount.runtimes import precedence, system, terminal
from headcount.runtimes.base import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

HOW_TO_GET_TMUX: Final = "apt install tmux, dnf install tmux or brew install tmux"
SOCKET_PATH_MAX: Final = 103
"""Bytes of a Unix socket path on macOS (104 with the NUL); Linux has 107."""

DESCRIPTORS: Final = 4096
"""What the server's soft limit is raised to. It holds one descriptor per session, and 3.3a hung with a
full core at 51 sessions under a limit of 64. More sessions than pseudo-terminals (4096) cannot be."""
SPARE_DESCRIPTORS: Final = 64
CLIENT_SECONDS: Final = 30
"""After which a client that makes a session gives up on a server that does not answer."""
PATIENCE: Final = 1.0
"""Seconds that a view waits for deploys under way, at most: one of them may be stopped."""
STOPPED_SECONDS: Final = 0.25
"""After which a server that has not answered is looked at: one that is stopped (SIGSTOP) will not."""
CLIENTS_MAX: Final = 200
"""Unfinished clients of one process; beyond them the oldest is ended (where there is no `timeout`)."""

TYPING: Final = "typing"
"""The table of keys of a session whose keys are the agent's."""

_ENV: Final = ("PATH", "HOME", "USER", "LOGNAME", "TZ")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_VIEW: Final = os.path.join(os.path.dirname(__file__), "view", "view.sh")
_LIST_FORMAT: Final = "#{session_created} #{session_name}"

_CLIENT: Final = """\
cd / || exit
ulimit -S -n "$1" 2>/dev/null
limit=$2 deploys=$3 patience=$4
shift 4
[ -z "$deploys" ] || flock -w "$patience" 9 9>>"$deploys"
command -v timeout >/dev/null && exec timeout -k 1 "$limit" "$@"
exec "$@"
"""
"""Starts a tmux client that may have to start the server, which keeps the directory and the descriptor
limit of whoever started it. It waits for deploys under way where there is a program that can (util-linux)."""

_CONFIG: Final = """\
# Written by Headcount for its private tmux server; changes are overwritten.
set -s exit-empty off
set -s set-clipboard off
set -s escape-time 50
set -g update-environment ""
set -g default-size {width}x{height}
set -g history-limit {history}
set -g remain-on-exit off
set -g allow-rename off
set -g automatic-rename off
set -g set-titles off
set -g bell-action none
set -g mouse on
set -g assume-paste-time 0
set -g status-left " #{{session_name}} "
set -g status-left-length 66
set -g status-right " q: leave   PgUp: scroll "
set -g window-status-format ""
set -g window-status-current-format ""
set-hook -g session-created 'set-option -w window-size manual'
set-hook -ga session-created 'if-shell -F "#{{e|>:#{{n:#{{S:x}}}},{max_views}}}" "kill-session"'
unbind-key -a -T root
unbind-key -a -T prefix
bind-key -T root q detach-client
bind-key -T root C-c detach-client
bind-key -T prefix d detach-client
bind-key -T root PPage copy-mode -eu
bind-key -T root WheelUpPane copy-mode -e
bind-key -T root Any ''
bind-key -T prefix C-b send-prefix
bind-key -T prefix PPage copy-mode -eu
bind-key -T typing WheelUpPane if-shell -F "#{{mouse_any_flag}}" "send-keys -M" "copy-mode -e"
"""
"""Keys leave or scroll; any other does nothing, also where it comes as fast as a paste, so that nobody types
into a view. A read-only client would be simpler, but it cannot scroll.
The size is made manual per window: 3.3a segfaults at the first session if it is so globally.
`#{{n:#{{S:x}}}}` counts the sessions (an x for each): 3.3a has no variable for it."""


class NoViews:
    """Stands in where views are not wanted or cannot be had; everything else works without them."""

    def __init__(self, reason: str = f"tmux is not installed: {HOW_TO_GET_TMUX}") -> None:
        self._reason = reason

    def available(self) -> str | None:
        return self._reason

    def list(self) -> Sequence[Session] | None:
        """Return no session: there is no server that could have one."""
        return ()

    def show(
        self, key: RunKey, path: str, *, runner_pid: int, renders: bool, interactive: bool = False
    ) -> None:
        """Show nothing."""

    def held_back(self) -> contextlib.AbstractContextManager[None]:
        """Hold nothing back."""
        return contextlib.nullcontext()

    def hide(self, name: str) -> None:
        """Hide nothing."""
        _check_name(name)

    def close(self, name: str) -> bool:
        """Return that the session is gone: it never was."""
        _check_name(name)
        return True

    def shut(self) -> None:
        """There is no server to end."""

    def attach_argv(self, name: str, *, interactive: bool = False) -> Sequence[str]:
        """Refuse.

        Raises:
            Infrastructure: there is no window to show.
        """
        raise Infrastructure(f"there is no view of {_check_name(name)}: {self._reason}")


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    out: str
    err: str


class TmuxViews:
    """Views as sessions of one private tmux server.

    Of `env` the server and its clients get what they need to find programs, no more. `portable` makes the
    views do without GNU's tail, as on macOS; by default they find out.
    """

    def __init__(
        self,
        socket: str,
        *,
        tmux: str,
        env: Mapping[str, str],
        timeout: float = 2.0,
        max_views: int = 1000,
        portable: bool = False,
        deploys: str | None = None,
    ) -> None:
        self._socket = socket
        self._tmux = tmux
        self._env = _client_env(env)
        self._timeout = timeout
        self._descriptors = _descriptors()
        self._max_views = max(1, min(max_views, self._descriptors - SPARE_DESCRIPTORS))
        self._how = ("portable",) if portable else ()
        self._deploys = deploys
        self._clients: dict[int, None] = {}  # in order of their start; threads may add and take at once
        self._wedged = False  # the last question had no answer

    def available(self) -> str | None:
        """Return None if views can be made, else why not; starts nothing."""
        if not os.access(self._tmux, os.X_OK):
            return f"tmux is not at {self._tmux}: {HOW_TO_GET_TMUX}"
        if len(os.fsencode(self._socket)) > SOCKET_PATH_MAX:
            return f"the socket path is longer than {SOCKET_PATH_MAX} bytes: {self._socket}"
        return _why_not_private(os.path.dirname(self._socket))

    def list(self) -> Sequence[Session] | None:
        """Return all sessions in one call; an absent server is the empty answer, None means unknown."""
        self._reap()
        if not os.path.lexists(self._socket):
            return ()
        answer = self._ask("list-sessions", "-F", _LIST_FORMAT)
        if answer is None:
            return None
        if answer.code:
            return () if _no_server(answer.err) else None
        try:
            return tuple(_session(line) for line in answer.out.splitlines())
        except ValueError:
            return None

    def show(
        self, key: RunKey, path: str, *, runner_pid: int, renders: bool, interactive: bool = False
    ) -> None:
        """Make the session of a live run, beside the caller's path: it does not wait for it.

        A session that is there already stays as it is. What the system refuses (no process, no disk)
        shows in the next `list` only: an agent does not suffer for its window.

        Raises:
            InvalidInput: the agent id cannot be a session's name, or the pid not a runner's.
        """
        self._reap()
        name = _check_name(key.agent_id)
        if runner_pid <= 1:
            raise InvalidInput(f"{runner_pid} is not the pid of a runner")
        if self.available() is not None:
            return
        what = "transcript" if renders else "output"
        # "/." because a last word that ended in ";" would be the end of a command to tmux.
        view = ("/bin/sh", _VIEW, f"{path}/.", str(runner_pid), what, *self._how)
        keys: tuple[str, ...] = ()
        if interactive:
            view = terminal.window(path, runner_pid)
            keys = (";", "set-option", "-t", f"={name}:", "key-table", TYPING)
        with contextlib.suppress(OSError):
            config = self._write_config()
            self._start("-f", config, "new-session", "-d", "-s", name, "-n", "view", "-c", "/", *view, *keys)

    def hide(self, name: str) -> None:
        """Close exactly this session, beside the caller's path: it does not wait for it.

        Raises:
            InvalidInput: the name cannot be a session's.
        """
        _check_name(name)
        self._reap()
        if os.path.lexists(self._socket) and not self._wedged:
            with contextlib.suppress(OSError):
                self._start("-N", "kill-session", "-t", f"={name}")

    def held_back(self) -> contextlib.AbstractContextManager[None]:
        """Have the views of other deploys wait while the body runs, a second at most."""
        return precedence.deploying(self._deploys) if self._deploys else contextlib.nullcontext()

    def close(self, name: str) -> bool:
        """Close exactly this session; return whether it is gone.

        A server that did not answer is not asked again before a `list` had an answer: whoever closes
        twenty waits for one time-out, not for twenty.

        Raises:
            InvalidInput: the name cannot be a session's.
        """
        _check_name(name)
        self._reap()
        if not os.path.lexists(self._socket):
            return True
        if self._wedged:
            return False
        answer = self._ask("kill-session", "-t", f"={name}")
        if answer is None:
            return False
        return answer.code == 0 or "can't find session" in answer.err or _no_server(answer.err)

    def shut(self) -> None:
        self._ask("kill-server")

    def attach_argv(self, name: str, *, interactive: bool = False) -> Sequence[str]:
        """Return the command that shows the session in the user's terminal. An `interactive` one then has the
        size of that.

        It must not start a server, which would have the user's environment and settings.

        Raises:
            InvalidInput: the name cannot be a session's.
        """
        target = f"={_check_name(name)}"
        outside = ("env", "-u", "TMUX", "-u", "TMUX_PANE")  # else tmux refuses inside another tmux
        argv = (*outside, self._tmux, "-u", "-N", "-S", self._socket, "attach-session", "-t", target)
        if not interactive:
            return argv
        size = (";", "set-option", "-w", "-t", f"{target}:", "window-size", "latest")
        return (*argv, *size, ";", "set-option", "-t", f"{target}:", "status-right", " Ctrl-B D: leave ")

    def _ask(self, *command: str) -> _Answer | None:
        """Run a tmux command that waits for its answer, never longer than the time-out; None: no answer."""
        import subprocess  # 6 ms that a deploy, which only shows, does not need

        argv = (self._tmux, "-u", "-N", "-S", self._socket, *command)
        try:
            client = subprocess.Popen(
                argv,
                env=self._env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError:
            self._wedged = False
            return None
        with client:
            try:
                said = self._answer_of(client)
            finally:
                client.kill()  # of no effect on one that has ended
        self._wedged = said is None
        return said and _Answer(client.returncode, *(words.decode(errors="replace") for words in said))

    def _answer_of(self, client: subprocess.Popen[bytes]) -> tuple[bytes, bytes] | None:
        """Return what a client says in time; None as soon as it is clear that nothing will come."""
        import subprocess

        for patience in (min(STOPPED_SECONDS, self._timeout), self._timeout - STOPPED_SECONDS):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return client.communicate(timeout=patience)
            if _is_stopped(_listener(self._socket)):
                return None
        return None

    def _start(self, *command: str) -> None:
        """Start a tmux client, and with it the server if there is none, and leave it alone."""
        client = (self._tmux, "-u", "-S", self._socket, *command)
        wait_for = self._deploys if self._deploys and precedence.under_way(self._deploys) else ""
        limits = (str(self._descriptors), str(CLIENT_SECONDS), wait_for, str(PATIENCE))
        argv = ("sh", "-c", _CLIENT, "sh", *limits, *client)
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        pid = os.posix_spawn(
            "/bin/sh",
            argv,
            self._env,
            file_actions=null,
            setpgroup=0,  # a Ctrl-C in the caller's terminal is not meant for it
            setsigmask=(),
            setsigdef=(signal.SIGHUP, signal.SIGINT, signal.SIGPIPE),
        )
        self._clients[pid] = None

    def _write_config(self) -> str:
        """Return the path of the server's settings, written if they are not there as they should be."""
        path = f"{self._socket}.conf"
        text = _CONFIG.format(width=120, height=40, history=500, max_views=self._max_views)
        if _read(path) != text:
            passing = f"{path}.{os.getpid()}.{get_ident()}"
            fd = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(passing, path)
        return path

    def _reap(self) -> None:
        """Collect the clients that have finished, so that a long life leaves no zombies."""
        for pid in tuple(self._clients):
            if _finished(pid):
                self._clients.pop(pid, None)
        for pid in tuple(self._clients)[:-CLIENTS_MAX]:
            os.kill(pid, signal.SIGKILL)  # not waited for yet, so the pid is still this client's


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} cannot be the name of a view",
            hint="a view is named after its agent: 1 to 64 of A-Z a-z 0-9 _ -",
        )
    return name


def _client_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return what tmux gets: messages in English, UTF-8, and no secret of whoever started the server."""
    kept = {name: env[name] for name in _ENV if name in env}
    utf8 = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
    return {"PATH": os.defpath, **kept, "LANG": "C", "LC_CTYPE": utf8}


def _descriptors() -> int:
    """Return the soft limit that the server gets: as many as wanted, or as many as allowed."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)


def _why_not_private(directory: str) -> str | None:
    """Say why the socket must not be in this directory: whoever can write there can take its place."""
    try:
        status = os.stat(directory)
    except OSError as error:
        return f"the directory of the view server is not there: {error}"
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        return f"others can write in {directory}: chmod 700 it"
    return None


def _no_server(words: str) -> bool:
    """Say whether tmux found no server: nothing listens at the socket, or there is no socket."""
    return "no server running" in words or ("error connecting" in words and "No such file" in words)


def _session(line: str) -> Session:
    created, name = line.split(" ", 1)
    try:
        agent_id: str | None = check_id("agent", name)
    except InvalidInput:
        agent_id = None
    return Session(name=name, agent_id=agent_id, created_at=float(created))


def _listener(path: str) -> int | None:
    """Return the pid of who listens at a Unix socket, None where the system does not tell."""
    import socket
    import struct

    if not hasattr(socket, "SO_PEERCRED"):
        return None
    with socket.socket(socket.AF_UNIX) as tried:
        tried.setblocking(False)  # a stopped server's queue may be full
        try:
            tried.connect(path)
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", tried.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)


def _is_stopped(pid: int | None) -> bool:
    if not pid:
        return False
    try:
        found = system.proc_stat(pid)
    except OSError:
        return False
    return found is not None and found.state in ("T", "t")


def _finished(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # somebody waited for all children of this process
        return True


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None
