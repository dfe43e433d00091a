"""The rules of admission, one by one, and that each names its limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.domain.admission import AdmissionFacts, Application, Machine, check
from headcount.domain.errors import NotFound, Refused
from headcount.domain.lifecycle import State
from headcount.domain.model import Limits, Process, Run, RunKey, Task, TaskContext, TaskState
from headcount.domain.options import Permissions, Reach

TASK = Task(
    task_id="task-0000000000000000",
    description="d",
    priority="P2",
    project="/p",
    state=TaskState.OPEN,
    context=TaskContext(),
    max_live=3,
    max_agents=5,
    max_depth=2,
    spawn_rules={"lead": ("builder",)},
    created_at=0.0,
)
PARENT = Run(
    key=RunKey("lead-0000000000000000", 1),
    task_id=TASK.task_id,
    role="lead",
    parent=None,
    depth=1,
    harness="command",
    state=State.RUNNING,
    outcome=None,
    path="/r",
    deployer=Process(1, 1, "b"),
    runner=None,
    process=None,
    reserved_at=0.0,
    started_at=0.0,
    ended_at=None,
    exit_code=None,
    signal=None,
    reason=None,
    stop_reason=None,
    survivors=(),
    view_failures=0,
    result=None,
    usage=None,
)
ASKED = Application(TASK.task_id, "builder", PARENT.key.agent_id, False, False, rate_limited=True)
FACTS = AdmissionFacts(TASK, (), (), 0, PARENT, (), (), 0)
MACHINE = Machine(halted=False, free_disk_mb=1000, free_memory_mb=1000)
LIMITS = Limits(machine_max_live=4, spawn_rate=2)


def test_what_nothing_forbids_is_admitted_one_below_its_parent() -> None:
    assert check(ASKED, FACTS, MACHINE, LIMITS) == (TASK, 2)
    assert check(replace(ASKED, parent=None), replace(FACTS, parent=None), MACHINE, LIMITS) == (TASK, 1)


REFUSALS: dict[str, dict[str, object]] = {
    "halted": {"machine": replace(MACHINE, halted=True)},
    "task_not_open": {"facts": replace(FACTS, task=replace(TASK, state=TaskState.CLOSED))},
    "task_paused": {"facts": replace(FACTS, task=replace(TASK, state=TaskState.PAUSED))},
    "parent_unknown": {"facts": replace(FACTS, parent=None)},
    "parent_foreign": {"facts": replace(FACTS, parent=replace(PARENT, task_id="task-1"))},
    "parent_ended": {"facts": replace(FACTS, parent=replace(PARENT, state=State.LOST))},
    "max_depth": {"facts": replace(FACTS, parent=replace(PARENT, depth=2))},
    "spawn_rule": {"asked": replace(ASKED, role="reviewer")},
    "reach": {
        "asked": replace(ASKED, reach=Reach(Permissions.BYPASS), callers_reach=Reach(Permissions.EDIT))
    },
    "duplicate_role": {"facts": replace(FACTS, role_holders=("a",))},
    "same_work": {"facts": replace(FACTS, work_holders=("a",))},
    "max_agents": {"facts": replace(FACTS, agents_of_task=5)},
    "max_live": {"facts": replace(FACTS, live_task=("a", "b", "c"))},
    "machine_max_live": {"facts": replace(FACTS, live_machine=("a", "b", "c", "d"))},
    "spawn_rate": {"facts": replace(FACTS, recent_children=2)},
    "min_disk_mb": {"machine": replace(MACHINE, free_disk_mb=99)},
    "min_memory_mb": {"machine": replace(MACHINE, free_memory_mb=255)},
}


@pytest.mark.parametrize("code", REFUSALS)
def test_each_limit_refuses_at_its_value_with_its_name_and_a_next_step(code: str) -> None:
    given_: dict[str, object] = {
        "asked": ASKED,
        "facts": FACTS,
        "machine": MACHINE,
        "limits": LIMITS,
        **REFUSALS[code],
    }
    with pytest.raises(Refused) as refused:
        check(*given_.values())  # type: ignore[arg-type]  # in the order of the arguments
    assert refused.value.code == code
    assert refused.value.limit
    assert refused.value.hint


@pytest.mark.parametrize("code", ["duplicate_role", "same_work"])
def test_what_is_asked_for_doubly_is_admitted(code: str) -> None:
    facts = REFUSALS[code]["facts"]
    assert isinstance(facts, AdmissionFacts)
    asked = replace(ASKED, allow_duplicate_role=True, allow_same_work=True)
    assert check(asked, facts, MACHINE, LIMITS) == (TASK, 2)


def test_a_task_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound):
        check(ASKED, replace(FACTS, task=None), MACHINE, LIMITS)


def test_people_are_not_rate_limited() -> None:
    facts = replace(FACTS, recent_children=100)
    assert check(replace(ASKED, rate_limited=False), facts, MACHINE, LIMITS) == (TASK, 2)


@given(live=st.integers(0, 8), agents=st.integers(0, 8), machine=st.integers(0, 8))
def test_width_is_admitted_exactly_below_the_limits(live: int, agents: int, machine: int) -> None:
    names = tuple(map(str, range(8)))
    facts = replace(FACTS, live_task=names[:live], live_machine=names[:machine], agents_of_task=agents)
    allowed = live < TASK.max_live and agents < TASK.max_agents and machine < LIMITS.machine_max_live
    try:
        check(ASKED, facts, MACHINE, LIMITS)
    except Refused:
        assert not allowed
    else:
        assert allowed


LEVELS = st.sampled_from(Permissions)
RULES = st.lists(st.sampled_from(["shell", "edit", "web"]), unique=True).map(tuple)
REACHES = st.builds(Reach, LEVELS, RULES, RULES)


@given(one=REACHES, two=REACHES, three=REACHES)
def test_down_a_tree_nobody_reaches_further(one: Reach, two: Reach, three: Reach) -> None:
    assert one.beyond(one) is None
    if two.beyond(one) is None and three.beyond(two) is None and two.permissions is not Permissions.BYPASS:
        assert three.beyond(one) is None


@pytest.mark.parametrize(
    ("child", "parent", "named"),
    [
        (Reach(Permissions.EDIT), Reach(Permissions.READ), "permissions edit"),
        (Reach(Permissions.BYPASS), Reach(Permissions.ASK), "permissions bypass"),
        (Reach(Permissions.EDIT, ("shell",)), Reach(Permissions.EDIT, ("edit",)), "shell"),
        (Reach(Permissions.EDIT), Reach(Permissions.BYPASS, (), ("web",)), "web"),
    ],
)
def test_what_goes_beyond_is_named(child: Reach, parent: Reach, named: str) -> None:
    assert named in (child.beyond(parent) or "")


def test_who_may_do_all_may_allow_all() -> None:
    assert Reach(Permissions.EDIT, ("shell",)).beyond(Reach(Permissions.BYPASS)) is None
    assert Reach(Permissions.ASK).beyond(Reach(Permissions.EDIT)) is None


def test_that_rights_shrink_can_be_turned_off() -> None:
    asked = replace(ASKED, reach=Reach(Permissions.BYPASS), callers_reach=Reach(Permissions.READ))
    assert check(asked, FACTS, MACHINE, replace(LIMITS, rights_shrink=False)) == (TASK, 2)
