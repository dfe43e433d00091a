"""Gate A: everything of Headcount but the runners is killed; no agent notices, one headcount mends all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.daemon import start as daemon
from headcount.runtimes import cgroup
from tests.support.fleets import alive, clear
from tests.support.waiting import until

AGENTS = 20

LAUNCHER = """
import json, os, sys
from pathlib import Path
home, project, group = sys.argv[1:4]
if group:
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
from headcount import Headcount
from headcount.daemon import start as daemon
fleet = Headcount(home, grace=2.0, min_memory_mb=1)
task = fleet.create_task("gate A", project=project, max_live=30).task_id
daemon.ensure(fleet.context.home)
assert daemon.wait_ready(fleet.context.home, timeout=60)
command = ["/bin/sh", "-c", "while :; do echo tick; sleep 0.2; done"]
made = [fleet.deploy(task, role=f"r{n}", harness="command", command=command) for n in range(int(sys.argv[4]))]
print(json.dumps([task, [[each.agent_id, each.pid, each.runner_pid] for each in made]]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def group() -> Iterator[str]:
    """A cgroup of our own for the launcher, or "" where none can be made."""
    places = [Path(place).parent for place in cgroup.places()]
    for parent in places:
        path = parent / f"headcount-test-{os.getpid()}-{os.urandom(3).hex()}"
        with contextlib.suppress(OSError):
            path.mkdir()
            yield str(path)
            await_empty(path)
            path.rmdir()
            return
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail("no cgroup can be made, and this is CI as root")
    yield ""


def await_empty(group: Path) -> None:
    until(lambda: not (group / "cgroup.procs").read_text().strip(), what="an empty cgroup")


@pytest.mark.timeout(240)
def test_no_agent_notices_the_death_of_everything_else(
    home: Path, tmp_path: Path, group: str, require_tmux: str
) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(home), str(tmp_path), group, str(AGENTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert launcher.stdout
    task, made = json.loads(launcher.stdout.readline())
    fleet = Headcount(home, grace=2.0, min_memory_mb=1, autostart=False)
    try:
        until(lambda: len(fleet.registry_health_check().sessions) == AGENTS, what="20 sessions", patience=60)
        killed = kill_all_but_runners(fleet, launcher, group)
        assert all(alive(pid) and alive(runner) for _, pid, runner in made), killed
        agree(fleet, task, made)
    finally:
        launcher.kill()
        launcher.communicate()
        clear(fleet)
        fleet.context.views.shut()
        daemon.stop(fleet.context.home)
        fleet.close()


def kill_all_but_runners(fleet: Headcount, launcher: subprocess.Popen[str], group: str) -> list[int]:
    """SIGKILL the daemon, its process group, the tmux server, the deployer with its group and cgroup."""
    holder = daemon.holder(fleet.context.home)
    assert holder is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(os.getpgid(holder), signal.SIGKILL)
    os.killpg(launcher.pid, signal.SIGKILL)
    server = int(
        subprocess.run(
            ["tmux", "-S", str(fleet.context.home.tmux_socket), "display-message", "-p", "#{pid}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
    )
    os.kill(server, signal.SIGKILL)
    if group:
        Path(group, "cgroup.kill").write_text("1")
    launcher.wait(10)
    until(lambda: not alive(holder) and not alive(server), what="the deaths of daemon and tmux server")
    return [holder, launcher.pid, server]


def agree(fleet: Headcount, task: str, made: list[list[object]]) -> None:
    """Check that one headcount later every row is right and every view is back."""
    until(lambda: len(fleet.registry_health_check().views_missing) == AGENTS, what="views that are missed")
    fleet.validate_and_repair_registry(dry_run=False)
    rows = {
        each.agent_id: [each.agent_id, each.pid, each.runner_pid]
        for each in fleet.list_agents(task_id=task).agents
    }
    assert sorted(rows.values()) == sorted(made)
    until(lambda: fleet.registry_health_check().healthy, what="views that are back", patience=30)
    health = fleet.registry_health_check()
    assert (health.live_rows, health.live_runs, health.sessions_count) == (AGENTS, AGENTS, AGENTS)
