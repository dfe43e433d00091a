"""An agent that is hard to end. `awkward.py MODE DIR`: every process of it notes its pid in DIR.

Run with `python -I -S`, so that it starts fast; it imports nothing but built-in modules.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MODE, PIDS = sys.argv[1], sys.argv[2]


def note() -> None:
    posix.close(posix.open(f"{PIDS}/{posix.getpid()}", posix.O_WRONLY | posix.O_CREAT))


def ready() -> None:
    """Say that everything is in place."""
    posix.close(posix.open(f"{PIDS}/ready", posix.O_WRONLY | posix.O_CREAT))


def stay() -> None:
    while True:
        time.sleep(60)


def fork() -> bool:
    """Return True in the child, which has noted itself before the parent goes on."""
    done, told = posix.pipe()
    if posix.fork():
        posix.close(told)
        posix.read(done, 1)
        posix.close(done)
        return False
    note()
    posix.write(told, b"x")
    posix.close(told)
    posix.close(done)
    return True


def daemonise(work: Callable[[], None] = stay) -> None:
    """Start a process that is no child of ours, in a session of its own."""
    if fork():
        posix.setsid()
        if fork():
            work()
        posix._exit(0)
    posix.wait()


def ignore_term() -> None:
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)


def deaf() -> None:
    ignore_term()
    stay()


def clean() -> None:
    posix.execve("/bin/sleep", ["sleep", "600"], {})


def runaway() -> None:
    """Have a new pid every few milliseconds, for about ten seconds."""
    ignore_term()
    for _ in range(2000):
        if posix.fork():
            posix._exit(0)
        time.sleep(0.005)


def hydra(_number: int, _frame: object) -> None:
    """Answer a TERM with two more of us."""
    for _ in range(2):
        if fork():
            deaf()


def flood() -> None:
    line = b"x" * 8191 + b"\n"
    while True:
        posix.write(1, line)


def plain() -> None:
    stay()


def ignores_term() -> None:
    ignore_term()
    ready()
    stay()


def stops_itself() -> None:
    ready()
    posix.kill(posix.getpid(), _signal.SIGSTOP)


def daemonises() -> None:
    daemonise()
    ready()
    stay()


def leaves_a_daemon() -> None:
    daemonise(deaf)
    ready()
    posix._exit(3)


def leaves_a_clean_daemon() -> None:
    daemonise(clean)
    ready()
    posix._exit(0)


def runs_away() -> None:
    daemonise(runaway)
    ready()
    stay()


def grows_heads() -> None:
    _signal.signal(_signal.SIGTERM, hydra)
    ready()
    stay()


def floods() -> None:
    ready()
    flood()


def closes_stdio() -> None:
    for fd in (0, 1, 2):
        posix.close(fd)
    ready()
    stay()


def has_many() -> None:
    ignore_term()
    for _ in range(60):
        if fork():
            stay()
    ready()
    stay()


def has_a_stopped_child() -> None:
    if fork():
        posix.kill(posix.getpid(), _signal.SIGSTOP)
        stay()
    ready()
    stay()


def has_own_groups() -> None:
    if fork():
        posix.setpgid(0, 0)
        if fork():
            posix.setsid()
            deaf()
        stay()
    ready()
    stay()


note()
if MODE == "plain":
    ready()
globals()[MODE]()
