"""A hundred deploys at once, each from a process of its own that has imported the library.

    python benchmarks/deploy_crowd.py [--slack 2] [--smoke] [--json]

The raw limit is two hundred bare Pythons started at once: each deploy needs at least a runner and an agent.
The daemon runs and the views are on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

from figures import BARE, BARE_NAME, Figure, main, milliseconds, times
from grounds import LIMITS, SLEEP, daemon, fleet, ground, until

from headcount import Headcount
from headcount.doors.audit.crowd import at_once

ANSWERED = 2.0
VIEWS_UP = 3.0
SETTINGS = {**LIMITS, "views": True, "registry_wait": 60.0}
"""On a machine that is busy with other things the last of a hundred may wait for the registry for more than
the usual ten seconds: that is a figure here and not a failure."""
DEPLOY = """
import time
from headcount.services import request
from headcount.harnesses import command
began = time.monotonic()
fleet.deploy(
    given["task"], role="builder", harness="command", command=given["command"], allow_duplicate_role=True
)
say([began, time.monotonic()])
"""


def figures(*, smoke: bool) -> Iterator[Figure]:
    number, rounds = (4, 1) if smoke else (100, 3)
    raw, answered, shown = [], [], []
    raw_name = f"{2 * number} x {BARE_NAME} at once"
    for _ in range(rounds):
        raw.append(milliseconds(lambda: bare_crowd(2 * number)))
        with ground() as place, fleet(place / "h", views=True) as opened, daemon(place / "h"):
            one, two = crowd(place / "h", opened, number)
        answered.append(one)
        shown.append(two)
    yield times(f"{number} deploys at once, all answered", answered, raw, ANSWERED, raw_name=raw_name)
    yield times(f"{number} deploys at once, all views up", shown, raw, VIEWS_UP, raw_name=raw_name)


def bare_crowd(number: int) -> None:
    for each in [Popen(BARE) for _ in range(number)]:
        each.wait()


def crowd(home: Path, opened: Headcount, number: int) -> tuple[float, float]:
    """Return the milliseconds from the start signal to the last answer, and to the last view."""
    task = opened.create_task("many at once", project=home.parent).task_id
    opened.deploy(task, role="first", harness="command", command=SLEEP)  # the caches, and the view server
    views = opened.context.views
    until(lambda: len(views.list() or ()) == 1)
    given = {"home": home, "task": task, "command": SLEEP, "settings": SETTINGS}
    said = [json.loads(line) for (line,) in at_once(DEPLOY, number, given)]
    until(lambda: len(views.list() or ()) == number + 1)
    up = time.monotonic()
    began = min(each[0] for each in said)
    return (max(each[1] for each in said) - began) * 1000, (up - began) * 1000


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
