"""Gate A, at the level of the placement: agents belong to their runners, and to nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.domain.model import LockState, Presence
from headcount.runtimes import cgroup
from tests.support import needs, placements, waiting

AGENTS = 20

DEPLOYER = """
import sys, time
from pathlib import Path
from headcount.config import Home
from headcount.runtimes.local import LocalPlacement
from tests.support import placements
home = Path(sys.argv[1])
placement = LocalPlacement(Home(home))
for n in range(int(sys.argv[2])):
    placements.begin(placement, home, agent=f"worker{n}-0000000000000001")
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def own_cgroup() -> Iterator[Path]:
    """A cgroup for the deployer, as a service manager would give it."""
    needs.root()
    places = cgroup.places()
    if not places:
        needs.lacking("no cgroup can be made")
    leaf = Path(places[0]).parent / f"headcount-test-{os.getpid()}"
    leaf.mkdir()
    yield leaf
    waiting.until(lambda: not (leaf / "cgroup.procs").read_text(), what="the cgroup is empty")
    leaf.rmdir()


def test_when_all_else_is_killed_no_agent_notices(home: Path, own_cgroup: Path) -> None:
    with placements.placed(home) as placement:
        deployer = subprocess.Popen(
            (sys.executable, "-c", DEPLOYER, str(home), str(AGENTS)),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            process_group=0,
        )
        (own_cgroup / "cgroup.procs").write_text(str(deployer.pid))
        assert deployer.stdout is not None
        assert deployer.stdout.readline() == b"started\n"
        before = {seen.key: seen for seen in placement.look()}
        assert len(before) == AGENTS

        deployer.kill()
        os.killpg(deployer.pid, signal.SIGKILL)
        (own_cgroup / "cgroup.kill").write_text("1")
        deployer.wait()
        deployer.stdout.close()

        after = {seen.key: seen for seen in placement.look()}
        assert after == before
        for seen in after.values():
            assert seen.lock is LockState.HELD
            assert seen.start is not None
            assert placement.presence(seen.start.runner) is Presence.ALIVE
            assert placement.presence(seen.start.process) is Presence.ALIVE
        for seen in after.values():
            assert placement.signal_stop(seen.key, seen.path, grace=2)
        for seen in after.values():
            assert placements.await_exit(placement, seen).stopped
