"""Races forced at named points of a deploy: a deployer is held before one of its two write transactions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from headcount import Headcount, bootstrap
from headcount.domain.errors import HeadcountError, Refused
from headcount.services.answers import Deployed
from headcount.store.registry import Registry, Tx
from tests.support.fleets import alive, fleet, live_runs, new_task, sleeper

RESERVE, CONFIRM = "deploy", "confirm"
"""The purposes of the two transactions."""


class Pausing(Registry):
    """A registry whose transaction for one purpose waits for a word of the test."""

    def pause_before(self, purpose: str) -> None:
        self.purpose = purpose
        self.there = threading.Event()
        self.go = threading.Event()

    @contextmanager
    def write(self, purpose: str) -> Iterator[Tx]:
        if purpose == self.purpose:
            self.there.set()
            assert self.go.wait(30)
        with super().write(purpose) as tx:
            yield tx


class Held:
    """A fleet of which a deploy is held before the transaction `at` until `go`."""

    def __init__(self, home: Path, at: str) -> None:
        settings = {"views": False, "autostart": False, "min_memory_mb": 1}
        context = bootstrap.context(home, settings)
        place = context.home
        self.registry = Pausing(
            place.registry,
            place.registry_lock,
            quarantine=place.quarantine,
            backups=place.backups,
            clock=context.clock.now,
        )
        self.registry.pause_before(at)
        self.fleet = Headcount.of(replace(context, registry=self.registry))

    def go(self) -> None:
        self.registry.go.set()


@contextmanager
def deploying(
    home: Path, task: str, at: str, role: str = "builder"
) -> Iterator[tuple[Held, Future[Deployed]]]:
    """Start a deploy, hold it there, and let it go at the end if the test has not."""
    held = Held(home, at)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sleeper, held.fleet, task, role)
        try:
            assert held.registry.there.wait(30)
            yield held, future
        finally:
            held.go()
            future.exception(60)
    held.fleet.close()


def test_two_deployers_that_have_both_looked_do_not_both_get_the_role(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        with deploying(home, task, RESERVE) as (held, first):
            second = sleeper(opened, task)
            held.go()
            with pytest.raises(Refused) as refused:
                first.result(60)
        assert refused.value.code == "duplicate_role"
        assert refused.value.holders == (second.agent_id,)
        assert len(opened.list_agents().agents) == 1


def test_two_deployers_that_have_both_looked_do_not_both_get_the_last_place(
    home: Path, tmp_path: Path
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, max_live=1)
        with deploying(home, task, RESERVE, "a") as (held, first):
            sleeper(opened, task, "b")
            held.go()
            with pytest.raises(Refused) as refused:
                first.result(60)
        assert refused.value.code == "max_live"
        assert opened.registry_health_check().live_runs == 1


def test_a_stop_between_start_and_confirm_ends_the_run_and_refuses_the_deploy(
    home: Path, tmp_path: Path
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        with deploying(home, task, CONFIRM) as (held, deploy):
            (agent,) = opened.list_agents().agents
            assert agent.state == "reserved"
            stopped = opened.stop_agent(agent.agent_id, reason="changed my mind")
            assert (stopped.state, stopped.outcome) == ("ended", "stopped")
            held.go()
            with pytest.raises(HeadcountError):
                deploy.result(60)
        assert live_runs(home) == []
        assert opened.registry_health_check().healthy
        assert opened.get_task_status(task).counts["stopped"] == 1


def test_a_halt_between_start_and_confirm_leaves_nothing_running(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        with deploying(home, task, CONFIRM) as (held, deploy):
            opened.halt(reason="fire")
            held.go()
            with pytest.raises(HeadcountError):
                deploy.result(60)
        assert live_runs(home) == []
        assert opened.registry_health_check().live_rows == 0
        with pytest.raises(Refused) as refused:
            sleeper(opened, task)
        assert refused.value.code == "halted"
        opened.release_halt()
        sleeper(opened, task)


@pytest.mark.parametrize("at", [RESERVE, CONFIRM])
def test_a_repair_beside_a_deploy_leaves_it_alone(at: str, home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        with deploying(home, task, at) as (held, deploy):
            for _ in range(3):
                assert opened.validate_and_repair_registry(dry_run=False).done == ()
            held.go()
            made = deploy.result(60)
        assert made.state == "running"
        assert alive(made.pid)
        assert opened.registry_health_check().healthy


def test_a_deploy_beside_a_deploy_leaves_it_alone(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        with deploying(home, task, CONFIRM, "first") as (held, first):
            second = sleeper(opened, task, "second")
            held.go()
            assert {first.result(60).state, second.state} == {"running"}
        assert opened.registry_health_check().live_runs == 2
