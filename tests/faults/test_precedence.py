"""Deploys go before views: in a crowd, what people wait for is not delayed by windows onto it."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headcount.domain.plan import RecordEnd
from headcount.runtimes import precedence, tmux_view
from headcount.services import settle
from tests.support import fleets, forks, needs
from tests.support.views import Fleet, fleet
from tests.support.waiting import until


@pytest.fixture
def views(home: Path, require_tmux: str) -> Iterator[Fleet]:
    needs.program("flock", how="apt-get install util-linux")
    with fleet(home, require_tmux, deploys=str(home / "deploys")) as made:
        made.shown()  # the server is there
        yield made


def deploy_for_ever(path: Path, pipe: int) -> None:
    with precedence.deploying(str(path)):
        os.write(pipe, b"in")
        signal.pause()


def waiters(path: Path) -> int:
    """Count those that are blocked on the lock of a file."""
    inode = f":{path.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(inode in f"{line} " and "->" in line for line in lines)


def test_a_view_waits_for_the_deploys_of_others(views: Fleet) -> None:
    deploys = views.home / "deploys"
    run = views.run()
    with forks.child(lambda pipe: deploy_for_ever(deploys, pipe)) as (_, pipe):
        assert os.read(pipe, 2) == b"in"
        before = time.monotonic()
        views.show(run)
        until(lambda: waiters(deploys), what="a view that waits")
        waited = run.name not in views.names()
        assert waited or time.monotonic() - before > tmux_view.PATIENCE  # on a very busy machine it is over
    until(lambda: run.name in views.names(), what="the view, when the deploy is over")


def test_a_stopped_deploy_delays_a_view_for_a_second(views: Fleet) -> None:
    run = views.run()
    with forks.child(lambda pipe: deploy_for_ever(views.home / "deploys", pipe)) as (pid, pipe):
        assert os.read(pipe, 2) == b"in"
        os.kill(pid, signal.SIGSTOP)
        before = time.monotonic()
        views.show(run)
        until(lambda: run.name in views.names(), what="the view, in spite of the deploy")
        assert time.monotonic() - before >= tmux_view.PATIENCE


def test_without_a_program_that_can_wait_a_view_comes_at_once(home: Path, require_tmux: str) -> None:
    """As on macOS."""
    programs = home / "programs"
    programs.mkdir()
    for name in ("sh", "sed", "tail", "sleep"):
        (programs / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    with (
        fleet(home, require_tmux, env={"PATH": str(programs)}, deploys=str(home / "deploys")) as made,
        precedence.deploying(str(home / "deploys")),
    ):
        made.shown(b"hello\n")


def test_a_deploy_that_waits_for_its_start_holds_views_back(home: Path) -> None:
    deploys = str(home / "gates" / "deploys")
    with fleets.fleet(home, views=True) as opened:
        task = fleets.new_task(opened, home.parent)

        def deploy(pipe: int) -> None:
            fleets.sleeper(opened, task)
            os.write(pipe, b"deployed")
            signal.pause()

        with taken(home / "gates") as places, forks.child(deploy) as (_, pipe):
            until(lambda: precedence.under_way(deploys), what="a deploy under way")
            for place in places:
                fcntl.flock(place, fcntl.LOCK_UN)  # the child has a copy of the descriptor
            assert os.read(pipe, 8) == b"deployed"
            until(opened.context.views.list, what="its view")
            assert not precedence.under_way(deploys)


@contextmanager
def taken(gates: Path) -> Iterator[list[int]]:
    """Hold all places for starting runners."""
    places = [os.open(gates / str(i), os.O_RDWR | os.O_CREAT) for i in range(max(2, os.cpu_count() or 1))]
    for place in places:
        fcntl.flock(place, fcntl.LOCK_EX)
    try:
        yield places
    finally:
        for place in places:
            os.close(place)


def test_a_row_that_was_reserved_since_the_look_is_left_to_the_next(home: Path) -> None:
    """In a crowd most are; to look at each under the writers' lock would cost the square of the crowd."""
    with fleets.fleet(home) as opened:
        context = opened.context
        task = fleets.new_task(opened, home.parent)
        before = settle.look(context, act=True)
        made = opened.deploy(task, role="builder", harness="command", command=("true",))
        until(lambda: not fleets.alive(made.runner_pid), what="the end of the run")
        with context.registry.read() as tx:
            rows = tx.runs.live()
        assert [row.key.agent_id for row in rows] == [made.agent_id]
        assert settle.plan(context, before, rows) == []
        (action,) = settle.plan(context, settle.look(context, act=True), rows)
        assert isinstance(action, RecordEnd)
