"""SIGKILL of the daemon before its SQL statements, while a client has work done: all of it is done once."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import daemons
from tests.support.daemons import Bridge
from tests.support.fleets import alive, fleet, new_task
from tests.support.waiting import until

PROGRAM = Path(__file__).parents[1] / "support" / "programs" / "dying_daemons.py"
PARTS = 2
EVERY = 1 if os.environ.get("HEADCOUNT_EVERY_STATEMENT") else 23
"""Of some two hundred statements every twenty-third, and all of them if the variable is set."""
MOST = 2_000


class Keeper:
    """Keeps a daemon up on a home; see the program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def next_dies_at(self, at: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(b"%d\n" % at)
        while self._line() != b"started":
            continue

    def has_died(self) -> bool:
        assert self._process.stdout
        ready = select.select([self._process.stdout], [], [], 0)[0]
        return bool(ready) and self._line() == b"died"

    def _line(self) -> bytes:
        assert self._process.stdout
        return self._process.stdout.readline().rstrip()  # no more than the line: the pipe has no buffer


@pytest.fixture
def keeper(home: Path) -> Iterator[Keeper]:
    argv = (sys.executable, "-P", str(PROGRAM), "--home", str(home))
    with subprocess.Popen(
        argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=daemons.environment(home)
    ) as process:
        daemons.wait_ready(home)
        yield Keeper(process)
        assert process.stdin
        process.stdin.close()


@pytest.mark.timeout(0 if EVERY == 1 else 240)
@pytest.mark.parametrize("part", range(PARTS))
def test_wherever_the_daemon_dies_what_is_asked_is_done_once(
    part: int, home: Path, keeper: Keeper, tmp_path: Path
) -> None:
    with fleet(home) as opened, Bridge(home, env={"HEADCOUNT_AUTOSTART": "0"}) as bridge:
        task = new_task(opened, tmp_path, max_agents=MOST)
        for at in range(part * EVERY, MOST, PARTS * EVERY):
            keeper.next_dies_at(at)
            said = tmp_path / f"said-{at}"
            script = f"headcount report working here && touch {said}; exec sleep 600"
            made = bridge.call(
                "deploy_headless_agent",
                task_id=task,
                agent_type=f"role{at}",
                harness="command",
                command=["sh", "-c", script],
                patience=60,
            )
            until(said.exists, what="its report is taken", patience=60)
            assert alive(made["pid"]), at
            assert bridge.call("stop_agent", agent_id=made["agent_id"], patience=60)["outcome"] == "stopped"
            assert not alive(made["pid"]), at
            agents = [each for each in opened.list_agents(all=True).agents if each.role == f"role{at}"]
            assert [each.agent_id for each in agents] == [made["agent_id"]], at
            status = opened.get_task_status(task)
            reports = [each for each in status.recent_reports if each.agent_id == made["agent_id"]]
            assert [each.message for each in reports] == ["here"], at
            if not keeper.has_died():
                break
        assert at > 50, "fewer statements than there must be"
        until(lambda: opened.registry_health_check().healthy, what="rows and processes agree")
