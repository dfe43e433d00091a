"""Histories that once broke an invariant, told step by step, and the races that are named in the design."""

from __future__ import annotations

from functools import partial

import pytest

from headcount.domain.errors import Infrastructure, NotAllowed, PlacementFailed, Refused
from headcount.services import deploy, report, stop
from headcount.services import headcount as counting
from headcount.services.context import Context
from tests.simulation import scene
from tests.simulation.placement import SimPlacement
from tests.simulation.stage import Stage


def test_a_run_that_a_dead_deployer_started_after_the_look_is_not_given_up(stage: Stage) -> None:
    task_id = scene.task(stage)
    tick = stage.fleet.person("tick", stage.fleet.tick)
    stage.until(tick, "looked")  # and has seen nothing
    wanted = scene.request(task_id)
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    stage.until(deployer, "pause")  # the runner is started, and has not yet its lock
    stage.world.kill(deployer.process)
    stage.finish(tick)
    stage.world.settle()
    scene.headcount(stage)
    (row,) = stage.auditor.rows.values()
    assert row["state"] == "running"


def test_a_run_that_is_started_between_two_questions_about_it_is_not_given_up(stage: Stage) -> None:
    task_id = scene.task(stage)
    deployers = []
    for role in ("one", "two"):
        wanted = scene.request(task_id, role=role)
        strand = stage.fleet.person(role, partial(deploy.deploy, request=wanted))
        stage.until(strand, "prepare")  # reserved, and nothing else is there
        deployers.append(strand)
    tick = stage.fleet.person("tick", stage.fleet.tick)
    stage.until(tick, "look at")
    stage.resume(tick)
    stage.until(tick, "look at")  # of the first it has seen that nothing is there
    first = min(deployers, key=lambda each: each.name)
    stage.until(first, "pause")  # the runner is started
    (run,) = stage.world.dirs.values()
    assert run.phase == "spawned"
    run.phase = "slow"  # and has not yet its lock
    stage.world.kill(first.process)
    stage.finish(tick)
    run.phase = "spawned"
    stage.finish(deployers[1])
    stage.world.settle()
    scene.headcount(stage)
    assert {row["outcome"] for row in stage.auditor.rows.values()} <= {None, "completed"}


@pytest.mark.parametrize("rest", ["child", "nothing"])
def test_a_status_calls_a_run_lost_only_if_nothing_of_it_is_left(stage: Stage, rest: str) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    run = scene.run_of(stage, agent_id)
    if rest == "child":
        stage.world._fork_child(run)
    assert run.runner is not None
    stage.world.kill(run.runner)
    stage.world.agent_dies(run.tree[0], 9)
    stage.alone(stage.fleet.observe)
    assert scene.state(stage, agent_id) == ("running" if rest == "child" else "lost")
    scene.headcount(stage)
    assert scene.state(stage, agent_id) == "lost"
    assert not run.living


def test_a_dead_runner_whose_second_look_fails_is_left_for_the_next_headcount(stage: Stage) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    run = scene.run_of(stage, agent_id)
    assert run.runner is not None
    stage.world.kill(run.runner)
    tick = stage.fleet.person("tick", stage.fleet.tick)
    stage.until(tick, "looked")
    run.blind = True
    stage.finish(tick)
    assert scene.state(stage, agent_id) == "running"
    run.blind = False
    scene.headcount(stage)
    assert scene.state(stage, agent_id) == "lost"


def test_a_start_that_fails_late_is_stopped_and_the_journal_says_so(stage: Stage) -> None:
    wanted = scene.request(scene.task(stage), command=("/bin/sh", "fails"))
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    stage.finish(deployer)
    assert isinstance(deployer.error, PlacementFailed)
    stage.world.settle()
    scene.headcount(stage)
    (row,) = stage.auditor.rows.values()
    assert (row["state"], row["outcome"]) == ("ended", "start_failed")


def test_a_failed_start_that_cannot_be_looked_at_is_not_called_over(stage: Stage) -> None:
    wanted = scene.request(scene.task(stage), command=("/bin/sh", "fails"))
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    stage.until(deployer, "void")
    (run,) = stage.world.dirs.values()
    run.blind = True
    stage.finish(deployer)
    assert scene.state(stage, run.key.agent_id) == "stopping"
    run.blind = False
    stage.world.settle()
    scene.headcount(stage)
    (row,) = stage.auditor.rows.values()
    assert (row["state"], row["outcome"]) == ("ended", "start_failed")


@pytest.mark.parametrize("stopper_dies", [False, True])
def test_a_stop_between_start_and_confirm_ends_the_run(stage: Stage, stopper_dies: bool) -> None:
    wanted = scene.request(scene.task(stage))
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    stage.until(deployer, "before confirm")
    (agent_id,) = stage.auditor.agents
    stopper = stage.fleet.person("stop", lambda context: stop.stop(context, agent_id, reason="", grace=0.0))
    stage.until(stopper, "signal stop")
    if stopper_dies:
        stage.world.kill(stopper.process)
    stage.finish(deployer)
    assert isinstance(deployer.error, Refused)
    assert deployer.error.code == "stopped_meanwhile"
    assert scene.state(stage, agent_id) == "ended"
    assert not scene.run_of(stage, agent_id).living
    stage.finish(stopper)
    scene.headcount(stage)


def test_a_stop_before_the_order_is_written_is_not_lost(stage: Stage) -> None:
    wanted = scene.request(scene.task(stage))
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    stage.until(deployer, "prepare")
    stage.auditor.step()
    (agent_id,) = stage.auditor.agents
    stopper = stage.fleet.person("stop", lambda context: stop.stop(context, agent_id, reason="", grace=0.0))
    stage.until(stopper, "stop is signalled")
    stage.finish(deployer)
    stage.finish(stopper)
    stage.world.settle()
    scene.headcount(stage)
    assert scene.state(stage, agent_id) == "ended"


def test_two_deployers_between_look_and_reserve_take_one_slot(stage: Stage) -> None:
    task_id = scene.task(stage, max_live=1)
    strands = [
        stage.fleet.person(role, lambda context, r=role: deploy.deploy(context, scene.request(task_id, r)))  # type: ignore[misc]
        for role in ("builder", "fixer")
    ]
    for strand in strands:
        stage.until(strand, "before deploy")
    for strand in strands:
        stage.finish(strand)
    assert [strand.error is None for strand in strands] == [True, False]
    assert len(stage.world.dirs) == 1


def test_a_living_deployers_run_is_left_alone(stage: Stage) -> None:
    wanted = scene.request(scene.task(stage))
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    for boundary in ("prepare", "the order is written", "start", "the runner is started", "before confirm"):
        stage.until(deployer, boundary)
        stage.alone(stage.fleet.tick)
        stage.alone(stage.fleet.repair)
        (row,) = stage.auditor.rows.values()
        assert row["state"] == "reserved"
    stage.finish(deployer)
    assert deployer.error is None


@pytest.mark.parametrize("lookers", ["tick", "observe", "repair"])
def test_what_cannot_be_seen_does_not_change(stage: Stage, lookers: str) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    run = scene.run_of(stage, agent_id)
    stage.world._fork_child(run)
    assert run.runner is not None
    stage.world.kill(run.runner)
    run.blind = True
    before = stage.auditor.states()
    stage.alone(getattr(stage.fleet, lookers))
    assert stage.auditor.states() == before
    assert run.living


def test_a_run_that_is_over_stays_over(stage: Stage) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    scene.end(stage, agent_id)
    scene.headcount(stage)
    stage.alone(lambda context: stop.stop(context, agent_id, reason="late", grace=0.0))
    stage.alone(stage.fleet.repair)
    row = stage.auditor.rows[scene.run_of(stage, agent_id).key]
    assert (row["state"], row["outcome"], row["stop_reason"]) == ("ended", "completed", None)


def test_a_registry_that_fails_undoes_what_was_begun(stage: Stage) -> None:
    task_id = scene.task(stage)
    strand = stage.fleet.person("deploy", lambda context: deploy.deploy(context, scene.request(task_id)))
    stage.until(strand, "before deploy")

    def full(what: str) -> None:
        raise Infrastructure(what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.world, "fault", full)
        stage.finish(strand)
    assert isinstance(strand.error, Infrastructure)
    scene.headcount(stage)
    assert not stage.world.dirs


def test_a_survivor_is_listed(stage: Stage) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    run = scene.run_of(stage, agent_id)
    stage.world._fork_child(run)
    run.tree[1].stubborn = True
    answer = scene.ask(stage, lambda context: stop.stop(context, agent_id, reason="", grace=0.0))
    assert answer.survivors == (run.tree[1].identity.pid,)


def test_nothing_of_another_run_is_stopped(stage: Stage) -> None:
    task_id = scene.task(stage)
    one = scene.person_deploys(stage, task_id, "builder").agent_id
    two = scene.agent_deploys(stage, one, "fixer").agent_id
    scene.ask(stage, lambda context: stop.stop(context, one, reason="", grace=0.0))
    assert scene.state(stage, one) == "ended"
    assert scene.state(stage, two) == "running"
    assert scene.run_of(stage, two).living


def test_a_token_acts_for_its_run_only(stage: Stage) -> None:
    task_id = scene.task(stage)
    one = scene.person_deploys(stage, task_id, "builder").agent_id
    two = scene.person_deploys(stage, task_id, "fixer").agent_id
    token = scene.run_of(stage, one).token

    def as_agent(context: Context) -> Context:
        return scene.with_token(context, token)

    said = scene.ask(
        stage,
        lambda context: report.progress(
            as_agent(context), status="working", message="at it", progress=1, agent_id=None
        ),
    )
    assert said.agent_id == one
    with pytest.raises(NotAllowed):
        scene.ask(
            stage,
            lambda context: report.progress(
                as_agent(context), status="done", message="not mine", progress=None, agent_id=two
            ),
        )
    with pytest.raises(NotAllowed):
        scene.ask(stage, lambda context: stop.stop(as_agent(context), two, reason="", grace=0.0))
    with pytest.raises(NotAllowed):
        scene.ask(stage, lambda context: stop.halt(as_agent(context), reason=""))
    assert scene.state(stage, two) == "running"


def test_an_agent_may_stop_its_descendants(stage: Stage) -> None:
    task_id = scene.task(stage)
    one = scene.person_deploys(stage, task_id, "builder").agent_id
    two = scene.agent_deploys(stage, one, "fixer").agent_id
    token = scene.run_of(stage, one).token
    scene.ask(stage, lambda context: stop.stop(scene.with_token(context, token), two, reason="", grace=0.0))
    assert scene.state(stage, two) == "ended"


def test_what_an_agent_says_after_its_end_is_kept_and_marked_late(stage: Stage) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    token = scene.run_of(stage, agent_id).token
    scene.end(stage, agent_id)
    scene.headcount(stage)
    said = scene.ask(
        stage,
        lambda context: report.finding(
            scene.with_token(context, token),
            type="insight",
            severity="low",
            message="too late",
            data={},
            agent_id=None,
        ),
    )
    assert said.late
    row = stage.auditor.said("finding", said.id)
    assert row is not None
    assert (row["message"], row["late"]) == ("too late", 1)
    assert scene.state(stage, agent_id) == "ended"


def test_a_reboot_leaves_no_row(stage: Stage) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    stage.world.reboot()
    scene.headcount(stage)
    assert scene.state(stage, agent_id) in ("lost", "ended")


def test_a_pid_that_was_given_out_again_is_not_taken_for_the_deployer(stage: Stage) -> None:
    wanted = scene.request(scene.task(stage))
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    stage.until(deployer, "the order is written")
    stage.world.kill(deployer.process)
    stage.world._next_pid = deployer.process.identity.pid - 100
    heir = stage.world.spawn("stranger")
    assert heir.identity.pid == deployer.process.identity.pid
    scene.headcount(stage)
    (row,) = stage.auditor.rows.values()
    assert (row["state"], row["outcome"]) == ("ended", "start_failed")


def test_a_repair_starts_nothing(stage: Stage) -> None:
    wanted = scene.request(scene.task(stage))
    deployer = stage.fleet.person("deploy", lambda context: deploy.deploy(context, wanted))
    stage.until(deployer, "start")
    stage.world.kill(deployer.process)
    stage.alone(stage.fleet.repair)
    (run,) = stage.world.dirs.values()
    assert (run.runner, run.starts) == (None, 0)
    assert run.void is not None
    stage.auditor.agree()


def test_a_run_is_never_started_twice(stage: Stage) -> None:
    agent_id = scene.person_deploys(stage, scene.task(stage)).agent_id
    run = scene.run_of(stage, agent_id)

    def second(context: Context) -> object:
        return context.placement.start(run.key, run.path, env={}, timeout=1.0)

    with pytest.raises(PlacementFailed):
        scene.ask(stage, second)
    scene.end(stage, agent_id)
    with pytest.raises(PlacementFailed):
        scene.ask(stage, second)
    assert run.starts == 1


def test_a_health_check_writes_nothing_and_says_what_repair_would_do(stage: Stage) -> None:
    task_id = scene.task(stage)
    names = [scene.person_deploys(stage, task_id, role).agent_id for role in ("builder", "fixer")]
    for name in names:  # only now: a deploy would have ended what a dead runner left
        runner = scene.run_of(stage, name).runner
        assert runner is not None
        stage.world.kill(runner)
    before, commits = stage.auditor.states(), stage.world.commits
    health = scene.ask(stage, lambda context: counting.check(context, task_id=None))
    assert len(health.ghosts) == 2
    assert (stage.auditor.states(), stage.world.commits) == (before, commits)
    scene.headcount(stage)


@pytest.mark.parametrize("failing", ["prepare", "the run is marked", "before confirm"])
def test_a_daemon_that_cannot_undo_a_deploy_does_so_at_its_next_headcount(stage: Stage, failing: str) -> None:
    wanted = scene.request(scene.task(stage))
    strand = stage.fleet.in_daemon("deploy", lambda context: deploy.deploy(context, wanted))
    stage.until(strand, failing)

    def full(what: str) -> None:
        raise Infrastructure(what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.world, "fault", full)  # the registry cannot be written
        if failing != "before confirm":
            patch.setattr(SimPlacement, "start", lambda *_, **__: full("no runner"))
        stage.finish(strand)
    assert isinstance(strand.error, Infrastructure)
    stage.finish(stage.fleet.in_daemon("tick", stage.fleet.tick))
    stage.auditor.agree()
    (row,) = stage.auditor.rows.values()
    assert row["state"] == ("running" if failing == "before confirm" else "ended")
