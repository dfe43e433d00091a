"""Read what agents there are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import Any, Final

from headcount.domain.errors import HeadcountError, Refused
from headcount.domain.model import Form, Report, Run
from headcount.services import account, given, policies, rights, settle, worktrees
from headcount.services.answers import AgentFacts, AgentList, AgentWhole, RunFacts, iso
from headcount.services.context import Context
from headcount.store.registry import Tx

LIMIT_MAX = 1000
READ_AT_ONCE: Final = 2_000_000
"""Bytes of output whose account is made for who asks; a longer one is left to the daemon."""


def page(context: Context, *, task_id: str | None, ended: bool, limit: int, cursor: str | None) -> AgentList:
    """Return agents, newest first, after recording what can be seen of them."""
    limit = bounded(limit)
    given.maybe_text("cursor", cursor)
    settle.observe(context)
    with context.registry.read() as tx:
        if task_id is not None:
            rights.existing_task(tx, task_id)
        runs = tx.runs.page(task_id, all=ended, limit=limit + 1, after=cursor)
        facts = tuple(of(context, tx, run) for run in runs[:limit])
    return AgentList(facts, facts[-1].agent_id if len(runs) > limit else None)


def bounded(limit: int) -> int:
    """Return a page's size.

    Raises:
        InvalidInput: it is not 1 to LIMIT_MAX.
    """
    return given.whole("limit", limit, least=1, most=LIMIT_MAX)


def get(context: Context, agent_id: str) -> AgentFacts:
    """Return one agent by its latest run."""
    settle.observe(context)
    with context.registry.read() as tx:
        return of(context, tx, rights.existing(tx, agent_id))


def whole(context: Context, agent_id: str) -> AgentWhole:
    """Return all that is known of one agent, after making such of its runs' accounts as are quickly made."""
    settle.observe(context)
    with context.registry.read() as tx:
        rights.existing(tx, agent_id)
        runs = tx.runs.of_agent(agent_id)
    for run in runs:
        _learn(context, run)
    worktree = worktrees.of_agent(context, agent_id)
    with context.registry.read() as tx:
        latest = rights.existing(tx, agent_id)
        agent = tx.runs.agent(agent_id)
        assert agent is not None, "a run has its agent"
        return AgentWhole(
            **_shallow(of(context, tx, latest)),
            description=rights.existing_task(tx, agent.task_id).description,
            prompt=agent.prompt,
            command=agent.command,
            options=agent.options,
            cwd=agent.cwd,
            resume_on_crash=agent.resume_on_crash,
            created_at=iso(agent.created_at) or "",
            session_id=latest.session_id,
            path=latest.path,
            isolation=agent.isolation.value,
            worktree=worktree,
            policy=policies.shown(context, tx, latest),
            runs=tuple(map(_run, tx.runs.of_agent(agent_id))),
        )


def _learn(context: Context, run: Run) -> None:
    """Have recorded what a run's output tells, if it is not long; what fails is tried again by the daemon."""
    if run.account is not None:
        return
    with suppress(HeadcountError):  # an error in the price table: doctor names it
        if run.live:
            account.conversation(context, run)
        elif context.placement.read_output(run.path, offset=0, limit=1).end <= READ_AT_ONCE:
            account.make(context, run.key)


def _run(run: Run) -> RunFacts:
    return RunFacts(
        run=run.key.n,
        why=run.why.value,
        form=run.form.value,
        state=run.state.value,
        outcome=run.outcome.value if run.outcome else None,
        ending=run.ending,
        reason=run.reason,
        exit_code=run.exit_code,
        signal=run.signal,
        reserved_at=iso(run.reserved_at) or "",
        started_at=iso(run.started_at),
        ended_at=iso(run.ended_at),
        session_id=run.session_id,
        resumes=run.resumes,
        path=run.path,
        account=run.account,
        result=run.result,
    )


def of(context: Context, tx: Tx, run: Run) -> AgentFacts:
    """Return the facts of a run and its agent's last report."""
    said: Report | None = tx.reports.latest(run.key.agent_id)
    viewed = run.live and run.runner is not None and context.views.available() is None
    return AgentFacts(
        agent_id=run.key.agent_id,
        task_id=run.task_id,
        role=run.role,
        parent=run.parent,
        depth=run.depth,
        harness=run.harness,
        run=run.key.n,
        form=run.form.value,
        state=run.state.value,
        outcome=run.outcome.value if run.outcome else None,
        ending=run.ending,
        exit_code=run.exit_code,
        signal=run.signal,
        reason=run.reason,
        pid=run.process.pid if run.process else None,
        runner_pid=run.runner.pid if run.runner else None,
        tmux_session=run.key.agent_id if viewed else None,
        started_at=iso(run.started_at),
        ended_at=iso(run.ended_at),
        progress=said.progress if said else None,
        reported=said.status if said else None,
        message=said.message if said else None,
        reported_at=iso(said.at) if said else None,
        survivors=run.survivors,
        layers=_layers(context, run),
        result=run.result,
        usage=run.usage,
        flags=tuple(flag.kind.value for flag in tx.flags.open(run.key.agent_id)),
    )


def _shallow(facts: AgentFacts) -> dict[str, Any]:
    """Return the fields of an answer by name."""
    return {each.name: getattr(facts, each.name) for each in fields(facts)}


def _layers(context: Context, run: Run) -> tuple[str, ...]:
    """Return what holds a live run's tree together, from its start record."""
    if not run.live:
        return ()
    start = context.placement.look_at(run.key, run.path).start
    return start.layers if start else ()


def attach_command(context: Context, agent_id: str) -> tuple[str, ...]:
    """Return the command that shows an agent's view.

    Raises:
        Refused: the agent is over, or there are no views here.
    """
    facts = get(context, agent_id)
    if facts.tmux_session is None:
        why = context.views.available() or f"agent {agent_id} is {facts.state}"
        raise Refused(why, code="no_view", limit="view", hint=f"read it with 'headcount logs {agent_id}'")
    interactive = facts.form == Form.INTERACTIVE
    return tuple(context.views.attach_argv(facts.tmux_session, interactive=interactive))
