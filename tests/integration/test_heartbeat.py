"""The daemon is watched itself: by a sign of life in the registry, and by the service manager."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.bootstrap import SystemClock
from headcount.config import Home
from headcount.daemon import start
from headcount.daemon.notify import Notifier
from headcount.daemon.progress import PATIENCE, Progress
from headcount.services.answers import Check
from tests.support import daemons
from tests.support.daemons import daemon
from tests.support.fleets import fleet
from tests.support.waiting import until


class Later(SystemClock):
    """The machine's clock as it will be in a while, if it does not sleep meanwhile."""

    def monotonic(self) -> float:
        return super().monotonic() + 300


def daemon_line(opened: Headcount) -> Check:
    (found,) = [each for each in opened.doctor().checks if each.name == "daemon"]
    return found


def headcounts(opened: Headcount, pid: int) -> int:
    """Return how many headcounts the daemon `pid` has written that it did."""
    with opened.context.registry.read() as tx:
        beat = tx.heartbeats.get()
    return beat.headcounts if beat is not None and beat.pid == pid else 0


def test_the_doctor_says_that_a_stopped_daemon_hangs(home: Path) -> None:
    with fleet(home) as opened, daemon(home, HEADCOUNT_HEADCOUNT_EVERY="0.1") as process:
        later = Headcount.of(replace(opened.context, clock=Later()))
        until(lambda: headcounts(opened, process.pid), what="a sign of life")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            assert daemon_line(opened).ok
            line = daemon_line(later)
            assert line.ok is False
            assert f"pid {process.pid} holds its lock" in line.detail
            assert f"kill -9 {process.pid}" in line.hint
            assert not later.doctor().healthy
        finally:
            os.kill(process.pid, signal.SIGCONT)
        before = headcounts(opened, process.pid)
        until(lambda: headcounts(opened, process.pid) > before, what="it goes on")
        assert daemon_line(opened).ok


def test_a_sign_of_life_of_another_daemon_says_nothing_of_this_one(home: Path) -> None:
    with fleet(home) as opened:
        with daemon(home, HEADCOUNT_HEADCOUNT_EVERY="0.1") as first:
            until(lambda: headcounts(opened, first.pid), what="a sign of life")
        with daemon(home, HEADCOUNT_HEADCOUNT_EVERY="0.1") as second:
            until(lambda: headcounts(opened, second.pid) > 1, what="one of the next")
            assert "last headcount" in daemon_line(opened).detail


# ---------------------------------------------------------------- the service manager


def test_a_manager_hears_that_it_is_ready_lives_and_stops(home: Path) -> None:
    with daemons.manager(str(home / "n"), 0.3) as heard, daemon(home, **heard.env) as process:
        first = heard.hears()
        assert (first["READY"], first["MAINPID"]) == ("1", str(process.pid))
        assert start.holder(Home(home)) == process.pid
        assert [heard.hears() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
        os.kill(process.pid, signal.SIGTERM)
        until(lambda: heard.hears() == {"STOPPING": "1"}, what="its last word")


def test_a_manager_takes_the_place_of_a_daemon_that_need_started(home: Path, tmp_path: Path) -> None:
    with daemon(home) as first, daemons.manager("@" + str(home), 60) as heard:
        env = daemons.environment(home, heard.env)
        with subprocess.Popen([*daemons.DAEMON, "--home", str(home)], env=env) as second:
            assert heard.hears()["MAINPID"] == str(second.pid)
            assert first.wait(20) == 0
            assert start.holder(Home(home)) == second.pid
            second.terminate()
            assert second.wait(20) == 0


def test_an_agent_does_not_get_the_managers_socket(home: Path) -> None:
    with daemons.manager(str(home / "n"), 60) as heard, daemon(home, **heard.env) as process:
        environ = Path(f"/proc/{process.pid}/environ")  # as it was started; what it hands on is its own
        assert b"NOTIFY_SOCKET" in environ.read_bytes()
        with daemons.Bridge(home) as bridge:
            task = bridge.call("create_task", description="x", project="/tmp")["task_id"]
            asked = {"task_id": task, "agent_type": "x", "harness": "command", "command": ["/usr/bin/env"]}
            made = bridge.call("deploy_headless_agent", **asked)
            bridge.call("wait_for_agents", agent_ids=[made["agent_id"]])
            said = bridge.call("get_agent_output", agent_id=made["agent_id"])["text"]
        assert "HEADCOUNT_RUN" in said
        assert "NOTIFY_SOCKET" not in said
        assert "WATCHDOG" not in said


@pytest.mark.parametrize(
    ("given", "watchdog"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "/run/n"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000"}, 2.0),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "2000000"}, None),
    ],
)
def test_what_a_manager_wants_is_read_and_taken_away(given: dict[str, str], watchdog: float | None) -> None:
    environ = {**given, "PATH": "/bin"}
    found = Notifier.taken_from(environ)
    assert environ == {"PATH": "/bin"}
    assert bool(found) == (given.get("NOTIFY_SOCKET") == "/run/n")
    assert found.watchdog == watchdog
    found.ready()  # nobody listens: no harm


def test_a_loop_that_does_not_come_round_is_stuck() -> None:
    now = 0.0
    progress = Progress(lambda: now, pause=15.0)
    assert progress.stuck() == []
    progress.came_round("count")
    progress.came_round("follow")
    now = PATIENCE + 15.0
    progress.came_round("follow")
    assert progress.stuck() == []
    now += 0.5
    assert progress.stuck() == ["count"]
    progress.came_round("count")
    assert progress.stuck() == []
