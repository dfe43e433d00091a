"""The window: shows the terminal of an agent in the one where it is started, and passes on its keys.

A program of its own, what the tmux session of such an agent runs, with nothing but the standard library:

    python -I -S window.py RUN_DIRECTORY RUNNER_PID

Every key is the agent's, Ctrl-C too. It ends with the agent, or when nobody keeps the terminal any more.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import time
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SOCKET = "terminal"
CHUNK = 65_536
PATIENCE = 20.0  # seconds for the keeper to be there
PAUSE = 0.05


def connect(runner: int) -> socket.socket | None:
    """Return the link to the keeper, which may have just begun; None if there is none."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and alive(runner):
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(SOCKET)
        except OSError:
            link.close()
            time.sleep(PAUSE)
        else:
            return link
    return None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def frame(kind: bytes, content: bytes) -> bytes:
    return kind + b"%04x" % len(content) + content


def size() -> bytes:
    found = os.get_terminal_size(0)
    return frame(b"s", b"%d %d" % (found.lines, found.columns))


def relay(link: socket.socket, wake: int) -> None:
    """Pass on both ways until one of them ends."""
    link.sendall(size())
    while True:
        ready, _, _ = select.select([0, link.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, CHUNK)
            link.sendall(size())
        if link.fileno() in ready:
            shown = link.recv(CHUNK)
            if not shown:
                return
            write_all(1, shown)
        if 0 in ready:
            keys = os.read(0, 1024)
            if not keys:
                return
            link.sendall(frame(b"k", keys))


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def waking() -> int:
    """Return a descriptor that has a byte when the size changes."""
    wake, end = os.pipe()
    for fd in (wake, end):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    signal.signal(signal.SIGWINCH, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    return wake


def main(argv: Sequence[str]) -> int:
    os.chdir(argv[1])
    link = connect(int(argv[2]))
    if link is None:
        write_all(1, b"nobody keeps the terminal of this agent\r\n")
        return 1
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        with contextlib.suppress(OSError):
            relay(link, waking())
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
