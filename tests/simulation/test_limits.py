"""One test for each limit and rule: up to it admitted, beyond it refused, and nothing started."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headcount.domain.errors import InvalidInput, NotFound, Refused
from headcount.domain.model import Limits
from headcount.services import stop, tasks
from tests.simulation import scene
from tests.simulation.stage import Stage


def refused(stage: Stage, code: str, deploy: Callable[[], object]) -> Refused:
    """Check that a deploy is refused for this reason, starts nothing, and is in the journal."""
    started, rows = len(stage.world.dirs), len(stage.auditor.rows)
    with pytest.raises(Refused) as caught:
        deploy()
    assert caught.value.code == code
    stage.auditor.step()
    assert (len(stage.world.dirs), len(stage.auditor.rows)) == (started, rows)
    assert sum(task.refusals.get(code, 0) for task in stage.auditor.tasks.values()) == 1
    return caught.value


class TestWidth:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(machine_max_live=2)

    def test_machine_max_live(self, stage: Stage) -> None:
        one, two = scene.task(stage), scene.task(stage)
        first = scene.person_deploys(stage, one)
        second = scene.person_deploys(stage, two)
        error = refused(stage, "machine_max_live", lambda: scene.person_deploys(stage, two, "fixer"))
        assert error.value == 2
        assert set(error.holders) == {first.agent_id, second.agent_id}
        scene.end(stage, first.agent_id)
        scene.person_deploys(stage, two, "fixer")  # a dead agent holds no slot, though nobody has counted

    def test_max_live_of_a_task(self, stage: Stage) -> None:
        task_id = scene.task(stage, max_live=1)
        first = scene.person_deploys(stage, task_id)
        error = refused(stage, "max_live", lambda: scene.person_deploys(stage, task_id, "fixer"))
        assert error.holders == (first.agent_id,)
        scene.end(stage, first.agent_id)
        scene.person_deploys(stage, task_id, "fixer")

    def test_max_agents_counts_those_that_ended(self, stage: Stage) -> None:
        task_id = scene.task(stage, max_agents=2)
        for role in ("builder", "fixer"):
            scene.end(stage, scene.person_deploys(stage, task_id, role).agent_id)
        refused(stage, "max_agents", lambda: scene.person_deploys(stage, task_id, "tester"))


class TestTree:
    def test_max_depth(self, stage: Stage) -> None:
        task_id = scene.task(stage, max_depth=2)
        root = scene.person_deploys(stage, task_id, "builder")
        child = scene.agent_deploys(stage, root.agent_id, "fixer")
        assert (root.depth, child.depth, child.parent) == (1, 2, root.agent_id)
        refused(stage, "max_depth", lambda: scene.agent_deploys(stage, child.agent_id, "tester"))

    def test_the_spawn_rate_is_over_a_window(self, stage: Stage) -> None:
        root = scene.person_deploys(stage, scene.task(stage))
        for role in ("fixer", "tester"):
            scene.agent_deploys(stage, root.agent_id, role)
        refused(stage, "spawn_rate", lambda: scene.agent_deploys(stage, root.agent_id, "reviewer"))
        stage.world.pass_time(10.1)
        scene.agent_deploys(stage, root.agent_id, "reviewer")

    def test_a_person_is_not_rate_limited(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        for role in ("a", "b", "c", "d"):
            scene.person_deploys(stage, task_id, role)

    def test_spawn_rules_bind_the_roles_they_name(self, stage: Stage) -> None:
        task_id = scene.task(stage, spawn_rules={"builder": ["fixer"]})
        root = scene.person_deploys(stage, task_id, "builder")
        refused(stage, "spawn_rule", lambda: scene.agent_deploys(stage, root.agent_id, "tester"))
        child = scene.agent_deploys(stage, root.agent_id, "fixer")
        scene.agent_deploys(stage, child.agent_id, "tester")

    def test_an_unknown_parent(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        nobody = "builder-0123456789abcdef"
        refused(stage, "parent_unknown", lambda: scene.person_deploys(stage, task_id, parent=nobody))

    def test_a_parent_of_another_task(self, stage: Stage) -> None:
        other = scene.person_deploys(stage, scene.task(stage)).agent_id
        task_id = scene.task(stage)
        refused(stage, "parent_foreign", lambda: scene.person_deploys(stage, task_id, parent=other))

    def test_a_parent_that_has_ended(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        parent = scene.person_deploys(stage, task_id).agent_id
        scene.end(stage, parent)
        refused(stage, "parent_ended", lambda: scene.person_deploys(stage, task_id, "fixer", parent=parent))


class TestSameness:
    def test_duplicate_role(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        first = scene.person_deploys(stage, task_id)
        error = refused(stage, "duplicate_role", lambda: scene.person_deploys(stage, task_id))
        assert error.holders == (first.agent_id,)
        scene.person_deploys(stage, scene.task(stage))  # another task's builder is another's
        scene.person_deploys(stage, task_id, allow_duplicate_role=True)
        scene.end(stage, first.agent_id)
        refused_again = pytest.raises(Refused, match="a live builder")
        with refused_again:  # the double that was asked for holds the role too
            scene.person_deploys(stage, task_id)

    def test_same_work(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        scene.person_deploys(stage, task_id, "builder", prompt="mend the roof")
        same = {"prompt": " mend the roof\n"}
        refused(stage, "same_work", lambda: scene.person_deploys(stage, task_id, "fixer", **same))
        scene.person_deploys(stage, task_id, "fixer", allow_same_work=True, **same)
        scene.person_deploys(stage, task_id, "tester", prompt="mend the door")

    def test_an_idempotency_key_gives_the_first_answer_again(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        first = scene.person_deploys(stage, task_id, idempotency_key="k")
        again = scene.person_deploys(stage, task_id, idempotency_key="k")
        assert (again.agent_id, again.repeated) == (first.agent_id, True)
        scene.end(stage, first.agent_id)
        assert scene.person_deploys(stage, task_id, idempotency_key="k").agent_id == first.agent_id
        assert len(stage.world.dirs) == 1

    def test_an_idempotency_key_is_for_one_request(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        scene.person_deploys(stage, task_id, idempotency_key="k")
        other = {"idempotency_key": "k"}
        refused(
            stage, "idempotency_key_reused", lambda: scene.person_deploys(stage, task_id, "fixer", **other)
        )


class TestMachine:
    def test_disk(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        stage.world.free_disk_mb = 99
        refused(stage, "min_disk_mb", lambda: scene.person_deploys(stage, task_id))
        stage.world.free_disk_mb = 100
        scene.person_deploys(stage, task_id)

    def test_memory(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        stage.world.free_memory_mb = 255
        refused(stage, "min_memory_mb", lambda: scene.person_deploys(stage, task_id))
        stage.world.free_memory_mb = 256
        scene.person_deploys(stage, task_id)

    def test_a_halt_ends_all_and_refuses_more_until_it_is_lifted(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        first = scene.person_deploys(stage, task_id)
        scene.ask(stage, lambda context: stop.halt(context, reason="enough"))
        assert scene.state(stage, first.agent_id) == "ended"
        refused(stage, "halted", lambda: scene.person_deploys(stage, task_id))
        scene.ask(stage, stop.release)
        scene.person_deploys(stage, task_id)


class TestInput:
    def test_a_task_that_is_closed(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        scene.ask(stage, lambda context: tasks.close(context, task_id))
        refused(stage, "task_not_open", lambda: scene.person_deploys(stage, task_id))

    def test_a_task_with_live_agents_is_not_closed(self, stage: Stage) -> None:
        task_id = scene.task(stage)
        scene.person_deploys(stage, task_id)
        with pytest.raises(Refused, match="live"):
            scene.ask(stage, lambda context: tasks.close(context, task_id))

    def test_a_task_that_does_not_exist(self, stage: Stage) -> None:
        with pytest.raises(NotFound):
            scene.person_deploys(stage, "task-0123456789abcdef")

    def test_a_prompt_has_a_greatest_size(self, stage: Stage) -> None:
        task_id, most = scene.task(stage), stage.fleet.settings.limits.prompt_max_bytes
        with pytest.raises(InvalidInput, match="the limit is"):
            scene.person_deploys(stage, task_id, prompt="ö" * (most // 2 + 1))
        scene.person_deploys(stage, task_id, prompt="ö" * (most // 2))

    @pytest.mark.parametrize("prompt", ["", " ", "\n\t "])
    def test_a_prompt_is_not_blank(self, stage: Stage, prompt: str) -> None:
        task_id = scene.task(stage)
        with pytest.raises(InvalidInput, match="blank"):
            scene.person_deploys(stage, task_id, prompt=prompt)
        assert not stage.world.dirs
