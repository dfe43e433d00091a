"""Scratch homes to measure in: fleets, daemons and a long history, all gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from headcount import Headcount
from headcount.services.answers import Deployed
from tests.support import daemons, leftovers
from tests.support.fleets import alive

SLEEP = ("/bin/sleep", "600")
MANY = 100_000
LIMITS = {"machine_max_live": 3000, "task_max_live": 3000, "task_max_agents": 1_000_000, "min_memory_mb": 1}
ROOT = os.environ.get("HEADCOUNT_BENCH_ROOT", "/tmp")  # short: socket paths are
_OURS = ("HEADCOUNT_", "TMUX", "PYTHONDONTWRITEBYTECODE")


@contextmanager
def ground() -> Iterator[Path]:
    """Yield an empty directory with a short path; end every process that names it, and remove it."""
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        del os.environ[name]
    place = Path(tempfile.mkdtemp(prefix="hcb-", dir=ROOT))
    (place / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(place / "run")
    os.environ["PYTHONPYCACHEPREFIX"] = f"{place}/bytecode"  # an installed package has its bytecode
    try:
        yield place
    finally:
        leftovers.end_all(place)
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def fleet(home: Path, *, views: bool = False, **settings: Any) -> Iterator[Headcount]:
    """Open a fleet; at the end, end every agent and the view server."""
    opened = Headcount(home, views=views, autostart=False, **{**LIMITS, **settings})
    try:
        yield opened
    finally:
        opened.context.views.shut()
        _sweep(opened)
        opened.close()


def _sweep(opened: Headcount) -> None:
    """Kill a thousand runs in a second or two: their agents end with them, nobody asks for their rows."""
    left = opened.context.placement.look()
    for seen in left:
        if seen.runner_pid:
            os.kill(seen.runner_pid, signal.SIGKILL)
    for seen in left:
        until(lambda seen=seen: not (seen.start and alive(seen.start.process.pid)))  # type: ignore[misc]
        opened.context.placement.unmark(seen.key)  # its cgroup goes with it


@contextmanager
def daemon(home: Path, *, views: bool = True) -> Iterator[int]:
    """Run a daemon as in daily use; yield its pid."""
    more = {f"HEADCOUNT_{name.upper()}": str(value) for name, value in LIMITS.items()}
    with daemons.daemon(
        home, HEADCOUNT_VIEWS=str(int(views)), HEADCOUNT_HEADCOUNT_EVERY="15", **more
    ) as process:
        yield process.pid


class Deployer:
    """Deploys into one task and ends what it deployed, outside of what is timed."""

    def __init__(self, opened: Headcount, project: Path) -> None:
        self.fleet = opened
        self.task = opened.create_task("a piece of work", project=project).task_id
        self._live: list[Deployed] = []

    def deploy(self, *command: str) -> Deployed:
        made = self.fleet.deploy(
            self.task, role="builder", harness="command", command=command or SLEEP, allow_duplicate_role=True
        )
        self._live.append(made)
        return made

    def deploy_with(self, harness: str) -> Deployed:
        made = self.fleet.deploy(
            self.task, role="builder", harness=harness, prompt="Do it.", allow_duplicate_role=True
        )
        self._live.append(made)
        return made

    def clear(self) -> None:
        """End what was deployed since the last time, and wait until nothing of it runs."""
        for each in self._live:
            self.fleet.kill_agent(each.agent_id)
            until(lambda each=each: not alive(each.runner_pid))  # type: ignore[misc]
        self._live.clear()


def until(condition: Callable[[], object], patience: float = 60.0, pause: float = 0.005) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what is measured did not happen")
        time.sleep(pause)
