"""A process that is killed with SIGKILL at one of the boundaries of what it does to a fleet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, subprocess, sys
at, home, given = int(sys.argv[1]), sys.argv[2], sys.argv[4:]
from headcount import Headcount, bootstrap
from headcount.services import collect, headcount, stop
count, armed = 0, False
def boundary():
    global count, armed
    if armed:
        if count == at:
            armed = False                 # to kill is a side effect too
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
SIDE = {"os.mkdir", "os.rename", "os.symlink", "os.remove", "os.truncate", "os.rmdir", "os.link",
        "fcntl.flock", "subprocess.Popen", "os.kill", "signal.pidfd_send_signal"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def hook(event, args):
    if event in SIDE or event == "open" and isinstance(args[2], int) and args[2] & WRITING:
        boundary()
sys.addaudithook(hook)
def around(call):
    def wrapped(*args, **kwargs):
        boundary()
        result = call(*args, **kwargs)
        boundary()
        return result
    return wrapped
os.write, os.fsync = around(os.write), around(os.fsync)
settings = {"views": False, "autostart": False, "min_memory_mb": 1, "grace": 0.5}
fleet = Headcount.of(bootstrap.context(home, settings, on_statement=lambda sql: boundary()))
fleet.list_tasks()                        # everything is imported, the registry is open
armed = True
exec(sys.argv[3])
armed = False
print(count)
"""


def die_at(at: int, home: Path, code: str, *given: str) -> subprocess.CompletedProcess[str]:
    """Run `code`, which has `fleet` and `given`, in a process that kills itself before boundary `at`: an SQL
    statement, a write (before and after it), another side effect. Done, it prints how many it passed."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(at), str(home), code, *given],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
