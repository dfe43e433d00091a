"""Runs without a registry: orders, placements over a test's home, and what is left of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from headcount.config import Home
from headcount.domain.model import ExitRecord, LockState, Order, Process, RunKey, Seen, Started
from headcount.runtimes.local import LocalPlacement
from tests.support import waiting

NO_CGROUP: Final = frozenset({"cgroup"})
AS_ON_A_MAC: Final = frozenset({"proc", "prctl", "cgroup"})
"""Capabilities that macOS lacks, turned off here so that the other way is taken."""

AWKWARD: Final = Path(__file__).parent / "programs" / "awkward.py"
SLEEP: Final = ("/bin/sh", "-c", "exec sleep 600")


@contextmanager
def placed(home: Path, without: frozenset[str] = frozenset()) -> Iterator[LocalPlacement]:
    """Open a placement over `home`; at the end, kill every run of it."""
    place = Home(home)
    place.make()
    placement = LocalPlacement(place, without=without)
    try:
        yield placement
    finally:
        kill_all(placement)


def kill_all(placement: LocalPlacement) -> None:
    for seen in placement.look():
        placement.signal_stop(seen.key, seen.path, grace=0)
        ended = await_free(placement, seen)
        if ended.start and not ended.exit:
            placement.reap(ended)
        placement.unmark(seen.key)


def order(placement: LocalPlacement, argv: tuple[str, ...], n: int = 1, **changes: Any) -> Order:
    """Return an order with everything set; the agent's id is told apart by `agent`."""
    fields: dict[str, Any] = {
        "key": RunKey(changes.pop("agent", "builder-0000000000000001"), n),
        "task_id": "task-0000000000000001",
        "role": "builder",
        "parent": None,
        "depth": 1,
        "harness": "command",
        "model": None,
        "effort": None,
        "argv": argv,
        "cwd": "/",
        "prompt": None,
        "stdin": None,
        "files": {},
        "grace": 1.0,
        "output_cap": 1_000_000,
        "deployer": placement.self_process(),
        "reserved_at": time.time(),
        **changes,
    }
    return Order(**fields)


def environment(home: Path, key: RunKey) -> dict[str, str]:
    """Return what an agent has in its environment by contract."""
    return {
        "PATH": os.defpath,
        "HEADCOUNT_HOME": str(home),
        "HEADCOUNT_AGENT_ID": key.agent_id,
        "HEADCOUNT_RUN": str(key.n),
    }


def begin(
    placement: LocalPlacement, home: Path, argv: tuple[str, ...] = SLEEP, **changes: Any
) -> tuple[Seen, Started]:
    """Prepare and start a run; return how it looks then, and what the start gave."""
    made = order(placement, argv, **changes)
    path = placement.prepare(made)
    started = placement.start(made.key, path, env=environment(home, made.key), timeout=20.0)
    return placement.look_at(made.key, path), started


def awkward(mode: str, pids: Path) -> tuple[str, ...]:
    """Return the command of an agent that behaves as `mode` says and notes its processes in `pids`."""
    pids.mkdir(exist_ok=True)
    return (sys.executable, "-I", "-S", str(AWKWARD), mode, str(pids))


def await_free(placement: LocalPlacement, seen: Seen, *, patience: float = 20.0) -> Seen:
    """Wait until a run's lock is free; return how it looks then."""

    def free() -> Seen | None:
        now = placement.look_at(seen.key, seen.path)
        return now if now.lock is LockState.FREE else None

    found = waiting.until(free, what=f"the lock of {seen.key} is free", patience=patience)
    assert found is not None
    return found


def await_exit(placement: LocalPlacement, seen: Seen) -> ExitRecord:
    """Wait until a run's lock is free; return its exit record, which must be there then."""
    ended = await_free(placement, seen)
    assert ended.exit is not None, ended
    return ended.exit


def noted(pids: Path) -> set[int]:
    """Return the processes of an awkward agent that are alive."""
    return {int(name) for name in os.listdir(pids) if name.isdigit() and alive(int(name))}


def alive(pid: int) -> bool:
    """Say whether a process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def gone(process: Process) -> bool:
    return not alive(process.pid)
