"""The life of a task: create, list, show, close, archive."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

from headcount.domain.errors import InvalidInput, NotAllowed, Refused
from headcount.domain.ids import TASK_PREFIX, check_role, new_id
from headcount.domain.lifecycle import LIVE, State
from headcount.domain.model import Message, Task, TaskContext, TaskState
from headcount.domain.policy import parse_policy
from headcount.services import agents, findings, given, once, report, rights, settle, worktrees
from headcount.services.answers import TaskFacts, TaskList, TaskStatus, UsedFacts, iso
from headcount.services.context import Context
from headcount.store.registry import Tx

DESCRIPTION_MAX: Final = 10_000
CONTEXT_MAX: Final = 1_000_000
"""Bytes of all that agents are told of a task besides its description; each order has it."""
SETUP_MAX: Final = 10_000
LIMIT_MOST: Final = 1_000_000
"""Far above what a machine holds, and what the registry can store."""
PRIORITIES: Final = ("P0", "P1", "P2", "P3")
RECENT: Final = 10
ENDED_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class NewTask:
    """What a caller asks for, not yet checked."""

    description: str
    project: str | None
    priority: str
    background: str
    deliverables: tuple[str, ...]
    success_criteria: tuple[str, ...]
    constraints: tuple[str, ...]
    relevant_files: tuple[str, ...]
    conversation: tuple[Mapping[str, str], ...]
    max_live: int | None
    max_agents: int | None
    max_depth: int | None
    spawn_rules: Mapping[str, Sequence[str]] | None
    isolation: str = "shared"
    setup: tuple[str, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)


def create(context: Context, new: NewTask) -> TaskFacts:
    """Create a task.

    Raises:
        InvalidInput: nothing was created.
    """
    limits, now = context.settings.limits, context.clock.now()
    task = Task(
        task_id=new_id(TASK_PREFIX, now=now, chance=context.clock.chance()),
        description=_description(new.description),
        priority=_priority(new.priority),
        project=_project(context, new.project),
        state=TaskState.OPEN,
        context=_context(new),
        max_live=_limit("max_live", new.max_live, limits.task_max_live),
        max_agents=_limit("max_agents", new.max_agents, limits.task_max_agents),
        max_depth=_limit("max_depth", new.max_depth, limits.max_depth),
        spawn_rules=_rules(new.spawn_rules),
        created_at=now,
        isolation=worktrees.isolation(new.isolation),
        setup=_setup(new.setup),
        policy=parse_policy(new.policy),
    )
    with context.registry.write("create task") as tx:
        by = rights.caller_run(context, tx)
        if by is not None:
            raise NotAllowed("an agent does not create tasks", hint="spawn a child for the work instead")
        wrote = once.written(context, tx, ("create_task", new), lambda: _add(tx, task))
        return facts(rights.existing_task(tx, str(wrote["task_id"])))


def _add(tx: Tx, task: Task) -> Mapping[str, object]:
    tx.tasks.add(task)
    tx.events.add("task_created", task_id=task.task_id, data={"project": task.project}, now=task.created_at)
    return {"task_id": task.task_id}


def _description(text: str) -> str:
    if not given.text("description", text).strip():
        raise InvalidInput("the description is blank", hint="say in a sentence what the task is")
    if len(text) > DESCRIPTION_MAX:
        raise InvalidInput(
            f"the description has {len(text)} characters, the limit is {DESCRIPTION_MAX}",
            hint="put details into background",
        )
    return text


def _priority(text: str) -> str:
    if given.text("priority", text) not in PRIORITIES:
        raise InvalidInput(f"priority {text[:20]!r} is not one of {', '.join(PRIORITIES)}")
    return text


def _project(context: Context, named: str | None) -> str:
    if named is not None and "\0" in named:
        raise InvalidInput("a project directory cannot hold a NUL character")
    if not context.caller.cwd and not os.path.isabs(named or ""):
        raise InvalidInput(
            "the current directory is gone", hint="go to one that exists, or name the project in full"
        )
    path = Path(context.caller.cwd, named or ".")
    if not os.path.exists(path):  # Path.exists() raises on a name that is too long
        raise InvalidInput(f"project directory {path} does not exist", hint="create it, or name another")
    if not os.path.isdir(path):
        raise InvalidInput(f"project {path} is not a directory", hint="name the directory that holds it")
    return os.path.normpath(path)


def _context(new: NewTask) -> TaskContext:
    """Return what agents are told of the task; every order has it, so it is bounded."""
    made = TaskContext(
        background=given.text("background", new.background),
        deliverables=new.deliverables,
        success_criteria=new.success_criteria,
        constraints=new.constraints,
        relevant_files=new.relevant_files,
        conversation=tuple(_message(at, each) for at, each in enumerate(new.conversation)),
    )
    _check_size(made)
    return made


def _check_size(made: TaskContext) -> None:
    lists = (made.deliverables, made.success_criteria, made.constraints, made.relevant_files)
    said = (word for each in made.conversation for word in (each.role, each.content, each.timestamp or ""))
    try:
        size = sum(len(text.encode()) for text in (made.background, *chain(*lists), *said))
    except UnicodeEncodeError:
        raise InvalidInput("a text of the task is not valid Unicode", hint="send it as UTF-8") from None
    if size > CONTEXT_MAX:
        raise InvalidInput(
            f"the task's context has {size} bytes, the limit is {CONTEXT_MAX}",
            hint="put the material into files of the project and name them in relevant_files",
        )


def _message(at: int, each: object) -> Message:
    said = given.mapping(f"conversation[{at}]", each)
    role, content = said.get("role", "user"), said.get("content", "")
    return Message(
        given.text(f"conversation[{at}].role", role),
        given.text(f"conversation[{at}].content", content),
        given.maybe_text(f"conversation[{at}].timestamp", said.get("timestamp")),
    )


def _limit(name: str, value: object, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LIMIT_MOST:
        raise InvalidInput(f"{name} is {value!r}, it must be from 1 to {LIMIT_MOST}")
    return value


def _rules(rules: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]] | None:
    if rules is None:
        return None
    return {
        check_role(parent): tuple(map(check_role, given.words(f"spawn_rules[{parent}]", children)))
        for parent, children in given.mapping("spawn_rules", rules).items()
    }


def _setup(argv: tuple[str, ...]) -> tuple[str, ...]:
    if sum(map(len, argv)) > SETUP_MAX or any("\0" in word for word in argv) or (argv and not argv[0]):
        raise InvalidInput(
            f"the set-up command is empty, longer than {SETUP_MAX} characters, or has a NUL character",
            hint="put it into a script of the project",
        )
    return argv


def page(context: Context, *, state: str | None, limit: int, cursor: str | None) -> TaskList:
    """Return tasks, newest first; without a state, all but archived ones."""
    limit = agents.bounded(limit)
    try:
        wanted = None if state is None else TaskState(state)
    except ValueError:
        raise InvalidInput(f"task state {state!r} is not one of {', '.join(TaskState)}") from None
    with context.registry.read() as tx:
        found = tx.tasks.page(wanted, limit=limit + 1, before=cursor)
    return TaskList(
        tuple(map(facts, found[:limit])), found[limit - 1].task_id if len(found) > limit else None
    )


def status(context: Context, task_id: str) -> TaskStatus:
    """Say where a task stands, after recording what can be seen."""
    settle.observe(context)
    with context.registry.read() as tx:
        task = rights.existing_task(tx, task_id)
        live = tx.runs.live_of_task(task_id)
        latest = tx.runs.page(task_id, all=True, limit=ENDED_SHOWN + len(live))
        ended = [run for run in latest if not run.live][:ENDED_SHOWN]
        return TaskStatus(
            task=facts(task),
            agents=tuple(agents.of(context, tx, run) for run in (*live, *ended)),
            counts=_counts(tx, task_id),
            refusals=tx.events.refusals(task_id),
            findings_by_severity=tx.findings.summary(task_id).by_severity,
            recent_reports=tuple(map(report.facts, tx.reports.recent(task_id, limit=RECENT))),
            recent_findings=tuple(map(findings.facts, tx.findings.recent(task_id, limit=RECENT))),
            used=UsedFacts(**asdict(tx.runs.used(task_id))),
            halted=context.home.halted.exists(),
        )


def _counts(tx: Tx, task_id: str) -> dict[str, int]:
    """Return a task's agents by state and outcome, with how many are live and how many it had."""
    found = tx.runs.counts(task_id)
    live = sum(found[state] for state in LIVE)
    return {"total": sum(found[state] for state in State), "live": live, **found}


def close(context: Context, task_id: str) -> TaskFacts:
    """Close a task; it takes no new agents.

    Raises:
        Refused: an agent of it is live.
    """
    settle.observe(context)
    with context.registry.write("close task") as tx:
        rights.existing_task(tx, task_id)
        _person_only(context, tx)
        live = tx.runs.live_of_task(task_id)
        if live:
            raise Refused(
                f"{len(live)} agents of the task are live",
                code="task_has_live_agents",
                limit="task_state",
                value=len(live),
                holders=[run.key.agent_id for run in live],
                hint="wait for them or stop them first",
            )
        return _move(context, tx, task_id, (TaskState.OPEN, TaskState.PAUSED), TaskState.CLOSED)


def archive(context: Context, task_id: str) -> TaskFacts:
    """Archive a closed task.

    Raises:
        Refused: it is not closed.
    """
    with context.registry.write("archive task") as tx:
        task = rights.existing_task(tx, task_id)
        _person_only(context, tx)
        if task.state not in (TaskState.CLOSED, TaskState.ARCHIVED):
            raise Refused(
                f"task {task_id} is {task.state}",
                code="task_not_closed",
                limit="task_state",
                value=task.state.value,
                hint=f"close it first: headcount task close {task_id}",
            )
        return _move(context, tx, task_id, (TaskState.CLOSED,), TaskState.ARCHIVED)


def _person_only(context: Context, tx: Tx) -> None:
    if rights.caller_run(context, tx) is not None:
        raise NotAllowed("only a person closes or archives tasks")


def _move(context: Context, tx: Tx, task_id: str, from_: tuple[TaskState, ...], to: TaskState) -> TaskFacts:
    now = context.clock.now()
    if tx.tasks.move(task_id, from_=from_, to=to, now=now):
        tx.events.add(f"task_{to}", task_id=task_id, data={}, now=now)
    return facts(rights.existing_task(tx, task_id))


def facts(task: Task) -> TaskFacts:
    """Return a task as doors show it."""
    return TaskFacts(
        task_id=task.task_id,
        description=task.description,
        priority=task.priority,
        project=task.project,
        state=task.state.value,
        max_live=task.max_live,
        max_agents=task.max_agents,
        max_depth=task.max_depth,
        spawn_rules=task.spawn_rules,
        created_at=iso(task.created_at) or "",
        closed_at=iso(task.closed_at),
        isolation=task.isolation.value,
        setup=task.setup,
        policy=task.policy,
    )
