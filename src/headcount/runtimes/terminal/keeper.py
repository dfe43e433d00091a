"""The keeper: holds the terminal of an agent that a person talks to, for as long as the agent lives.

A program of its own, the first process of its run, with nothing but the standard library:

    python -I -S keeper.py RUN_DIRECTORY PROGRAM ARGUMENT ...

What appears on the terminal goes to standard output, which the runner keeps, and to every window; the last
of it is kept for those that come later. Windows come by the socket `terminal` in the run directory, and say
frames: a letter, four digits of length in hexadecimal, and as many bytes. `k` has keys, `s` the window's size
as `ROWS COLUMNS`. They are said what appears, as it is.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import selectors
import signal
import socket
import sys
import termios
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOCKET = "terminal"
KEPT = 256 * 1024  # bytes of what appeared, for a window that comes later
BEHIND = 4 * 1024 * 1024  # bytes that a window may be behind; then it is let go, and comes again
TYPED = 1024 * 1024  # bytes of keys that the agent has not taken yet
HEAD = 5
SIZE = (40, 120)  # as long as no window says another
CHUNK = 65_536
# What Python ignores, and what a shell or nohup makes those ignore that it starts: exec would hand it on.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class Window:
    """One window, as the keeper sees it."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.said = b""  # of a frame that is not there as a whole
        self.behind = bytearray()

    def frames(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the whole frames of what it says.

        Raises:
            ValueError: it says something else.
        """
        self.said += data
        while len(self.said) >= HEAD:
            end = HEAD + int(self.said[1:HEAD], 16)
            if len(self.said) < end:
                return
            yield self.said[:1], self.said[HEAD:end]
            self.said = self.said[end:]


class Keeper:
    """The terminal, the agent on it, and the windows."""

    def __init__(self, directory: str, argv: Sequence[str]) -> None:
        self.master, ours = os.openpty()
        resize(self.master, *SIZE)
        self.size = SIZE
        self.agent = start(argv, self.master, ours)
        os.close(ours)
        os.set_blocking(self.master, False)
        os.chdir(directory)  # a socket's path may have a hundred bytes; from here it has eight
        self.listener = listen()
        self.kept: deque[bytes] = deque()
        self.held = 0
        self.windows: dict[object, Window] = {}
        self.keys = bytearray()
        self.status: int | None = None
        self.choose = selectors.DefaultSelector()
        self.choose.register(self.master, selectors.EVENT_READ)
        if self.listener is not None:
            self.choose.register(self.listener, selectors.EVENT_READ)
        self.wake = waking()
        self.choose.register(self.wake, selectors.EVENT_READ)

    def keep(self) -> int:
        """Keep the terminal until the agent has ended; return its wait status."""
        while self.status is None:
            for key, events in self.choose.select():
                self.serve(key.fileobj, events)
        while self.show():
            continue  # its last words
        self.part()
        return self.status

    def serve(self, what: object, events: int) -> None:
        if what == self.master:
            if events & selectors.EVENT_WRITE:
                self.type()
            if events & selectors.EVENT_READ:
                self.show()
        elif what == self.wake:
            self.woken()
        elif self.listener is not None and what is self.listener:
            self.welcome(self.listener)
        elif what in self.windows:
            if events & selectors.EVENT_WRITE:
                self.flush(self.windows[what])
            if events & selectors.EVENT_READ and what in self.windows:
                self.hear(self.windows[what])

    # the agent

    def show(self) -> bool:
        """Pass on what appears; return whether there was anything."""
        try:
            data = os.read(self.master, CHUNK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return False
            data = b""  # EIO: nobody has the terminal open any more
        if not data:
            with contextlib.suppress(KeyError):
                self.choose.unregister(self.master)
            return False
        write_all(1, data)
        self.remember(data)
        for window in tuple(self.windows.values()):
            self.tell(window, data)
        return True

    def remember(self, data: bytes) -> None:
        self.kept.append(data)
        self.held += len(data)
        while self.held > KEPT and len(self.kept) > 1:
            self.held -= len(self.kept.popleft())

    def type(self) -> None:
        """Let the agent have keys, as many as it takes."""
        try:
            del self.keys[: os.write(self.master, self.keys)]
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self.keys.clear()
        self.attend()

    def attend(self) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.keys else 0)
        with contextlib.suppress(KeyError):
            self.choose.modify(self.master, events)

    def woken(self) -> None:
        signals = os.read(self.wake, CHUNK)
        if signal.SIGTERM in signals or signal.SIGHUP in signals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.agent, signal.SIGHUP)  # a shell heeds no SIGTERM, but this
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.agent, os.WNOHANG)
            if pid:
                self.status = status

    # the windows

    def welcome(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            link, _ = listener.accept()
            link.setblocking(False)
            self.windows[link] = Window(link)
            self.choose.register(link, selectors.EVENT_READ)
            for data in tuple(self.kept):
                if link in self.windows:
                    self.tell(self.windows[link], data)

    def tell(self, window: Window, data: bytes) -> None:
        window.behind += data
        self.flush(window)
        if len(window.behind) > BEHIND:
            self.leave(window)

    def flush(self, window: Window) -> None:
        try:
            while window.behind:
                del window.behind[: window.link.send(window.behind)]
        except BlockingIOError:
            pass
        except OSError:
            self.leave(window)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if window.behind else 0)
        with contextlib.suppress(KeyError):
            self.choose.modify(window.link, events)

    def hear(self, window: Window) -> None:
        try:
            data = window.link.recv(CHUNK)
            frames = list(window.frames(data))
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, frames = b"", []
        if not data:
            self.leave(window)
        for kind, content in frames:
            if kind == b"k" and len(self.keys) < TYPED:
                self.keys += content
                self.attend()
            elif kind == b"s":
                self.fit(content)

    def fit(self, content: bytes) -> None:
        """Take on the size of the window that spoke last. One that has it already is new, and wants to see
        the whole picture: an agent draws it anew when the size changes."""
        words = content.split()
        if len(words) != 2 or not all(word.isdigit() and 0 < int(word) < 10_000 for word in words):
            return
        size = (int(words[0]), int(words[1]))
        if size == self.size:
            resize(self.master, size[0], size[1] + 1)
        resize(self.master, *size)
        self.size = size

    def leave(self, window: Window) -> None:
        if self.windows.pop(window.link, None) is not None:
            with contextlib.suppress(KeyError):
                self.choose.unregister(window.link)
            window.link.close()

    def part(self) -> None:
        for window in tuple(self.windows.values()):
            window.link.setblocking(True)
            with contextlib.suppress(OSError):
                window.link.settimeout(1.0)
                window.link.sendall(window.behind)
            window.link.close()
        with contextlib.suppress(OSError):
            os.unlink(SOCKET)


def start(argv: Sequence[str], master: int, ours: int) -> int:
    """Start the agent on the terminal; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(master)
        os.login_tty(ours)
        for number in IGNORED:
            signal.signal(number, signal.SIG_DFL)
        os.execvp(argv[0], list(argv))  # noqa: S606  # no shell, on purpose
    except OSError as error:
        os.write(2, f"{argv[0]} cannot be started: {error.strerror}\r\n".encode())
    finally:
        os._exit(127)


def listen() -> socket.socket | None:
    """Return the socket for windows; None where there can be none: the agent works all the same."""
    with contextlib.suppress(OSError):
        os.unlink(SOCKET)
    before = os.umask(0o177)
    try:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.bind(SOCKET)
        found.listen(16)
        found.setblocking(False)
    except OSError:
        return None
    finally:
        os.umask(before)
    return found


def waking() -> int:
    """Return a descriptor that has a byte for each signal."""
    wake, end = os.pipe()
    for fd in (wake, end):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.write(end, bytes([signal.SIGCHLD]))  # it may have ended before anybody listened
    return wake


def resize(fd: int, rows: int, columns: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, array.array("H", [rows, columns, 0, 0]))


def write_all(fd: int, data: bytes) -> None:
    """Write to the runner, which reads; when it is gone, the run is over."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


def main(argv: Sequence[str]) -> int:
    status = Keeper(argv[1], argv[2:]).keep()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # the runner is told what ended the agent
    return os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
