"""Admit one run: every limit is checked, and its row taken, in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headcount.domain.account import Ending
from headcount.domain.admission import AdmissionFacts, Application, Machine, check
from headcount.domain.errors import HeadcountError, NotFound, Refused
from headcount.domain.ids import new_id, session_id
from headcount.domain.lifecycle import Outcome, State
from headcount.domain.model import Agent, AgentMessage, Form, Isolation, LiveRun, Run, RunKey, Task, Way, Why
from headcount.domain.options import Options, Permissions, Reach, parse_options
from headcount.domain.policy import held_to, merged, parse_policy
from headcount.domain.worktrees import Checkout
from headcount.harnesses.abilities import names_session
from headcount.harnesses.base import Session
from headcount.services import rights, settle, worktrees
from headcount.services.context import Context
from headcount.services.request import Again, Request
from headcount.services.worktrees import Plan
from headcount.store.registry import Tx
from headcount.store.runs import NewRun


@dataclass(frozen=True, slots=True)
class Admitted:
    """A reserved row, and what is needed to start it."""

    new: NewRun
    row: LiveRun
    task: Task
    token: str
    session: Session
    messages: tuple[AgentMessage, ...] = ()  # that its prompt has to hand over
    worktree: Plan | None = None  # that is to be made for it


@dataclass(frozen=True, slots=True)
class Earlier:
    """The run that an earlier call with the same idempotency key made, and its task."""

    run: Run
    task: Task


@dataclass(frozen=True, slots=True)
class Grant:
    """Admission's word: this task, this place in the tree, and where it works: with a checkout, in a worktree
    that is made of that."""

    task: Task
    parent: str | None
    depth: int
    cwd: str
    checkout: Checkout | None
    policy: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sought:
    """For what admission is sought: the key and fingerprint of the call, and what a refusal tells."""

    task_id: str
    role: str
    parent: str | None
    key: str | None
    fingerprint: str
    agent_id: str | None = None


Admit = Callable[[Tx], Admitted | Earlier]


class _WantsWorktree(Exception):
    """The task's agents get worktrees. Nothing is reserved: first git has to be asked, outside of the
    transaction, for others queue behind it."""


def reserve(context: Context, request: Request, looked: settle.Look) -> Admitted | Earlier:
    """Record what was seen, check every limit, and take the slot of a new agent.

    A refusal is committed as an event, with the rows that the look settled, before it is raised.

    Raises:
        NotFound, Refused: nothing was reserved.
    """
    sought = Sought(
        request.task_id, request.role, request.parent, request.idempotency_key, request.fingerprint()
    )
    asked = None if request.isolation is None else worktrees.isolation(request.isolation)

    def attempt(checkout: Checkout | None) -> Admitted | Earlier:
        return _reserve(context, sought, looked, lambda tx: _admit(context, tx, request, sought, checkout))

    try:
        return attempt(_checkout(context, request) if asked is Isolation.WORKTREE else None)
    except _WantsWorktree:
        return attempt(_checkout(context, request))


def reserve_again(context: Context, agent: Agent, again: Again, looked: settle.Look) -> Admitted | Earlier:
    """The same for a further run of an agent, which goes on with its conversation.

    Raises:
        NotFound, NotAllowed, Refused: nothing was reserved.
    """
    sought = Sought(
        agent.task_id, agent.role, agent.parent, again.idempotency_key, again.fingerprint(), agent.agent_id
    )
    return _reserve(context, sought, looked, lambda tx: _admit_again(context, tx, agent, again, sought))


def _reserve(context: Context, sought: Sought, looked: settle.Look, admit: Admit) -> Admitted | Earlier:
    refused: HeadcountError | None = None
    result: Admitted | Earlier | None = None
    with context.registry.write("deploy") as tx:
        settled = settle.record(context, tx, looked, tx.runs.live())
        try:
            result = admit(tx)
        except (Refused, NotFound) as error:
            _record_refusal(context, tx, sought, error)
            refused = error
    settle.tidy(context, settled, close_views=False)  # they end with their runners: nobody waits for tmux
    if result is None:
        raise refused or AssertionError("neither admitted nor refused")
    return result


def own_task_only(context: Context, request: Request) -> None:
    """Check that an agent deploys for its own task; the daemon would take the task from its token.

    Raises:
        Refused: another task is named; the refusal is on record.
    """
    with context.registry.read() as tx:
        own = rights.caller_run(context, tx)
    if own is None or own.task_id == request.task_id:
        return
    refused = Refused(
        f"agent {own.key.agent_id} works on another task, {own.task_id}",
        code="parent_foreign",
        limit="parent",
        value=own.key.agent_id,
        hint="deploy for your own task ('headcount spawn' does), or report what is left",
    )
    with context.registry.write("refuse") as tx:
        sought = Sought(request.task_id, request.role, own.key.agent_id, None, "")
        _record_refusal(context, tx, sought, refused)
    raise refused


def _record_refusal(context: Context, tx: Tx, sought: Sought, error: HeadcountError) -> None:
    known = tx.tasks.get(sought.task_id) is not None
    tx.events.add(
        "refused",
        task_id=sought.task_id if known else None,
        agent_id=sought.agent_id,
        reason=error.code,
        data={"role": sought.role, "parent": sought.parent, "message": error.message},
        now=context.clock.now(),
    )


# ---------------------------------------------------------------- a new agent


def _checkout(context: Context, request: Request) -> Checkout | None:
    """Return the checkout of which a new agent's worktree is to be made; None: there is no such task.

    Raises:
        InvalidInput: no worktree can be made there.
    """
    with context.registry.read() as tx:
        task = tx.tasks.get(request.task_id)
        directory = None if task is None else where(context, tx, request, task)
    return None if directory is None else context.repositories.checkout(directory)


def _admit(
    context: Context, tx: Tx, request: Request, sought: Sought, checkout: Checkout | None
) -> Admitted | Earlier:
    own = rights.caller_run(context, tx)
    parent = request.parent if own is None else own.key.agent_id
    earlier = _earlier(tx, sought, parent or rights.PERSON)
    if earlier is not None:
        return earlier
    asked = Application(
        task_id=request.task_id,
        role=request.role,
        parent=parent,
        allow_duplicate_role=request.allow_duplicate_role,
        allow_same_work=request.allow_same_work,
        rate_limited=own is not None,
        reach=_reach(context, request.harness, request.options),
        callers_reach=_reach_of(context, own),
    )
    facts = _facts(context, tx, asked, work_hash(request.prompt))
    task, depth = check(asked, facts, _machine(context), context.settings.limits)
    if request.isolation is None and task.isolation is Isolation.WORKTREE and checkout is None:
        raise _WantsWorktree
    policy = _policy(context, request, task, of_agent=own is not None)
    grant = Grant(task, parent, depth, where(context, tx, request, task), checkout, policy)
    return _add(context, tx, _new_agent(context, request, grant), sought, parent)


def _policy(context: Context, request: Request, task: Task, *, of_agent: bool) -> Mapping[str, Any]:
    """Return what a new agent is held to besides its task's policy. Another agent loosens nothing of that."""
    asked = parse_policy(request.policy, roles=False)
    return held_to(merged(request.role, context.settings.policy, task.policy), asked) if of_agent else asked


def _reach_of(context: Context, caller: Run | None) -> Reach | None:
    return None if caller is None else _reach(context, caller.harness, parse_options(caller.options))


def _reach(context: Context, harness: str, options: Options) -> Reach:
    held = context.harness(harness).permissions
    permissions = options.permissions if held else Permissions.BYPASS
    return Reach(permissions, options.allowed_tools, options.denied_tools)


def _facts(context: Context, tx: Tx, asked: Application, work: str | None) -> AdmissionFacts:
    return tx.runs.admission(
        asked.task_id,
        parent=asked.parent,
        role=asked.role,
        work_hash=work,
        boot_id=context.placement.self_process().boot_id,
        since_boottime=context.clock.boottime() - context.settings.limits.spawn_window,
    )


def _machine(context: Context) -> Machine:
    return Machine(
        halted=context.home.halted.exists(),
        free_disk_mb=context.placement.free_disk_mb(),
        free_memory_mb=context.placement.free_memory_mb(),
    )


def work_hash(prompt: str | None) -> str | None:
    """Return what tells the same work: the given prompt, whatever the role is called."""
    if prompt is None:
        return None
    return hashlib.sha256(prompt.strip().encode("utf-8", "surrogateescape")).hexdigest()


def _earlier(tx: Tx, sought: Sought, scope: str) -> Earlier | None:
    """Return what this idempotency key stood for before.

    Raises:
        Refused: it was used for something else.
    """
    found = tx.keys.get(scope, sought.key) if sought.key else None
    if found is None:
        return None
    fingerprint, agent_id, n = found
    if fingerprint != sought.fingerprint:
        raise Refused(
            f"idempotency key {sought.key!r} was used for another deploy",
            code="idempotency_key_reused",
            limit="idempotency_key",
            holders=[agent_id],
            hint="use a new key for a new request",
        )
    run = rights.existing(tx, agent_id, n)
    return Earlier(run, rights.existing_task(tx, run.task_id))


def _add(context: Context, tx: Tx, made: Admitted, sought: Sought, caller: str | None) -> Admitted:
    """Take the slot, and record for which call and what for."""
    new = made.new
    tx.runs.add(new)
    if made.worktree is not None:
        tx.worktrees.add(made.worktree.tree)
    if sought.key:
        tx.keys.put(
            caller or rights.PERSON,
            sought.key,
            request_hash=sought.fingerprint,
            agent_id=new.key.agent_id,
            run=new.key.n,
            now=new.reserved_at,
        )
    about = {"role": new.role, "parent": new.parent, "depth": new.depth, "harness": new.harness}
    tx.events.add(
        "run_reserved",
        task_id=new.task_id,
        agent_id=new.key.agent_id,
        run=new.key.n,
        reason=None if new.first else "takeover" if new.form is Form.INTERACTIVE else new.why.value,
        data=about,
        now=new.reserved_at,
    )
    return made


def _row(new: NewRun) -> LiveRun:
    return LiveRun(
        key=new.key,
        task_id=new.task_id,
        role=new.role,
        state=State.RESERVED,
        harness=new.harness,
        path=new.path,
        deployer=new.deployer,
        runner=None,
        process=None,
        stop_reason=None,
        options=new.options,
        form=new.form,
    )


def _new_agent(context: Context, request: Request, grant: Grant) -> Admitted:
    now, token = context.clock.now(), context.clock.token()
    key = RunKey(new_id(request.role, now=now, chance=context.clock.chance()), 1)
    session = Session(session_id(key.agent_id, key.n))
    presets = names_session(context.harness(request.harness), request.options)
    tree = None if grant.checkout is None else worktrees.plan(context, key.agent_id, grant.checkout, now=now)
    new = NewRun(
        key=key,
        task_id=request.task_id,
        role=request.role,
        parent=grant.parent,
        depth=grant.depth,
        harness=request.harness,
        model=request.options.model,
        effort=request.options.effort,
        prompt=request.prompt,
        work_hash=work_hash(request.prompt),
        takes_role=not request.allow_duplicate_role,
        takes_work=not request.allow_same_work,
        command=request.command,
        cwd=grant.cwd if tree is None else tree.cwd,
        path=context.placement.run_path(key, reserved_at=now),
        deployer=context.placement.self_process(),
        pidns=context.placement.pid_namespace(),
        reserved_at=now,
        reserved_boottime=context.clock.boottime(),
        token_hash=rights.token_hash(token),
        first=True,
        options=request.options.given(),
        session_id=session.session_id if presets else None,
        resume_on_crash=request.resume_on_crash,
        isolation=Isolation.SHARED if tree is None else Isolation.WORKTREE,
        policy=grant.policy,
    )
    return Admitted(new, _row(new), grant.task, token, session, worktree=tree)


def where(context: Context, tx: Tx, request: Request, task: Task) -> str:
    """Return where an agent works: as asked; else where the caller is, if that lies within the task's
    project or a worktree of it; else the project. Never where the daemon happens to be."""
    here = context.caller.cwd
    if request.cwd is not None:
        return str(Path(here, request.cwd))
    if here and (Path(here).is_relative_to(task.project) or worktrees.own_tree(context, tx, here, task)):
        return here
    return task.project


# ---------------------------------------------------------------- a further run


def _admit_again(context: Context, tx: Tx, agent: Agent, again: Again, sought: Sought) -> Admitted | Earlier:
    """All limits but those on what an agent is: its depth, its parent, the agents of the task."""
    own = rights.caller_run(context, tx)
    caller = None if own is None else own.key.agent_id
    earlier = _earlier(tx, sought, caller or rights.PERSON)
    if earlier is not None:
        return earlier
    runs = tx.runs.of_agent(agent.agent_id)
    last = runs[-1]
    rights.over(context, tx, last)
    if last.live:
        raise _live(last)
    began = began_in(runs)
    worktrees.usable(tx, agent.agent_id)
    if again.restart is not None and again.restart not in {flag.id for flag in tx.flags.owed()}:
        raise _refused(last, "restart_forgone", "was stopped meanwhile")
    if again.why is Why.CRASH and not (may_resume(agent, tx, last)):
        raise _refused(last, "no_crash", "has not crashed, or was resumed as often as it may")
    asked = Application(
        task_id=agent.task_id,
        role=agent.role,
        parent=caller,
        allow_duplicate_role=not last.takes_role,
        allow_same_work=not last.takes_work,
        rate_limited=own is not None,
        again=True,
        reach=_reach(context, agent.harness, parse_options(agent.options)),
        callers_reach=_reach_of(context, own),
    )
    facts = _facts(context, tx, asked, agent.work_hash)
    task, _ = check(asked, facts, _machine(context), context.settings.limits)
    new, token = _next_run(context, agent, last, began, again)
    messages = _taken(context, tx, new, again)
    session = Session(began.session_id or "", resumed=True)
    made = _add(context, tx, Admitted(new, _row(new), task, token, session, messages), sought, caller)
    if again.restart is not None:  # with the row, so that it counts and is made once
        tx.flags.finish(again.restart, now=new.reserved_at)
        about = {"from": last.key.n, "flag": again.restart}
        tx.events.add(
            "restarted",
            task_id=new.task_id,
            agent_id=new.key.agent_id,
            run=new.key.n,
            data=about,
            now=new.reserved_at,
        )
    return made


def began_in(runs: Sequence[Run]) -> Run:
    """Return the latest run that has begun, in which the conversation is.

    Raises:
        Refused: there is none, or it is not known which conversation it is.
    """
    began = next((run for run in reversed(runs) if run.started_at is not None), None)
    if began is None:
        raise _refused(runs[-1], "conversation_unknown", "has never run")
    if began.session_id is None:
        raise _refused(runs[-1], "conversation_unknown", "has not said which conversation it is")
    return began


def may_resume(agent: Agent, tx: Tx, last: Run) -> bool:
    """Say whether the last run of an agent crashed and the agent may be resumed for that."""
    return crashed(last) and tx.runs.resumed_after_crash(agent.agent_id) < agent.resume_on_crash


def crashed(run: Run) -> bool:
    """Say whether a run was ended by neither its own work nor anybody's wish. A person's own is his."""
    if run.live or run.stop_reason is not None or run.form is Form.INTERACTIVE:
        return False
    if run.state is State.LOST:
        return True
    return run.outcome is Outcome.FAILED and (
        run.signal is not None or run.ending in (Ending.KILLED, Ending.API_ERROR)
    )


def _live(run: Run) -> Refused:
    return Refused(
        f"agent {run.key.agent_id} is {run.state}",
        code="agent_live",
        limit="one live run per agent",
        value=1,
        holders=[run.key.agent_id],
        hint="send it a message, wait for it, or stop it first",
    )


def _refused(run: Run, code: str, why: str) -> Refused:
    return Refused(
        f"agent {run.key.agent_id} cannot be resumed: it {why}",
        code=code,
        limit="conversation",
        holders=[run.key.agent_id],
        hint="deploy a new agent for what is left",
    )


def _next_run(context: Context, agent: Agent, last: Run, began: Run, again: Again) -> tuple[NewRun, str]:
    now, token = context.clock.now(), context.clock.token()
    key, options = RunKey(agent.agent_id, last.key.n + 1), parse_options(agent.options)
    new = NewRun(
        key=key,
        task_id=agent.task_id,
        role=agent.role,
        parent=agent.parent,
        depth=agent.depth,
        harness=agent.harness,
        model=options.model,
        effort=options.effort,
        prompt=agent.prompt,
        work_hash=agent.work_hash,
        takes_role=last.takes_role,
        takes_work=last.takes_work,
        command=agent.command,
        cwd=agent.cwd,
        path=context.placement.run_path(key, reserved_at=now),
        deployer=context.placement.self_process(),
        pidns=context.placement.pid_namespace(),
        reserved_at=now,
        reserved_boottime=context.clock.boottime(),
        token_hash=rights.token_hash(token),
        first=False,
        options=agent.options,
        session_id=began.session_id,
        resumes=began.key.n,
        why=again.why,
        form=again.form,
        resume_on_crash=agent.resume_on_crash,
        isolation=agent.isolation,
        policy=agent.policy,
    )
    return new, token


def _taken(context: Context, tx: Tx, new: NewRun, again: Again) -> tuple[AgentMessage, ...]:
    """Return the messages that the prompt hands over, each now on its way to this run. What was in the prompt
    of an earlier run that never began is among them; what an earlier run may have been told in its work is
    not. A raw prompt has room for one, and for no words beside; at a terminal it is a person who speaks."""
    if again.form is Form.INTERACTIVE:
        return ()
    queued = tx.messages.queued(new.key.agent_id)
    waiting = [each for each in queued if each.run is None or each.way is not Way.STEER]
    if not context.harness(new.harness).wraps_prompt:
        waiting = waiting[:1] if again.prompt is None else []
    if again.prompt is None and not waiting and again.why is not Why.CRASH:
        raise Refused(
            f"there is nothing to tell agent {new.key.agent_id}",
            code="nothing_to_tell",
            limit="prompt",
            holders=[new.key.agent_id],
            hint="give a prompt",
        )
    for each in waiting:
        tx.messages.route(each.id, Way.RESUME, run=new.key.n)
    return tuple(replace(each, way=Way.RESUME, run=new.key.n) for each in waiting)
