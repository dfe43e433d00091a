"""Pause a task and let it go on. A paused task begins no run, whoever asks: the intent is a row's state, and
every admission reads it in its own transaction.

Killed after the intent is recorded: the task is paused, and the next headcount sends the stops again.
"""

from __future__ import annotations

from typing import Final

from headcount.domain.errors import HeadcountError, Refused
from headcount.domain.model import Agent, Run, Task, TaskState
from headcount.domain.prompt import INTERRUPTED
from headcount.services import admit, given, resume, rights, settle, stop, tasks
from headcount.services.answers import PausedAgent, PausedTask, UnpausedTask
from headcount.services.context import Context
from headcount.services.request import Again
from headcount.store.registry import Tx

STOPPED: Final = "task paused"
"""The reason of the stops that a pause makes: by it they are known when the task is resumed."""
GO_ON: Final = f"Your task was paused, and you were stopped for as long. It goes on now. {INTERRUPTED}"


def pause(context: Context, task_id: str, *, stops: bool, reason: str, grace: float | None) -> PausedTask:
    """Let a task begin no run until it is resumed; with `stops`, also end its live agents.

    When this returns, no run is admitted any more. Without `stops`, those that live go on to their own end.

    Raises:
        NotAllowed: an agent asks.
        NotFound: no such task.
        Refused: it is closed or archived.
    """
    stop.person_only(context, "pause a task")
    given.flag("stop", stops)
    given.text("reason", reason)
    grace = context.settings.grace if grace is None else given.number("grace", grace, most=given.SPAN_MAX)
    settle.observe(context)
    with context.registry.write("pause task") as tx:
        task = _movable(tx, task_id)
        if tx.tasks.move(task_id, from_=(TaskState.OPEN,), to=TaskState.PAUSED, now=context.clock.now()):
            data = {"stops": stops}
            now = context.clock.now()
            tx.events.add("task_paused", task_id=task_id, reason=reason or None, data=data, now=now)
        runs = _mark_all(context, tx, task) if stops else []
        answer = tasks.facts(rights.existing_task(tx, task_id))
    ended = stop.end_all(context, runs, grace=grace)
    return PausedTask(answer, _live(context, task_id), ended)


def _mark_all(context: Context, tx: Tx, task: Task) -> list[Run]:
    """Record the stop of all that lives; what a person has told to stop keeps that reason."""
    live = tx.runs.live_of_task(task.task_id)
    for run in live:
        stop.mark(context, tx, run.key, task.task_id, STOPPED)
    return [rights.existing(tx, run.key.agent_id, run.key.n) for run in live]


def _movable(tx: Tx, task_id: str) -> Task:
    task = rights.existing_task(tx, task_id)
    if task.state not in (TaskState.OPEN, TaskState.PAUSED):
        raise Refused(
            f"task {task_id} is {task.state}",
            code="task_not_open",
            limit="task_state",
            value=task.state.value,
            hint="create a new task",
        )
    return task


def _live(context: Context, task_id: str) -> tuple[str, ...]:
    with context.registry.read() as tx:
        return tuple(run.key.agent_id for run in tx.runs.live_of_task(task_id))


def unpause(context: Context, task_id: str, *, agents: bool) -> UnpausedTask:
    """Let a paused task begin runs again; say what of its agents the pause stopped, and which can go on.

    With `agents`, those go on in further runs. Killed meanwhile, some of them do not: the same again does it.

    Raises:
        NotAllowed: an agent asks.
        NotFound: no such task.
        Refused: it is closed or archived.
    """
    stop.person_only(context, "resume a task")
    given.flag("agents", agents)
    settle.observe(context)
    with context.registry.write("resume task") as tx:
        _movable(tx, task_id)
        now = context.clock.now()
        if tx.tasks.move(task_id, from_=(TaskState.PAUSED,), to=TaskState.OPEN, now=now):
            tx.events.add("task_resumed", task_id=task_id, data={}, now=now)
        answer = tasks.facts(rights.existing_task(tx, task_id))
        stopped = tx.runs.last_stopped_for(task_id, STOPPED)
    return UnpausedTask(answer, tuple(_gone_on(context, run, agents=agents) for run in stopped))


def _gone_on(context: Context, run: Run, *, agents: bool) -> PausedAgent:
    """Resume an agent if that is asked for; say how far it came."""
    key = run.key
    try:
        agent = _able(context, run)
        if not agents:
            return PausedAgent(key.agent_id, run.role, "can_resume", key.n)
        words = GO_ON if context.harness(agent.harness).wraps_prompt else agent.prompt
        made = resume.resume(context, Again(key.agent_id, words))
    except HeadcountError as error:
        return PausedAgent(key.agent_id, run.role, "cannot_resume", key.n, error.message)
    return PausedAgent(key.agent_id, run.role, "resumed", made.run)


def _able(context: Context, run: Run) -> Agent:
    """Return the agent of a run.

    Raises:
        Refused: it cannot go on, and nothing has to be tried to know that.
    """
    agent, runs = resume.found(context, run.key.agent_id)
    resume.check(context, agent, Again(agent.agent_id, None))
    resume.learn(context, runs)
    admit.began_in(resume.found(context, agent.agent_id)[1])
    return agent
