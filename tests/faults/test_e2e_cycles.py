"""A thousand deploys and stops leave no open file, process, session or mark behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.config import Home
from headcount.store.connection import WAL_BYTES
from tests.support import daemons, leftovers
from tests.support.daemons import Bridge
from tests.support.fleets import SLEEPER, clear, fleet, live_runs, new_task
from tests.support.waiting import until

CYCLES = int(os.environ.get("HEADCOUNT_TEST_CYCLES", "1000"))
PARTS = 4
"""The thousand is done in so many homes, so that it can be shared among the workers of a test run."""
AT_ONCE = 4
EACH = CYCLES // PARTS // AT_ONCE
WARM = 5
"""Cycles of each thread after which caches are filled and connections open."""


@dataclass(frozen=True)
class Traces:
    """What one process and its home hold on to, apart from the history that is meant to stay."""

    files: int
    threads: int
    children: int
    processes: int
    sessions: int
    marks: int
    aside: int  # files in the home besides run directories and backups


def traces(pid: int, home: Path, sessions: Callable[[], int]) -> Traces:
    return Traces(
        files=len(os.listdir(f"/proc/{pid}/fd")),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        children=len(leftovers.children_of(pid)),
        processes=len(leftovers.processes_under(home)),
        sessions=sessions(),
        marks=len(live_runs(home)),
        aside=sum(1 for name in ("gates", "cache", "trash", "quarantine") for _ in (home / name).rglob("*")),
    )


def log_size(home: Path) -> int:
    return os.path.getsize(f"{Home(home).registry}-wal")


def at_rest(now: Callable[[], Traces]) -> Traces:
    """Return what is held once nothing is on its way out any more."""

    def rested() -> Traces | None:
        found = now()
        return found if (found.sessions, found.marks) == (0, 0) and found == now() else None

    found = until(rested, what="nothing changes any more", patience=30)
    assert found
    return found


def no_more_than(before: Traces, now: Callable[[], Traces]) -> None:
    """Check that what is held has not grown; a thread that had nothing to do before, and its connection,
    may have come since, and a process that was on its way out before may be gone. What is left by each cycle
    would be hundreds."""
    after = at_rest(now)
    assert after.threads <= before.threads + AT_ONCE, (before, after)
    assert after.files <= before.files + 3 * AT_ONCE, (before, after)
    until(lambda: now().processes <= before.processes, what="as few processes as before", patience=30)
    others = {"threads": 0, "files": 0, "processes": 0}
    assert replace(after, **others) == replace(before, **others)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_process_that_deploys_and_stops_keeps_nothing(
    part: int, home: Path, tmp_path: Path, require_tmux: str
) -> None:
    with fleet(home, views=True) as opened:
        task = new_task(opened, tmp_path, max_agents=10 * CYCLES)

        def now() -> Traces:
            return traces(os.getpid(), home, lambda: opened.registry_health_check().sessions_count)

        with ThreadPoolExecutor(AT_ONCE) as pool:

            def turn(each: int) -> None:
                deploys_and_stops(opened, task, each, EACH)

            list(pool.map(lambda each: deploys_and_stops(opened, task, each, WARM), range(AT_ONCE)))
            opened.context.registry.checkpoint()
            before = at_rest(now)
            list(pool.map(turn, range(AT_ONCE)))
            no_more_than(before, now)
        assert log_size(home) <= 2 * WAL_BYTES
        opened.context.registry.checkpoint()
        assert log_size(home) == 0
        counts = opened.get_task_status(task).counts
        assert (counts["total"], counts["live"]) == ((EACH + WARM) * AT_ONCE, 0)
        clear(opened)
        opened.context.views.shut()


def deploys_and_stops(opened: Headcount, task: str, me: int, number: int) -> None:
    for _ in range(number):
        made = opened.deploy(task, role=f"role{me}", harness="command", command=SLEEPER)
        assert opened.kill_agent(made.agent_id).outcome == "stopped"


@pytest.mark.slow
def test_a_daemon_through_which_others_deploy_and_stop_keeps_nothing(
    home: Path, tmp_path: Path, require_tmux: str
) -> None:
    with daemons.daemon(home, HEADCOUNT_VIEWS="1") as process, Bridge(home) as bridge:
        task = bridge.call("create_task", description="work", project=str(tmp_path), max_agents=CYCLES)[
            "task_id"
        ]

        def now() -> Traces:
            return traces(process.pid, home, lambda: len(bridge.call("registry_health_check")["sessions"]))

        def cycles(number: int) -> None:
            for _ in range(number):
                made = bridge.call(
                    "deploy_headless_agent",
                    task_id=task,
                    agent_type="builder",
                    harness="command",
                    command=list(SLEEPER),
                )
                assert bridge.call("stop_agent", agent_id=made["agent_id"])["outcome"] == "stopped"

        cycles(10)
        before = at_rest(now)
        cycles(CYCLES // 10)
        no_more_than(before, now)
        with fleet(home, views=True) as opened:
            opened.context.views.shut()
