"""Keeps a daemon up, as a service manager does: dying_daemons.py --home HOME

For each line of standard input, a number, the daemon is ended and the next one kills itself before that SQL
statement of its life; -1: it lives. When it has, "died" is said and another one started, which lives. Each is
forked from this process, which has imported everything and opened nothing.
"""

import os
import select
import signal
import sys
import threading
from typing import Any

from headcount.daemon import program, serve
from headcount.store.registry import Registry

__all__ = ["serve"]  # imported before a fork, not in it
wake, woken = os.pipe()
os.set_blocking(woken, False)
signal.set_wakeup_fd(woken)
signal.signal(signal.SIGCHLD, lambda *_: None)


def start(at: int) -> int:
    pid = os.fork()
    if pid == 0:
        os.close(0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        count_statements(at)
        os._exit(program.main(sys.argv[1:]))
    return pid


def count_statements(at: int) -> None:
    make, mutex, seen = Registry.__init__, threading.Lock(), [0]

    def statement(_: str) -> None:
        with mutex:
            if seen[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1

    def counted(self: Registry, *args: Any, **given: Any) -> None:
        make(self, *args, **{**given, "on_statement": statement})

    Registry.__init__ = counted  # type: ignore[method-assign]


def end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


daemon = start(-1)
while True:
    ready, _, _ = select.select([0, wake], [], [])
    if wake in ready:
        os.read(wake, 4096)
        gone, status = os.waitpid(daemon, os.WNOHANG)
        if gone:
            print("died", flush=True)
            daemon = start(-1)
    if 0 in ready:
        line = os.read(0, 64)
        end(daemon)
        if not line:
            break
        daemon = start(int(line))
        print("started", flush=True)
