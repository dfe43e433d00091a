"""Admit one agent: every limit is checked, and its row taken, in one transaction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from headcount.domain.admission import Application, Machine, check
from headcount.domain.errors import HeadcountError, NotFound, Refused
from headcount.domain.ids import new_id, session_id
from headcount.domain.lifecycle import State
from headcount.domain.model import LiveRun, Run, RunKey, Task
from headcount.domain.options import Ability
from headcount.harnesses.base import Session
from headcount.services import rights, settle
from headcount.services.context import Context
from headcount.services.request import Request
from headcount.store.registry import Tx
from headcount.store.runs import NewRun


@dataclass(frozen=True, slots=True)
class Admitted:
    """A reserved row, and what is needed to start it."""

    row: LiveRun
    task: Task
    parent: str | None
    depth: int
    token: str
    session: Session
    reserved_at: float


@dataclass(frozen=True, slots=True)
class Earlier:
    """The run that an earlier deploy with the same idempotency key made, and its task."""

    run: Run
    task: Task


@dataclass(frozen=True, slots=True)
class Grant:
    """Admission's word: this task, this place in the tree."""

    task: Task
    parent: str | None
    depth: int


def reserve(context: Context, request: Request, looked: settle.Look) -> Admitted | Earlier:
    """Record what was seen, check every limit, and take the slot.

    A refusal is committed as an event, with the rows that the look settled, before it is raised.

    Raises:
        NotFound, Refused: nothing was reserved.
    """
    refused: HeadcountError | None = None
    result: Admitted | Earlier | None = None
    with context.registry.write("deploy") as tx:
        settled = settle.record(context, tx, looked, tx.runs.live())
        try:
            result = _admit(context, tx, request)
        except (Refused, NotFound) as error:
            _record_refusal(context, tx, request, error)
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
        _record_refusal(context, tx, replace(request, parent=own.key.agent_id), refused)
    raise refused


def _record_refusal(context: Context, tx: Tx, request: Request, error: HeadcountError) -> None:
    known = tx.tasks.get(request.task_id) is not None
    tx.events.add(
        "refused",
        task_id=request.task_id if known else None,
        reason=error.code,
        data={"role": request.role, "parent": request.parent, "message": error.message},
        now=context.clock.now(),
    )


def _admit(context: Context, tx: Tx, request: Request) -> Admitted | Earlier:
    own = rights.caller_run(context, tx)
    parent = request.parent if own is None else own.key.agent_id
    earlier = _earlier(tx, request, parent or rights.PERSON)
    if earlier is not None:
        return earlier
    facts = tx.runs.admission(
        request.task_id,
        parent=parent,
        role=request.role,
        work_hash=work_hash(request.prompt),
        boot_id=context.placement.self_process().boot_id,
        since_boottime=context.clock.boottime() - context.settings.limits.spawn_window,
    )
    task, depth = check(_application(request, parent, own), facts, _machine(context), context.settings.limits)
    return _insert(context, tx, request, Grant(task, parent, depth))


def _application(request: Request, parent: str | None, own: Run | None) -> Application:
    return Application(
        task_id=request.task_id,
        role=request.role,
        parent=parent,
        allow_duplicate_role=request.allow_duplicate_role,
        allow_same_work=request.allow_same_work,
        rate_limited=own is not None,
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


def _earlier(tx: Tx, request: Request, scope: str) -> Earlier | None:
    """Return what this idempotency key stood for before.

    Raises:
        Refused: it was used for something else.
    """
    found = tx.keys.get(scope, request.idempotency_key) if request.idempotency_key else None
    if found is None:
        return None
    fingerprint, agent_id, n = found
    if fingerprint != request.fingerprint():
        raise Refused(
            f"idempotency key {request.idempotency_key!r} was used for another deploy",
            code="idempotency_key_reused",
            limit="idempotency_key",
            holders=[agent_id],
            hint="use a new key for a new request",
        )
    run = rights.existing(tx, agent_id, n)
    return Earlier(run, rights.existing_task(tx, run.task_id))


def _insert(context: Context, tx: Tx, request: Request, grant: Grant) -> Admitted:
    now, token = context.clock.now(), context.clock.token()
    key = RunKey(new_id(request.role, now=now, chance=context.clock.chance()), 1)
    session = Session(session_id(key.agent_id, key.n))
    new = _new_run(context, request, grant, key, session=session, token=token, now=now)
    tx.runs.add(new)
    if request.idempotency_key:
        tx.keys.put(
            grant.parent or rights.PERSON,
            request.idempotency_key,
            request_hash=request.fingerprint(),
            agent_id=key.agent_id,
            run=key.n,
            now=now,
        )
    tx.events.add(
        "run_reserved",
        task_id=request.task_id,
        agent_id=key.agent_id,
        run=key.n,
        data={"role": request.role, "parent": grant.parent, "depth": grant.depth, "harness": request.harness},
        now=now,
    )
    return Admitted(_row(new), grant.task, grant.parent, grant.depth, token, session, now)


def _names_session(context: Context, request: Request) -> bool:
    return Ability.PRESET_SESSION in context.harness(request.harness).abilities


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
    )


def _new_run(
    context: Context,
    request: Request,
    grant: Grant,
    key: RunKey,
    *,
    session: Session,
    token: str,
    now: float,
) -> NewRun:
    return NewRun(
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
        cwd=request.cwd or "",
        path=context.placement.run_path(key, reserved_at=now),
        deployer=context.placement.self_process(),
        pidns=context.placement.pid_namespace(),
        reserved_at=now,
        reserved_boottime=context.clock.boottime(),
        token_hash=rights.token_hash(token),
        first=key.n == 1,
        options=request.options.given(),
        session_id=session.session_id if _names_session(context, request) else None,
    )
