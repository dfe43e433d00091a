"""Who may do what. A person may do everything; an agent acts for itself and its descendants."""

from __future__ import annotations

import hashlib
from typing import Final

from headcount.domain.errors import InvalidInput, NotAllowed, NotFound
from headcount.domain.ids import check_id
from headcount.domain.model import Caller, Run, Task
from headcount.services.context import Context
from headcount.store.registry import Tx

PERSON: Final = "person"
"""Whose keys those of a person's calls are, and of deploys without a parent."""


def token_hash(token: str) -> str:
    """Return what the registry keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


LATE_ONLY: Final = "when a run is over, its token is good for late reports and findings only"


def identify(context: Context, token: str) -> Caller:
    """Return the caller that a token stands for.

    Raises:
        NotAllowed: nobody has this token, or a newer run of the agent has replaced its run.
    """
    with context.registry.read() as tx:
        run = _run_of(tx, token)
    return Caller(agent_id=run.key.agent_id, run=run.key.n)


def check_live(context: Context) -> None:
    """Let a person through, and an agent as long as its run is not over.

    Raises:
        NotAllowed: it is over, or the caller is not known.
    """
    if context.token is None and context.caller.agent_id is None:
        return
    with context.registry.read() as tx:
        caller_run(context, tx)


def _run_of(tx: Tx, token: str) -> Run:
    run = tx.runs.by_token(token_hash(token))
    if run is None:
        raise NotAllowed("the token is not known", hint="use HEADCOUNT_TOKEN as the agent was given it")
    latest = tx.runs.get(run.key.agent_id)
    if latest is not None and latest.key.n > run.key.n:
        raise NotAllowed(f"run {run.key.n} of {run.key.agent_id} has been replaced by run {latest.key.n}")
    return run


def caller_run(context: Context, tx: Tx) -> Run | None:
    """Return the run that asks, or None for a person.

    Raises:
        NotAllowed: we are in an agent's tree without a valid token, or the run is over.
    """
    run = _caller_run(context, tx)
    if run is not None and not run.live:
        raise NotAllowed(f"run {run.key.n} of {run.key.agent_id} is over", hint=LATE_ONLY)
    return run


def _caller_run(context: Context, tx: Tx) -> Run | None:
    if context.token is not None:
        return _run_of(tx, context.token)
    caller = context.caller
    if caller.agent_id is None:
        return None
    run = tx.runs.get(caller.agent_id, caller.run)
    if run is None:
        raise NotAllowed(f"{caller.agent_id} is not known here")
    return run


def subject(context: Context, tx: Tx, agent_id: str | None) -> Run:
    """Return the run for which a report or finding is: the caller's own, over or not, or for a person the
    one named.

    Raises:
        NotAllowed: an agent names another agent.
        InvalidInput: a person names nobody.
        NotFound: no such agent.
    """
    own = _caller_run(context, tx)
    if own is not None:
        if agent_id is not None and agent_id != own.key.agent_id:
            raise NotAllowed(
                f"{own.key.agent_id} cannot speak for {agent_id[:80]}",
                hint="leave agent_id out: your token says who you are",
            )
        return own
    if agent_id is None:
        raise InvalidInput(
            "no agent named",
            hint="name one, or call from within an agent, where HEADCOUNT_TOKEN says who asks",
        )
    return existing(tx, agent_id)


def existing(tx: Tx, agent_id: str, n: int | None = None) -> Run:
    """Return an agent's run, the latest by default.

    Raises:
        InvalidInput: it cannot be an id.
        NotFound: it is not in the registry.
    """
    run = tx.runs.get(check_id("agent", agent_id), n)
    if run is None:
        what = f"agent {agent_id}" if n is None else f"run {n} of agent {agent_id}"
        raise NotFound(f"{what} does not exist", hint="list agents with 'headcount ps --all'")
    return run


def over(context: Context, tx: Tx, run: Run) -> None:
    """Check that the caller may act on `run`: it is a person, the agent itself or an ancestor.

    Raises:
        NotAllowed: none of these.
    """
    own = caller_run(context, tx)
    if own is None:
        return
    seen: Run | None = run
    while seen is not None:
        if seen.key.agent_id == own.key.agent_id:
            return
        seen = tx.runs.get(seen.parent) if seen.parent else None
    raise NotAllowed(
        f"{own.key.agent_id} may not act on {run.key.agent_id}",
        hint="an agent acts on itself and its descendants",
    )


def existing_task(tx: Tx, task_id: str) -> Task:
    """Return a task.

    Raises:
        InvalidInput: it cannot be an id.
        NotFound: it is not in the registry.
    """
    task = tx.tasks.get(check_id("task", task_id))
    if task is None:
        raise NotFound(f"task {task_id} does not exist", hint="list tasks with 'headcount task list'")
    return task
