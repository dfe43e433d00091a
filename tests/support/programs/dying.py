"""Does things to a fleet in processes that kill themselves at a boundary: for each line of standard input,
`[AT, HOME, CODE, GIVEN]`, a line of standard output, `[EXIT CODE, BOUNDARIES, WHAT WAS SAID]`.

Each process is forked from this one, which has imported everything and opened nothing: a boundary costs no
start of Python, and no open database is carried over a fork.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from headcount import Headcount, bootstrap
from headcount.services import collect, headcount, messages, resume, stop, worktrees

__all__ = [
    "collect",
    "headcount",
    "messages",
    "resume",
    "stop",
    "worktrees",
]  # before a fork
SIDE = {
    *("os.mkdir", "os.mkfifo", "os.rename", "os.symlink", "os.link", "os.remove", "os.rmdir", "os.truncate"),
    *("os.chmod", "fcntl.lockf", "fcntl.fcntl", "fcntl.flock", "os.kill", "signal.pidfd_send_signal"),
    "subprocess.Popen",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SETTINGS = {"views": False, "autostart": False, "min_memory_mb": 1, "grace": 0.5}


class Boundaries:
    """Counts an SQL statement, a write and a start (before and after), any other side effect (before)."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.armed = False
        sys.addaudithook(self.hook)
        self.watch(os, "write")
        self.watch(os, "fsync")
        self.watch(subprocess.Popen, "__init__")

    def boundary(self, _: object = None) -> None:
        if not self.armed:
            return
        if self.count == self.at:
            self.armed = False  # to kill is a side effect too
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event in SIDE or (event == "open" and isinstance(args[2], int) and args[2] & WRITING):
            self.boundary()

    def watch(self, where: object, name: str) -> None:
        call: Callable[..., Any] = getattr(where, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.boundary()
            result = call(*args, **kwargs)
            self.boundary()
            return result

        setattr(where, name, wrapped)


def run(boundaries: Boundaries, home: Path, code: str, given: list[str]) -> None:
    opened = bootstrap.context(home, SETTINGS, on_statement=boundaries.boundary)
    fleet = Headcount.of(opened)
    fleet.list_agents()  # the registry is open
    boundaries.armed = True
    exec(code, {"fleet": fleet, "given": given})  # the test's own
    boundaries.armed = False


def child(at: int, home: Path, code: str, given: list[str], counted: int) -> NoReturn:
    status = 1
    try:
        boundaries = Boundaries(at)
        run(boundaries, home, code, given)
        os.write(counted, str(boundaries.count).encode())
        status = 0
    except BaseException:  # noqa: BLE001  # the test is told
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def main() -> None:
    for line in sys.stdin:
        at, home, code, given = json.loads(line)
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as counted:
            pid = os.fork()
            if pid == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                child(at, Path(home), code, given, counted.fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            said.seek(0)
            counted.seek(0)
            answer = [status, int(counted.read() or -1), said.read().decode(errors="replace")]
        print(json.dumps(answer), flush=True)


main()
