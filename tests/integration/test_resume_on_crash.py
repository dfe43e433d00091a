"""The daemon lets an agent go on that crashed, as often as was asked for, and not one that was stopped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.errors import InvalidInput
from headcount.domain.model import Caller
from tests.support import daemons
from tests.support.fleets import SLEEPER, alive, fleet, new_task
from tests.support.waiting import until

SLEEPS = json.dumps([{"sleep": 600}])


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


def deploy(opened: Headcount, tmp_path: Path, **more: Any) -> str:
    task = new_task(opened, tmp_path)
    asked: dict[str, Any] = {"harness": "script", "prompt": SLEEPS, "resume_on_crash": 1, **more}
    return opened.deploy(task, role="builder", **asked).agent_id


def killed(opened: Headcount, agent_id: str, run: int) -> None:
    """Kill the agent's program in that run, once it runs; nobody of ours asked for it."""

    def process() -> int | None:
        facts = opened.get_agent(agent_id)
        return facts.pid if facts.run == run and facts.state == "running" else None

    pid = until(process, what=f"run {run}", patience=30)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), what="its end")


def runs(opened: Headcount, agent_id: str) -> list[tuple[int, str, str | None]]:
    return [(run.run, run.why, run.ending) for run in opened.get_agent(agent_id).runs]


def test_an_agent_that_is_killed_goes_on_as_often_as_asked(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    agent_id = deploy(opened, tmp_path)
    with daemons.daemon(home):
        killed(opened, agent_id, 1)
        killed(opened, agent_id, 2)
        until(lambda: opened.get_agent(agent_id).state == "ended", what="its end", patience=20)
    assert runs(opened, agent_id) == [(1, "deploy", "killed"), (2, "crash", "killed")]
    events = opened.read_events(agent_id=agent_id).events
    assert [each.reason for each in events if each.kind == "run_reserved"] == [None, "crash"]


def test_an_agent_that_crashed_while_no_daemon_was_there_goes_on(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    agent_id = deploy(opened, tmp_path)
    runner = opened.get_agent(agent_id).runner_pid
    assert runner is not None
    os.kill(runner, signal.SIGKILL)
    until(lambda: not alive(runner), what="its end")
    with daemons.daemon(home):
        until(lambda: opened.get_agent(agent_id).run == 2, what="the next run", patience=30)
    assert [why for _, why, _ in runs(opened, agent_id)] == ["deploy", "crash"]


def test_a_stop_by_a_person_is_final(home: Path, opened: Headcount, tmp_path: Path) -> None:
    stopped, other = deploy(opened, tmp_path), deploy(opened, tmp_path)
    opened.kill_agent(stopped)
    with daemons.daemon(home):
        killed(opened, other, 1)
        until(lambda: opened.get_agent(other).run == 2, what="the next run", patience=30)
    assert [why for _, why, _ in runs(opened, stopped)] == ["deploy"]


def test_an_agent_gets_again_what_it_was_given_of_its_deployers_environment(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    acting = opened.acting_as(Caller(cwd=str(tmp_path), env={**os.environ, "THE_KEY": "of the deployer"}))
    agent_id = deploy(acting, tmp_path, env=["THE_KEY"])
    with daemons.daemon(home):
        until(lambda: _has_looked(opened, home), what="the daemon's first look")
        killed(opened, agent_id, 1)
        second = until(lambda: _running(opened, agent_id, 2), what="the next run", patience=30)
        environ = Path(f"/proc/{second}/environ").read_bytes().split(b"\0")
    assert b"THE_KEY=of the deployer" in environ


def _has_looked(opened: Headcount, home: Path) -> bool:
    """A crash that is answered shows that the look before it was over."""
    other = deploy(opened, home)
    killed(opened, other, 1)
    until(lambda: opened.get_agent(other).run == 2, what="the next run", patience=30)
    return True


def _running(opened: Headcount, agent_id: str, run: int) -> int | None:
    facts = opened.get_agent(agent_id)
    return facts.pid if facts.run == run and facts.state == "running" else None


def test_a_harness_without_conversations_is_refused(opened: Headcount, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="conversation"):
        deploy(opened, tmp_path, harness="command", command=SLEEPER, prompt=None)
    with pytest.raises(InvalidInput):
        deploy(opened, tmp_path, resume_on_crash=-1)
