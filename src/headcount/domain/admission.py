"""May this agent be deployed? Pure: facts in, a refusal or nothing out.

The facts are read, and the row is written, in one transaction; so no race can exceed a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headcount.domain.errors import NotFound, Refused
from headcount.domain.model import Limits, Run, Task, TaskState
from headcount.domain.options import Permissions, Reach

NOTHING: Final = Reach(Permissions.READ)


@dataclass(frozen=True, slots=True)
class AdmissionFacts:
    """What the registry holds that bears on one deploy. Ids are those of live agents."""

    task: Task | None
    live_machine: tuple[str, ...]
    live_task: tuple[str, ...]
    agents_of_task: int  # over its whole life, ended ones included
    parent: Run | None
    role_holders: tuple[str, ...]
    work_holders: tuple[str, ...]
    recent_children: int  # of the parent, within the spawn window


@dataclass(frozen=True, slots=True)
class Application:
    """What is asked for."""

    task_id: str
    role: str
    parent: str | None
    allow_duplicate_role: bool
    allow_same_work: bool
    rate_limited: bool  # an agent's own children are, a person's deploys are not
    again: bool = False  # a further run of an agent, whose place in the tree was admitted before
    reach: Reach = NOTHING
    callers_reach: Reach | None = None  # None: a person asks, who may grant anything


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine can give at this moment."""

    halted: bool
    free_disk_mb: int
    free_memory_mb: int


def child_depth(parent: Run | None) -> int:
    """Return the depth of a new agent: 1 for a root, else its parent's depth + 1."""
    return 1 if parent is None else parent.depth + 1


def check(asked: Application, facts: AdmissionFacts, machine: Machine, limits: Limits) -> tuple[Task, int]:
    """Return the task, and the depth that the admitted agent has in it.

    Raises:
        NotFound: the task does not exist.
        Refused: a limit or rule forbids it; the first in the order below is named.
    """
    task = facts.task
    if task is None:
        raise NotFound(f"task {asked.task_id} does not exist", hint="list tasks with 'headcount task list'")
    for refusal in _refusals(asked, facts, machine, limits, task):
        raise refusal
    return task, child_depth(facts.parent)


def _refusals(
    asked: Application, facts: AdmissionFacts, machine: Machine, limits: Limits, task: Task
) -> Iterator[Refused]:
    yield from _about_intent(machine, task)
    if not asked.again:
        yield from _about_parent(asked, facts, task)
    yield from _about_reach(asked, limits)
    yield from _about_same(asked, facts)
    if not asked.again:
        yield from _about_life(facts, task)
    yield from _about_width(facts, limits, task)
    if asked.rate_limited and facts.recent_children >= limits.spawn_rate:
        yield Refused(
            f"agent {asked.parent} has deployed {facts.recent_children} agents in {limits.spawn_window:g} s",
            code="spawn_rate",
            limit="spawn_rate",
            value=limits.spawn_rate,
            holders=[asked.parent or ""],
            hint=f"wait {limits.spawn_window:g} s, or do the work yourself",
        )
    yield from _about_machine(machine, limits)


def _about_intent(machine: Machine, task: Task) -> Iterator[Refused]:
    if machine.halted:
        yield Refused(
            "the emergency stop is in force",
            code="halted",
            limit="halt",
            hint="a person lifts it with 'headcount halt --release'",
        )
    if task.state is TaskState.PAUSED:
        yield Refused(
            f"task {task.task_id} is paused",
            code="task_paused",
            limit="task_state",
            value=task.state.value,
            hint=f"a person lets it go on with 'headcount task resume {task.task_id}'",
        )
    elif task.state is not TaskState.OPEN:
        yield Refused(
            f"task {task.task_id} is {task.state}",
            code="task_not_open",
            limit="task_state",
            value=task.state.value,
            hint="create a new task",
        )


def _about_parent(asked: Application, facts: AdmissionFacts, task: Task) -> Iterator[Refused]:
    if asked.parent is None:
        return
    parent = facts.parent
    if parent is None:
        yield _parent_refused(asked, "parent_unknown", "does not exist")
        return
    if parent.task_id != task.task_id:
        yield _parent_refused(asked, "parent_foreign", f"works on another task, {parent.task_id}")
    if not parent.live:
        yield _parent_refused(asked, "parent_ended", f"is {parent.state}")
    if parent.depth + 1 > task.max_depth:
        yield Refused(
            f"a child of {asked.parent} would be at depth {parent.depth + 1}, the limit is {task.max_depth}",
            code="max_depth",
            limit="max_depth",
            value=task.max_depth,
            holders=[parent.key.agent_id],
            hint="do the work yourself, or report to your parent what is left",
        )
    yield from _about_rules(asked, parent, task.spawn_rules)


def _parent_refused(asked: Application, code: str, why: str) -> Refused:
    return Refused(
        f"parent {asked.parent} {why}",
        code=code,
        limit="parent",
        value=asked.parent,
        hint="name a live agent of the same task as parent, or none",
    )


def _about_rules(
    asked: Application, parent: Run, rules: Mapping[str, tuple[str, ...]] | None
) -> Iterator[Refused]:
    """A role without a rule may deploy any role: rules restrict only those that they name."""
    if not rules or parent.role not in rules or asked.role in rules[parent.role]:
        return
    allowed = rules[parent.role]
    yield Refused(
        f"a {parent.role} may not deploy a {asked.role}",
        code="spawn_rule",
        limit="spawn_rules",
        value=", ".join(allowed),
        hint=f"allowed: {', '.join(allowed)}" if allowed else "this role deploys nobody",
    )


def _about_reach(asked: Application, limits: Limits) -> Iterator[Refused]:
    """Rights only shrink down the tree: nobody gets by another agent what he may not do himself."""
    most = asked.callers_reach if limits.rights_shrink else None
    beyond = None if most is None else asked.reach.beyond(most)
    if most is not None and beyond is not None:
        yield Refused(
            f"agent {asked.parent} cannot give a {asked.role} {beyond}",
            code="reach",
            limit="permissions",
            value=most.permissions.value,
            holders=[asked.parent or ""],
            hint="ask for no more than you have, of a harness that is held to it ('headcount harness list'); "
            "or report to your parent what is needed",
        )


def _about_same(asked: Application, facts: AdmissionFacts) -> Iterator[Refused]:
    if facts.role_holders and not asked.allow_duplicate_role:
        yield Refused(
            f"a live {asked.role} works on the task already",
            code="duplicate_role",
            limit="one live agent per (task, role)",
            value=1,
            holders=facts.role_holders,
            hint="wait for it, stop it, use another role, or ask for allow_duplicate_role",
        )
    if facts.work_holders and not asked.allow_same_work:
        yield Refused(
            "a live agent of the task has the same prompt",
            code="same_work",
            limit="one live agent per (task, prompt)",
            value=1,
            holders=facts.work_holders,
            hint="wait for it, give other work, or ask for allow_same_work",
        )


def _about_life(facts: AdmissionFacts, task: Task) -> Iterator[Refused]:
    if facts.agents_of_task >= task.max_agents:
        yield Refused(
            f"the task has had {facts.agents_of_task} agents, the limit is {task.max_agents}",
            code="max_agents",
            limit="max_agents",
            value=task.max_agents,
            hint="finish with the agents there are, or create a new task",
        )


def _about_width(facts: AdmissionFacts, limits: Limits, task: Task) -> Iterator[Refused]:
    widths = (
        ("max_live", "task", facts.live_task, task.max_live),
        ("machine_max_live", "machine", facts.live_machine, limits.machine_max_live),
    )
    for code, where, live, most in widths:
        if len(live) >= most:
            yield Refused(
                f"{len(live)} agents are live on the {where}, the limit is {most}",
                code=code,
                limit=code,
                value=most,
                holders=live,
                hint="wait for one to end ('headcount wait --any'), or stop one",
            )


def _about_machine(machine: Machine, limits: Limits) -> Iterator[Refused]:
    frees = (
        ("min_disk_mb", "disk", machine.free_disk_mb, limits.min_disk_mb),
        ("min_memory_mb", "memory", machine.free_memory_mb, limits.min_memory_mb),
    )
    for code, what, free, least in frees:
        if free < least:
            yield Refused(
                f"{free} MB of {what} are free, at least {least} are needed",
                code=code,
                limit=code,
                value=least,
                hint="make room ('headcount gc' proposes what can go), then try again",
            )
