"""tmux is wedged or killed while agents run: they take no notice, and their windows come back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headcount import Headcount
from tests.support import daemons
from tests.support.commands import answer, headcount
from tests.support.fleets import alive, clear, fleet, new_task, sleeper
from tests.support.waiting import until

TIME_OUT = 2.0
"""Seconds that any question to tmux may take, as `TmuxViews` has it; a quarter of one if it is stopped."""
NOISE = 1.5
"""Seconds that a busy machine may add."""


@pytest.fixture
def opened(home: Path, require_tmux: str) -> Iterator[Headcount]:
    with fleet(home, views=True) as opened:
        yield opened
        clear(opened)
        opened.context.views.shut()


def server(home: Path) -> int:
    argv = ["tmux", "-S", str(home / "tmux.sock"), "display-message", "-p", "#{pid}"]
    return int(subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def shown(opened: Headcount, number: int) -> bool:
    health = opened.registry_health_check()
    return health.healthy and health.sessions_count == number


def test_a_stopped_server_delays_what_asks_it_for_a_moment_and_nothing_else(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    first, second = sleeper(opened, task, "first"), sleeper(opened, task, "second")
    until(lambda: shown(opened, 2), what="both are shown")
    with stopped(server(home)):
        third = []
        assert seconds(lambda: third.append(sleeper(opened, task, "third"))) < NOISE
        assert seconds(lambda: opened.get_task_status(task)) < NOISE
        assert seconds(opened.list_agents) < NOISE
        assert seconds(lambda: opened.stop_agent(first.agent_id)) < NOISE
        assert seconds(lambda: opened.kill_agent(second.agent_id)) < NOISE
        assert seconds(opened.registry_health_check) < NOISE
        assert seconds(lambda: opened.validate_and_repair_registry(dry_run=False)) < NOISE
        assert seconds(opened.doctor) < NOISE
        health = opened.registry_health_check()
        assert (health.live_rows, health.live_runs) == (1, 1)
        assert health.views_missing == ()  # unknown is not missing
        assert [each.kind for each in health.unknown] == ["unknown"]
        checks = {each.name: each for each in opened.doctor().checks}
        assert checks["count"].detail == "Registry: 1, Running: 1, Tmux: unknown, Diff: 0"
        assert (checks["tmux"].ok, "does not answer" in checks["tmux"].detail) == (False, True)
    assert not alive(first.pid)
    assert not alive(second.pid)
    assert alive(third[0].pid)
    opened.validate_and_repair_registry(dry_run=False)
    until(lambda: shown(opened, 1), what="the one that lives is shown, and no other", patience=40)


def test_a_stop_waits_for_no_server_however_it_is_wedged(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    made = [sleeper(opened, task, f"role{n}") for n in range(5)]
    until(lambda: shown(opened, 5), what="all are shown")
    with deaf(home / "tmux.sock"):
        assert seconds(lambda: [opened.kill_agent(each.agent_id) for each in made]) < NOISE
        assert (
            TIME_OUT <= seconds(lambda: opened.validate_and_repair_registry(dry_run=False)) < TIME_OUT + NOISE
        )
        assert [each.subject for each in opened.registry_health_check().unknown] == ["tmux"]
    until(lambda: shown(opened, 0), what="their views have gone", patience=40)


def test_a_view_that_is_about_to_go_is_in_nobodys_way(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    made = sleeper(opened, task)
    until(lambda: shown(opened, 1), what="it is shown")
    opened.kill_agent(made.agent_id)
    health = opened.registry_health_check()
    assert (health.foreign_sessions, health.sessions_count) == ((), 0)
    until(lambda: opened.registry_health_check().sessions == (), what="its view has gone")


@contextmanager
def deaf(path: Path) -> Iterator[None]:
    """Have somebody listen at the view server's socket who runs, but never answers."""
    aside = path.with_suffix(".aside")
    path.rename(aside)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(50)
        try:
            yield
        finally:
            aside.replace(path)


def test_a_deploy_that_settles_ghosts_does_not_wait_for_a_wedged_server(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    ghost = sleeper(opened, task, "builder")
    until(lambda: shown(opened, 1), what="it is shown")
    assert ghost.runner_pid is not None
    with stopped(server(home)):
        os.kill(ghost.runner_pid, signal.SIGKILL)
        until(lambda: not alive(ghost.runner_pid), what="the end of the runner")
        made = []
        assert seconds(lambda: made.append(sleeper(opened, task, "builder"))) < NOISE
    assert opened.get_agent(ghost.agent_id).state == "lost"
    until(lambda: shown(opened, 1), what="only the one that lives is shown", patience=40)


def test_a_killed_server_is_started_again_by_the_next_headcount(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    made = [sleeper(opened, task, f"role{n}") for n in range(3)]
    until(lambda: shown(opened, 3), what="all are shown")
    killed = server(home)
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed), what="the end of the view server")
    until(lambda: len(opened.registry_health_check().views_missing) == 3, what="the views are missed")
    assert all(alive(each.pid) and alive(each.runner_pid) for each in made)
    done = opened.validate_and_repair_registry(dry_run=False).done
    assert sorted(each.action for each in done) == ["show_view"] * 3
    until(lambda: shown(opened, 3), what="all are shown again")
    assert server(home) != killed


def test_under_a_daemon_the_views_come_back_by_themselves_and_down_leaves_agents(
    home: Path, tmp_path: Path, require_tmux: str
) -> None:
    views = {"HEADCOUNT_VIEWS": "1"}
    with daemons.daemon(home, **views):
        task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
        made = answer("deploy", task, "--role", "builder", "--", "sleep", "600", env=views)
        until(lambda: len(sessions(home)) == 1, what="it is shown")
        os.kill(server(home), signal.SIGKILL)
        until(lambda: sessions(home) == [made["agent_id"]], what="it is shown again")
        with stopped(server(home)):
            os.kill(made["pid"], signal.SIGKILL)
            until(lambda: answer("ps")["agents"] == [], what="its end is noticed beside a wedged server")
        other = answer("deploy", task, "--role", "builder", "--", "sleep", "600", env=views)
        until(lambda: sessions(home) == [other["agent_id"]], what="only the one that lives is shown")
        down = answer("down", env=views)
        assert (down["live_agents"], alive(other["pid"])) == (1, True)
        assert sessions(home) == [other["agent_id"]]
    assert headcount("stop", other["agent_id"], env=views).code == 0
    pid = server(home)
    assert answer("down", env=views)["live_agents"] == 0
    until(lambda: not alive(pid), what="the end of the view server that shows nothing")


def sessions(home: Path) -> list[str]:
    argv = ["tmux", "-S", str(home / "tmux.sock"), "list-sessions", "-F", "#{session_name}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout.split()
