"""What every check works with: a scratch home, agents that only sleep, and the means to compare."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from headcount import bootstrap
from headcount.api import Headcount
from headcount.doors.audit.crowd import at_once
from headcount.services.answers import Deployed

SLEEPER: Final = ("/bin/sh", "-c", "exec sleep 600")
SETTINGS: Final[dict[str, Any]] = {
    "views": False,
    "autostart": False,
    "grace": 2.0,
    "min_memory_mb": 1,
    "machine_max_live": 200,
}
DEPLOY: Final = """
try:
    made = fleet.deploy(given["task"], role=given["role"] or f"role{me}", harness="command",
                        command=["/bin/sh", "-c", "exec sleep 600"], prompt=given.get("prompt"))
    say([made.agent_id, made.pid])
except HeadcountError as error:
    say([None, error.code])
"""

Found = TypeVar("Found")


class Failed(Exception):
    """A guarantee does not hold; the message says what was seen."""


def require(held: object, seen: str) -> None:
    """Raise Failed with `seen` unless `held`."""
    if not held:
        raise Failed(seen)


def until(condition: Callable[[], Found], what: str, patience: float = 10.0) -> Found:
    """Return the first true value of `condition`.

    Raises:
        Failed: there was none in `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {patience:g} s: {what}")
        time.sleep(0.01)
    return found


def alive(pid: int | None) -> bool:
    """Say whether a process is there and not only waiting to be reaped."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


@dataclass(frozen=True, slots=True)
class Scene:
    """One check's home, and a fleet in it."""

    home: Path
    project: Path
    fleet: Headcount

    def task(self, **limits: Any) -> str:
        return self.fleet.create_task("an audit", project=self.project, **limits).task_id

    def sleeper(self, task: str, role: str, **more: Any) -> Deployed:
        return self.fleet.deploy(task, role=role, harness="command", command=SLEEPER, **more)

    def crowd(self, code: str, number: int, **given: object) -> list[list[Any]]:
        """Run `code` in processes at once; return what each said."""
        told = {"home": str(self.home), "settings": {"machine_max_live": 200}, **given}
        return [[json.loads(line) for line in lines] for lines in at_once(code, number, told, patience=50.0)]

    def traced(self, on_statement: Callable[[str], None]) -> Headcount:
        """Return another fleet on the same home, which shows its SQL statements."""
        return Headcount.of(bootstrap.context(self.home, SETTINGS, on_statement=on_statement))

    def version(self) -> int:
        """Return a number that is another one after any commit of anybody."""
        return self.fleet.context.registry.version()

    def count_is_right(self, expected: int) -> None:
        """Require that rows, runs and processes are `expected`, with nothing to repair."""
        health = self.fleet.registry_health_check()
        pids = [each.pid for each in self.fleet.list_agents(limit=1000).agents]
        seen = f"{health.live_rows} rows, {health.live_runs} runs, {sum(map(alive, pids))} processes"
        right = health.healthy and health.live_rows == health.live_runs == expected and all(map(alive, pids))
        require(right, f"{seen}, expected {expected} of each")


def open_scene(place: Path) -> Scene:
    """Make a home and a project below `place`."""
    project = place / "p"
    project.mkdir(parents=True)
    return Scene(place / "h", project, Headcount(place / "h", **SETTINGS))


def close_scene(scene: Scene) -> None:
    """End everything of a check."""
    scene.fleet.halt(reason="the check is over")
    scene.fleet.validate_and_repair_registry(dry_run=False)
    scene.fleet.close()
