"""Many processes that do one thing at the same instant, each as if it had just imported the library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAM = """
import json, os, sys, traceback
from headcount import Headcount, bootstrap
from headcount.domain.errors import HeadcountError
from headcount.services import deploy                # what a first call would import
number, place, given = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
settings = {"views": False, "autostart": False, "min_memory_mb": 1, "grace": 2.0, **given["settings"]}
code = compile(sys.argv[4], "crowd", "exec")
hold, start = os.pipe()
readied, ready = os.pipe()
crowd = []
for me in range(number):
    pid = os.fork()
    if pid == 0:
        os.close(start)
        out = open(f"{place}/{me}", "w")
        def say(answer):
            out.write(json.dumps(answer, default=str) + "\\n")
        fleet = Headcount(given["home"], **settings)
        fleet.list_tasks()                           # the registry is open before the start signal
        os.close(ready)
        os.read(hold, 1)                             # until the other end is closed
        try:
            exec(code)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        out.close()
        os._exit(0)
    crowd.append(pid)
os.close(hold)
os.close(ready)
os.read(readied, 1)                                  # until all have closed it
os.close(start)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in crowd))
"""


def at_once(
    code: str, number: int, given: Mapping[str, object], *, patience: float = 200.0
) -> list[list[str]]:
    """Run `code` in `number` processes, released together; return what each said, line by line.

    In `code`: `fleet`, `me` (0 to number - 1), `given`, `say(answer)`, HeadcountError. `given` has "home",
    and may have "settings".

    Raises:
        AssertionError: one of them failed; the message has its traceback.
    """
    argument = json.dumps({"settings": {}, **given}, default=str)
    with TemporaryDirectory(prefix="hc-crowd-") as place:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(number), place, argument, code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return [(Path(place) / str(me)).read_text().splitlines() for me in range(number)]
