"""The wall clock is moved a year forward and back while agents run: nothing expires, and nothing is stuck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.ids import check_id
from tests.support import daemons
from tests.support.clocks import YEAR, Clock
from tests.support.commands import answer, headcount
from tests.support.daemons import Bridge
from tests.support.fleets import SLEEPER, alive
from tests.support.waiting import until

JUMPS = (YEAR, -YEAR, 0)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def bridge(home: Path, clock: Clock, require_tmux: str) -> Iterator[Bridge]:
    """A client of a daemon with views; all of it follows the moved clock."""
    with daemons.daemon(home, **clock.env, HEADCOUNT_VIEWS="1"), Bridge(home, env=clock.env) as bridge:
        yield bridge
        headcount("halt")
        headcount("down", env={"HEADCOUNT_VIEWS": "1"})
        tmux(home, "kill-server")


def tmux(home: Path, *command: str) -> str:
    argv = ["tmux", "-S", str(home / "tmux.sock"), *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout


def deploy(bridge: Bridge, task: str, role: str) -> dict[str, Any]:
    return bridge.call(
        "deploy_headless_agent", task_id=task, agent_type=role, harness="command", command=list(SLEEPER)
    )


def rows(bridge: Bridge) -> dict[str, Any]:
    return {each["agent_id"]: each for each in bridge.call("list_agents", all=True)["agents"]}


def test_under_a_daemon_agents_views_and_waits_take_no_notice(
    home: Path, bridge: Bridge, clock: Clock, tmp_path: Path
) -> None:
    task = bridge.call("create_task", description="work", project=str(tmp_path))["task_id"]
    made = [deploy(bridge, task, "first")]
    ended = 0
    for number, jump in enumerate(JUMPS):
        clock.move(jump)
        made.append(deploy(bridge, task, f"role{number}"))
        live = {each["agent_id"] for each in made[ended:]}
        until(lambda live=live: sessions(home) == live, what="each live agent has its session")  # type: ignore[misc]
        tmux(home, "kill-session", "-t", f"={made[-1]['agent_id']}")
        until(lambda live=live: sessions(home) == live, what="the lost session is back")  # type: ignore[misc]
        waited = bridge.call("wait_for_agents", agent_ids=[made[-1]["agent_id"]], timeout=0.5)
        assert (waited["done"], 0.5 <= waited["waited_s"] < 5) == (False, True)
        assert all(alive(each["pid"]) for each in made[ended:])
        os.kill(made[ended]["pid"], signal.SIGKILL)
        gone = made[ended]["agent_id"]
        until(lambda gone=gone: rows(bridge)[gone]["state"] == "ended", what="the end is noticed")  # type: ignore[misc]
        ended += 1
    health = bridge.call("registry_health_check")
    assert health["live_rows"] == health["live_runs"] == len(made) - ended
    assert {check_id("agent", each) for each in rows(bridge)} == {each["agent_id"] for each in made}
    assert bridge.call("stop_agent", agent_id=made[-1]["agent_id"])["outcome"] == "stopped"


def sessions(home: Path) -> set[str]:
    return set(tmux(home, "list-sessions", "-F", "#{session_name}").split())


SPAWN = """
import sys
from headcount import Headcount
from headcount.domain.errors import Refused
from headcount.domain.ids import check_id
from headcount.domain.model import Caller
home, project, clock, *jumps = sys.argv[1:]
def move(jump):
    with open(clock, "w") as file:
        file.write(jump + "\\n")
fleet = Headcount(home, views=False, autostart=False, min_memory_mb=1, spawn_rate=2, spawn_window=600)
task = fleet.create_task("work", project=project).task_id
def deploy(fleet, role, **more):
    return fleet.deploy(task, role=role, harness="command", command=["sleep", "600"], **more)
lead = deploy(fleet, "lead", idempotency_key="one")
agent = fleet.acting_as(Caller(cwd=project, env={"PATH": "/bin:/usr/bin"}, agent_id=lead.agent_id, run=1))
made = [deploy(agent, "a"), deploy(agent, "b")]
for jump in jumps:
    move(jump)
    try:
        deploy(agent, "c")
    except Refused as refused:
        print(refused.code)
    assert deploy(fleet, "lead", idempotency_key="one").agent_id == lead.agent_id
    made.append(deploy(fleet, f"root{len(made)}"))
    tasks = [fleet.create_task("more", project=project).task_id for _ in range(20)]
    assert len({check_id("task", each) for each in tasks}) == 20
    collected = fleet.gc(dry_run=False)
    assert (collected.runs, collected.kept_live) == ((), len(made) + 1), collected
    assert fleet.validate_and_repair_registry(dry_run=False).done == ()
    assert fleet.registry_health_check().healthy
assert len({each.agent_id for each in made}) == len(made)
print(fleet.halt().halted)
"""


def test_no_rule_goes_by_the_wall_clock(home: Path, clock: Clock, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", SPAWN, str(home), str(tmp_path), clock.env["FAKETIME_TIMESTAMP_FILE"]]
    done = subprocess.run(
        [*argv, *(f"{jump:+d}" for jump in JUMPS)],
        env={**os.environ, **clock.env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    headcount("halt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["spawn_rate"] * 3 + ["True"]


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_the_command_line_shows_and_ends_what_was_started_at_another_time(
    jump: int, home: Path, clock: Clock, tmp_path: Path
) -> None:
    task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    made = answer("deploy", task, "--role", "builder", "--", *SLEEPER)
    clock.move(jump)
    for command in (("ps",), ("status", task), ("events",), ("logs", made["agent_id"]), ("doctor",)):
        ran = headcount(*command, env=clock.env)
        assert (ran.code, ran.err) == (0, ""), (command, ran)
    assert answer("ps", env=clock.env)["agents"][0]["state"] == "running"
    assert headcount("wait", made["agent_id"], "--timeout", "0.2", env=clock.env).code == 6
    assert headcount("run", "--", "true", env=clock.env).code == 0
    stopped = answer("stop", made["agent_id"], env=clock.env)["stopped"]
    assert [each["outcome"] for each in stopped] == ["stopped"]
    assert not alive(made["pid"])
