"""The daemon's watchdog, on real processes: each thing that it sees, and each that it does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.daemon.watchdog import Watchdog
from headcount.domain.errors import InvalidInput
from headcount.domain.model import Caller
from headcount.domain.watchdog import Vitals
from headcount.runtimes import vitals
from headcount.services.answers import EventFacts
from headcount.services.context import Clock
from tests.support import daemons
from tests.support.fleets import SLEEPER, alive, fleet, new_task, sleeper
from tests.support.waiting import until

SOON: dict[str, Any] = {"act_after_s": 0.2, "restart_backoff_s": 0.1}
SLEEPS = json.dumps([{"sleep": 600}])
STALL: dict[str, Any] = {**SOON, "stall_after_s": 0.4}


@pytest.fixture(scope="module")
def watched() -> Iterator[Path]:
    with daemons.shared(HEADCOUNT_WATCHDOG_EVERY="0.1") as home:
        yield home


@pytest.fixture
def opened(watched: Path) -> Iterator[Headcount]:
    with fleet(watched) as each:
        yield each


def deploy(opened: Headcount, project: Path, policy: dict[str, Any], *command: str, **more: Any) -> str:
    """Deploy an agent that is held to a policy: this command, or one that sleeps."""
    task = new_task(opened, project)
    asked: dict[str, Any] = {"harness": "command", "command": command or SLEEPER, "policy": policy, **more}
    return opened.deploy(task, role="builder", **asked).agent_id


def events(opened: Headcount, agent_id: str, kind: str) -> list[EventFacts]:
    return [each for each in opened.read_events(agent_id=agent_id).events if each.kind == kind]


def seen(opened: Headcount, agent_id: str, *, kind: str = "flag_raised") -> set[str | None]:
    return {each.reason for each in events(opened, agent_id, kind)}


def flagged(opened: Headcount, agent_id: str, signal: str) -> EventFacts:
    """Return the flag, once it is raised."""
    until(lambda: signal in seen(opened, agent_id), what=f"the flag {signal}", patience=30)
    return next(each for each in events(opened, agent_id, "flag_raised") if each.reason == signal)


def cleared(opened: Headcount, agent_id: str, signal: str) -> None:
    until(
        lambda: signal in seen(opened, agent_id, kind="flag_cleared"), what=f"{signal} is over", patience=30
    )


def stopped_by_the_watchdog(opened: Headcount, agent_id: str, why: str) -> None:
    until(lambda: opened.get_agent(agent_id).state == "ended", what="its end", patience=30)
    asked = events(opened, agent_id, "stop_asked")
    assert [(each.data["by"], why in (each.reason or "")) for each in asked] == [("watchdog", True)]
    outcome = "timed_out" if "longer" in why else "stopped"
    assert opened.get_agent(agent_id).outcome == outcome


# what it sees, and the end that follows


def test_silence_is_flagged_until_there_is_output(opened: Headcount, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waits = f"while [ ! -e {go} ]; do sleep 0.05; done; echo on; exec sleep 600"
    agent_id = deploy(opened, tmp_path, STALL, "/bin/sh", "-c", waits)
    assert flagged(opened, agent_id, "stalled").data["limit_s"] == 0.4
    go.touch()
    cleared(opened, agent_id, "stalled")


def test_a_silent_idle_agent_is_stopped_where_that_is_the_policy(opened: Headcount, tmp_path: Path) -> None:
    agent_id = deploy(opened, tmp_path, {**STALL, "on_stall": "stop"})
    stopped_by_the_watchdog(opened, agent_id, "written and reported nothing")
    assert seen(opened, agent_id, kind="flag_acted") == {"stalled"}


def test_a_silent_agent_that_computes_is_not_stopped(opened: Headcount, tmp_path: Path) -> None:
    policy = {**STALL, "on_stall": "stop", "wall_limit_s": 2.0}
    agent_id = deploy(opened, tmp_path, policy, "/bin/sh", "-c", "while :; do :; done")
    assert flagged(opened, agent_id, "stalled").data["cpu_s"] != 0
    flagged(opened, agent_id, "wall_time")  # long after it would have been stopped
    assert opened.get_agent(agent_id).state == "running"


def test_a_halted_agent_is_flagged_until_it_goes_on(opened: Headcount, tmp_path: Path) -> None:
    agent_id = deploy(opened, tmp_path, {"stopped_after_s": 0.3})
    pid = opened.get_agent(agent_id).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    flagged(opened, agent_id, "stopped")
    os.kill(pid, signal.SIGCONT)
    cleared(opened, agent_id, "stopped")


@pytest.mark.parametrize(
    ("policy", "command", "why"),
    [
        ({"wall_limit_s": 0.5, "on_wall": "stop"}, SLEEPER, "longer than it may"),
        (
            {"memory_limit_mb": 40, "on_memory": "stop"},
            ("python3", "-c", "import time; kept = bytearray(80_000_000); time.sleep(600)"),
            "more memory",
        ),
        (
            {"output_limit_mb": 1, "on_output": "stop"},
            ("/bin/sh", "-c", "head -c 1500000 /dev/zero; exec sleep 600"),
            "written more",
        ),
        ({"stopped_after_s": 0.3, "on_stopped": "stop"}, ("/bin/sh", "-c", "kill -STOP $$"), "halted"),
    ],
    ids=["wall", "memory", "output", "stopped"],
)
def test_an_agent_over_its_limit_is_stopped(
    policy: dict[str, Any], command: tuple[str, ...], why: str, opened: Headcount, tmp_path: Path
) -> None:
    agent_id = deploy(opened, tmp_path, {**SOON, **policy}, *command)
    stopped_by_the_watchdog(opened, agent_id, why)


def test_one_that_says_it_is_done_and_lives_on_is_stopped(opened: Headcount, tmp_path: Path) -> None:
    steps = json.dumps([{"report": {"status": "done", "message": "all of it"}}, {"sleep": 600}])
    policy = {**SOON, "linger_after_s": 0.4, "on_linger": "stop"}
    agent_id = deploy(opened, tmp_path, policy, harness="script", command=(), prompt=steps)
    stopped_by_the_watchdog(opened, agent_id, "said that it is done")


def test_an_agent_that_outlives_its_runner_is_flagged_and_ended(opened: Headcount, tmp_path: Path) -> None:
    agent_id = deploy(opened, tmp_path, {}, "/bin/sh", "-c", "sleep 600 & echo $!; wait")
    child = int(until(lambda: told(opened, agent_id), what="its child"))
    runner = opened.get_agent(agent_id).runner_pid
    assert runner is not None
    os.kill(runner, signal.SIGKILL)
    assert child in flagged(opened, agent_id, "runner_gone").data["pids"]  # type: ignore[operator]
    assert (opened.get_agent(agent_id).state, alive(child)) == ("lost", False)
    cleared(opened, agent_id, "runner_gone")


def test_an_end_without_a_final_report_is_flagged(opened: Headcount, tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"type": "result", "subtype": "success"}\'\n')
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANTHROPIC_API_KEY": "none"}
    acting = opened.acting_as(Caller(cwd=str(tmp_path), env=env))
    lead = deploy(opened, tmp_path, {}, harness="script", command=(), prompt=SLEEPS, steer=True)
    child = acting.deploy(
        opened.get_agent(lead).task_id,
        role="tester",
        prompt="test it",
        harness="claude",
        parent=lead,
        policy={"on_unreported": "tell_parent"},
    ).agent_id
    flagged(opened, child, "unreported")
    until(lambda: "without a final report" in told(opened, lead), what="its parent knows", patience=30)


# what it says


def told(opened: Headcount, agent_id: str) -> str:
    return opened.get_agent_output(agent_id).text


def test_a_stalled_agent_is_told(opened: Headcount, tmp_path: Path) -> None:
    policy = {**STALL, "on_stall": "tell_agent"}
    agent_id = deploy(opened, tmp_path, policy, harness="script", command=(), prompt=SLEEPS, steer=True)
    until(lambda: "watchdog, about you" in told(opened, agent_id), what="it is told", patience=30)
    cleared(opened, agent_id, "stalled")  # for it has answered


def test_the_parent_of_a_stalled_agent_is_told_and_a_root_has_none(opened: Headcount, tmp_path: Path) -> None:
    lead = deploy(opened, tmp_path, {}, harness="script", command=(), prompt=SLEEPS, steer=True)
    task, policy = opened.get_agent(lead).task_id, {**STALL, "on_stall": "tell_parent"}
    child = sleeper(opened, task, "tester", parent=lead, policy=policy).agent_id
    root = sleeper(opened, task, "fixer", policy=policy).agent_id
    until(lambda: f"about {child}" in told(opened, lead), what="it is told", patience=30)
    flagged(opened, root, "stalled")
    assert not events(opened, root, "message_sent")


# restarts


def runs(opened: Headcount, agent_id: str) -> list[tuple[int, str | None]]:
    return [(run.run, run.outcome) for run in opened.get_agent(agent_id).runs]


def script(opened: Headcount, project: Path, **policy: Any) -> str:
    held = {**STALL, "on_stall": "restart", **policy}
    return deploy(opened, project, held, harness="script", command=(), prompt=SLEEPS)


def test_a_stalled_agent_goes_on_as_often_as_it_may_and_is_given_up(
    opened: Headcount, tmp_path: Path
) -> None:
    agent_id = script(opened, tmp_path, restarts=1)
    given_up = until(lambda: events(opened, agent_id, "restart_given_up"), what="its end", patience=40)
    assert given_up[0].reason == "it was restarted 1 times within 3600 s"
    assert runs(opened, agent_id) == [(1, "stopped"), (2, "stopped")]
    assert [each.run for each in events(opened, agent_id, "restarted")] == [2]


def test_an_agent_that_cannot_go_on_is_not_stopped_for_a_restart(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path, policy={**STALL, "on_stall": "restart"})
    agent_id = sleeper(opened, task).agent_id
    until(lambda: events(opened, agent_id, "restart_given_up"), what="it is given up", patience=30)
    assert opened.get_agent(agent_id).state == "running"
    with pytest.raises(InvalidInput, match="restarted"):
        sleeper(opened, task, "tester", policy={"on_stall": "restart"})


# intent wins


def waiting(opened: Headcount, project: Path) -> str:
    """Return an agent that the watchdog has stopped and will restart, but not soon."""
    agent_id = script(opened, project, restart_backoff_s=600.0)
    until(lambda: runs(opened, agent_id) == [(1, "stopped")], what="its stop", patience=30)
    return agent_id


@pytest.mark.parametrize(
    "intend",
    [
        lambda opened, agent_id: opened.stop_agent(agent_id),
        lambda opened, _: (opened.halt(), opened.release_halt()),
    ],
    ids=["stop", "halt"],
)
def test_what_a_person_stops_is_not_restarted(
    intend: Callable[[Headcount, str], object], opened: Headcount, tmp_path: Path
) -> None:
    agent_id = waiting(opened, tmp_path)
    with opened.context.registry.read() as tx:
        assert [flag.key.agent_id for flag in tx.flags.owed()] == [agent_id]
    intend(opened, agent_id)
    with opened.context.registry.read() as tx:
        assert tx.flags.owed() == []


@pytest.mark.parametrize("intent", ["halt", "pause"])
def test_while_a_persons_word_is_in_force_nothing_is_done(
    intent: str, opened: Headcount, tmp_path: Path, watched: Path
) -> None:
    agent_id = deploy(opened, tmp_path, {**STALL, "on_stall": "stop", "wall_limit_s": 1.5})
    task = opened.get_agent(agent_id).task_id
    if intent == "halt":
        (watched / "halted").touch()  # as a halt leaves it that ended everything but this agent
    else:
        opened.pause_task(task)
    try:
        flagged(opened, agent_id, "wall_time")
        assert opened.get_agent(agent_id).state == "running"
    finally:
        (watched / "halted").unlink(missing_ok=True)
    if intent == "pause":
        opened.resume_task(task)
    stopped_by_the_watchdog(opened, agent_id, "nothing")


# what cannot be told


def test_where_there_is_no_process_table_only_the_output_is_known(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        agent_id = deploy(opened, tmp_path, {}, "/bin/sh", "-c", "echo 12345; exec sleep 600")
        until(lambda: told(opened, agent_id), what="its output")
        with opened.context.registry.read() as tx:
            run = tx.runs.get(agent_id)
        assert run is not None
        found = vitals.measure([run], weigh=[run.key], proc=False)[run.key]
    assert replace(found, written_at=None) == Vitals(output=6)


# time


class Jumped:
    """The clock of a machine that has slept, for `monotonic` only if that counts sleep too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.slept = self.halted = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def boottime(self) -> float:
        return self._clock.boottime() + self.slept + self.halted

    def monotonic(self) -> float:
        return self._clock.monotonic() + self.halted


@pytest.mark.parametrize("kind", ["slept", "halted"])
def test_nothing_fires_for_a_night_in_which_nobody_watched(kind: str, home: Path, tmp_path: Path) -> None:
    """The machine slept, or everything on it was halted, which the clocks do not tell."""
    with fleet(home, watchdog_every=0.1) as opened:
        agent_id = deploy(opened, tmp_path, {"stall_after_s": 3600.0, "wall_limit_s": 3600.0})
        clock: Any = Jumped(opened.context.clock)
        watchdog = Watchdog(replace(opened.context, clock=clock), remember=lambda _: None)
        watchdog.look()
        setattr(clock, kind, 8 * 3600.0)
        watchdog.look()
        watchdog.look()
        assert seen(opened, agent_id) == set()
        again = Watchdog(replace(opened.context, clock=clock), remember=lambda _: None)
        again.look()
        assert kind == "halted" or seen(opened, agent_id) == set()


def test_an_agent_s_child_is_held_to_what_its_task_says(opened: Headcount, tmp_path: Path) -> None:
    """The policy goes its whole way: from a task, through the daemon's tool, to what the watchdog does."""
    spawn = {"role": "tester", "harness": "command", "command": list(SLEEPER), "policy": {"on_wall": "flag"}}
    steps = json.dumps([{"spawn": spawn}, {"sleep": 600}])
    roles = {"tester": {**SOON, "wall_limit_s": 0.3, "on_wall": "stop"}}
    task = new_task(opened, tmp_path, policy={"roles": roles})
    opened.deploy(task, role="lead", harness="script", prompt=steps)

    def child() -> str | None:
        found = opened.list_agents(task_id=task, all=True).agents
        return next((each.agent_id for each in found if each.role == "tester"), None)

    agent_id = until(child, what="its child", patience=30)
    assert agent_id is not None
    stopped_by_the_watchdog(opened, agent_id, "longer than it may")
