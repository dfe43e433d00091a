"""The predecessor's worst morning: 18 live rows, nothing running, and 17 sessions that still stand."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.services.answers import Deployed
from tests.support.fleets import alive, clear, fleet, new_task, sleeper
from tests.support.waiting import until

GHOSTS, STANDING = 18, 17


@pytest.fixture
def opened(home: Path, require_tmux: str) -> Iterator[Headcount]:
    with fleet(home, views=True) as opened:
        yield opened
        clear(opened)
        opened.context.views.shut()


@pytest.mark.parametrize("with_server", [True, False], ids=["17-sessions-stand", "no-tmux-server"])
def test_one_repair_leaves_no_ghost_and_no_session_of_one(
    home: Path, opened: Headcount, tmp_path: Path, with_server: bool
) -> None:
    sick, well = new_task(opened, tmp_path), new_task(opened, tmp_path)
    ghosts = [sleeper(opened, sick, f"role{n}") for n in range(GHOSTS)]
    healthy = sleeper(opened, well)
    until(lambda: opened.registry_health_check().sessions_count == GHOSTS + 1, what="all are shown")
    if with_server:
        _let_them_stand(home, [each.agent_id for each in ghosts[:STANDING]])
    else:
        os.kill(int(_tmux(home, "display-message", "-p", "#{pid}")), signal.SIGKILL)
    _kill_runners(ghosts)

    found = opened.registry_health_check()
    assert (found.healthy, len(found.ghosts), found.live_rows, found.live_runs) == (False, GHOSTS, 19, 1)
    standing = {each.agent_id for each in ghosts[:STANDING]}
    if with_server:
        assert {each.name for each in found.sessions} >= standing
        assert all(each.agent_id == each.name for each in found.sessions), "each names its agent"
    assert opened.registry_health_check(task_id=well).ghosts == ()

    rows, names = _rows(home), _names(home)
    assert len(opened.validate_and_repair_registry(dry_run=True).ghosts) == GHOSTS
    assert _rows(home) == rows
    assert _names(home) >= names & standing, "a dry run closes nothing"

    if not with_server:  # a session is missed once its run is a second old
        until(lambda: opened.registry_health_check().views_missing, what="the healthy one's is missed")
    done = opened.validate_and_repair_registry(dry_run=False)
    assert (len(done.ghosts), done.live_rows, done.live_runs) == (0, 1, 1)
    assert _names(home) == {healthy.agent_id}
    assert done.healthy
    assert opened.validate_and_repair_registry(dry_run=False).done == ()
    assert not any(alive(each.pid) for each in ghosts)
    assert alive(healthy.pid)
    assert sleeper(opened, sick, "role0").state == "running"


def test_repairing_one_task_takes_its_sessions_and_no_others(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    sick, other = new_task(opened, tmp_path), new_task(opened, tmp_path)
    one, two = sleeper(opened, sick), sleeper(opened, other)
    until(lambda: opened.registry_health_check().sessions_count == 2, what="both are shown")
    _let_them_stand(home, [one.agent_id, two.agent_id])
    _kill_runners([one, two])
    assert len(opened.validate_and_repair_registry(dry_run=False, task_id=sick).done) == 1
    assert _names(home) == {two.agent_id}
    assert [each.agent_id for each in opened.registry_health_check().ghosts] == [two.agent_id]


def _let_them_stand(home: Path, names: Sequence[str]) -> None:
    """Replace sessions by ones of the same name that do not end by themselves."""
    for name in names:
        _tmux(home, "kill-session", "-t", f"={name}", ";", "new-session", "-d", "-s", name, "sleep 600")


def _kill_runners(made: Sequence[Deployed]) -> None:
    for each in made:
        assert each.runner_pid is not None
        os.kill(each.runner_pid, signal.SIGKILL)
    until(lambda: not any(alive(each.runner_pid) for each in made), what="dead runners")


def _tmux(home: Path, *words: str) -> str:
    argv = ["tmux", "-S", str(home / "tmux.sock"), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout


def _names(home: Path) -> set[str]:
    argv = ["tmux", "-S", str(home / "tmux.sock"), "list-sessions", "-F", "#{session_name}"]
    listed = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return set(listed.stdout.split())


def _rows(home: Path) -> str:
    connection = sqlite3.connect(f"file:{home / 'registry.db'}?mode=ro", uri=True)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()
