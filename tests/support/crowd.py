"""Many processes that do one thing at the same instant, each with its own import of the library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PRELUDE = """
import json, sys
from headcount import Headcount
from headcount.domain.errors import HeadcountError
me, given = int(sys.argv[1]), json.loads(sys.argv[2])
settings = {"views": False, "autostart": False, "min_memory_mb": 1, "grace": 2.0, **given["settings"]}
fleet = Headcount(given["home"], **settings)
fleet.list_tasks()                 # imports are done and the registry is open before the start signal
def say(answer):
    print(json.dumps(answer, default=str))
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
"""


def at_once(code: str, number: int, given: Mapping[str, object]) -> list[list[str]]:
    """Run `code` in `number` processes, released together; return what each printed, line by line.

    In `code`: `fleet`, `me` (0 to number - 1), `given`, `say(answer)`, HeadcountError.
    """
    import json

    argument = json.dumps({"settings": {}, **given}, default=str)
    argv = (sys.executable, "-c", PRELUDE + code)
    crowd = [
        subprocess.Popen(
            (*argv, str(me), argument),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        for me in range(number)
    ]
    try:
        for each in crowd:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n", each.communicate()
        for each in crowd:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        outputs = [each.communicate(timeout=120) for each in crowd]
    finally:
        for each in crowd:
            each.kill()
            each.communicate()
    for each, (_, errors) in zip(crowd, outputs, strict=True):
        assert each.returncode == 0, errors
    return [out.splitlines() for out, _ in outputs]


def given(home: Path, **more: object) -> dict[str, object]:
    """Return what each process of a crowd is told."""
    return {"home": str(home), **more}
