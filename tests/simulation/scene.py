"""What a test on a stage says: a task, a deploy by a person or an agent, a stop, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from headcount.domain.model import Caller, RunKey
from headcount.domain.options import Options
from headcount.services import deploy, rights, tasks
from headcount.services.answers import Deployed
from headcount.services.context import Context
from headcount.services.request import Request
from tests.simulation.stage import Stage
from tests.simulation.world import RunDir

Answer = TypeVar("Answer")
PLAIN = Request(
    task_id="",
    role="builder",
    prompt=None,
    harness="command",
    command=("/bin/sh",),
    parent=None,
    options=Options(),
    cwd=None,
    env=(),
    allow_duplicate_role=False,
    allow_same_work=False,
    idempotency_key=None,
)


def ask(stage: Stage, body: Callable[[Context], Answer]) -> Answer:
    """Run one program to its end and return its answer; raises what it raises."""
    answers: list[Answer] = []
    stage.alone(lambda context: answers.append(body(context)))
    return answers[0]


def task(stage: Stage, **given: object) -> str:
    """Create a task and return its id."""
    return ask(stage, lambda context: tasks.create(context, stage.fleet.new_task(**given))).task_id


def request(task_id: str, role: str = "builder", **given: object) -> Request:
    """Return a plain request with what is given."""
    flags = ("dup",) * bool(given.get("allow_duplicate_role")) + ("same",) * bool(
        given.get("allow_same_work")
    )
    plain = replace(PLAIN, task_id=task_id, role=role, command=("/bin/sh", *flags))
    return replace(plain, **given)  # type: ignore[arg-type]


def with_token(context: Context, token: str) -> Context:
    """Return the context that an agent's own shell has."""
    return replace(context, token=token)


def person_deploys(stage: Stage, task_id: str, role: str = "builder", **given: object) -> Deployed:
    wanted = request(task_id, role, **given)
    return ask(stage, lambda context: deploy.deploy(context, wanted))


def agent_deploys(stage: Stage, agent_id: str, role: str, **given: object) -> Deployed:
    """Deploy as the daemon does for an agent that comes with its token."""
    run = run_of(stage, agent_id)
    wanted = request(stage.auditor.agents[agent_id].task_id, role, **given)
    wanted = replace(wanted, command=(*wanted.command, "by-agent"))

    def body(context: Context) -> Deployed:
        who = rights.identify(context, run.token)
        caller = Caller(who.agent_id, who.run, cwd=context.caller.cwd, env=context.caller.env)
        return deploy.deploy(context.acting_as(caller), wanted)

    return ask(stage, body)


def run_of(stage: Stage, agent_id: str) -> RunDir:
    return stage.world.dirs[RunKey(agent_id, 1)]


def state(stage: Stage, agent_id: str) -> str:
    """Return the state that the registry has."""
    stage.auditor.step()
    return str(stage.auditor.rows[RunKey(agent_id, 1)]["state"])


def end(stage: Stage, agent_id: str) -> None:
    """Let an agent end by itself, and its runner write so."""
    stage.world.agent_dies(run_of(stage, agent_id).tree[0], 0)
    stage.world.settle()


def headcount(stage: Stage) -> None:
    """One headcount with nothing else going on; then everything agrees."""
    stage.alone(stage.fleet.tick)
    stage.auditor.agree()
