"""Deploy one agent: admit and reserve, write the order, start, confirm.

What a crash leaves: after the reservation a reserved row whose deployer is dead, which the next
headcount voids; after the start a runner that holds its lock, which it adopts. Neither starts anything.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headcount.domain.admission import AdmissionFacts, Application, Machine, check
from headcount.domain.environment import select
from headcount.domain.errors import HeadcountError, InvalidInput, NotFound, PlacementFailed, Refused
from headcount.domain.ids import check_id, check_role, new_id
from headcount.domain.lifecycle import State
from headcount.domain.model import LiveRun, LockState, Order, Run, RunKey, Started, Task
from headcount.domain.prompt import PromptInput, assemble, delegation
from headcount.harnesses.base import Harness, Launch, Spec
from headcount.services import rights, settle
from headcount.services.answers import Deployed
from headcount.services.context import Context
from headcount.services.project_files import read_project
from headcount.store.registry import Tx
from headcount.store.runs import NewRun


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks for, not yet checked."""

    task_id: str
    role: str
    prompt: str | None
    harness: str
    command: tuple[str, ...]
    parent: str | None
    model: str | None
    effort: str | None
    cwd: str | None
    env: tuple[str, ...]
    allow_duplicate_role: bool
    allow_same_work: bool
    idempotency_key: str | None

    def fingerprint(self) -> str:
        """Return what tells a repeated request from a different one with the same key."""
        return hashlib.sha256(repr(replace(self, env=())).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A reserved row, and what is needed to start it."""

    row: LiveRun
    task: Task
    parent: str | None
    depth: int
    token: str
    settled: tuple[settle.Settled, ...]


def deploy(context: Context, request: Request) -> Deployed:
    """Deploy one agent; return when its process is confirmed to run.

    Raises:
        InvalidInput, NotFound, Refused: nothing was started.
        PlacementFailed: the row says why it did not start; nothing is left running.
    """
    harness = _validate(context, request)
    if context.remote is not None:
        return _through_daemon(context, request)
    _check_cwd(request.cwd)
    context.ensure_daemon()
    looked = settle.look(context, act=True)
    admitted = _reserve(context, request, looked)
    if isinstance(admitted, Deployed):
        return admitted
    settle.tidy(context, admitted.settled, close_views=True)
    started = _start(context, request, harness, admitted)
    return _confirm(context, admitted, started, harness)


def _validate(context: Context, request: Request) -> Harness:
    """Check all that needs neither the registry nor the machine."""
    check_id("task", request.task_id)
    check_role(request.role)
    if request.parent is not None:
        check_id("agent", request.parent)
    harness = context.harness(request.harness)
    _check_prompt(request.prompt, harness, context.settings.limits.prompt_max_bytes)
    if harness.needs_command and not request.command:
        raise InvalidInput(f"harness {harness.name} needs a command", hint="give it behind '--', such as -- ./work.sh")
    if request.command and not harness.needs_command:
        raise InvalidInput(
            f"harness {harness.name} takes no command", hint="leave out what stands behind '--', or use --harness command"
        )
    if any("\0" in word for word in (*request.command, request.model or "", request.effort or "", request.cwd or "")):
        raise InvalidInput("a NUL character cannot be passed on", hint="remove it")
    return harness


def _check_prompt(prompt: str | None, harness: Harness, most: int) -> None:
    if prompt is None:
        if harness.needs_prompt:
            raise InvalidInput(f"harness {harness.name} needs a prompt", hint="say what the agent is to do")
        return
    if not prompt.strip():
        raise InvalidInput("the prompt is blank", hint="say what the agent is to do, or leave the prompt out")
    size = len(prompt.encode("utf-8", "surrogateescape"))
    if size > most:
        raise InvalidInput(
            f"the prompt has {size} bytes, the limit is {most}",
            hint="put the material into a file and name it in the prompt (setting prompt_max_bytes)",
        )


def _check_cwd(cwd: str | None) -> None:
    if cwd is not None and not os.path.isdir(cwd):
        raise InvalidInput(f"{cwd} is not a directory", hint="name an existing directory")


def _through_daemon(context: Context, request: Request) -> Deployed:
    """Within an agent's tree nothing is started: the daemon does it, as a child of that agent."""
    assert context.remote is not None
    arguments: dict[str, object] = {
        "agent_type": request.role,
        "harness": request.harness,
        "prompt": request.prompt,
        "command": list(request.command) or None,
        "model": request.model,
        "effort": request.effort,
        "cwd": request.cwd,
        "allow_duplicate_role": request.allow_duplicate_role,
        "allow_same_work": request.allow_same_work,
        "idempotency_key": request.idempotency_key,
    }
    answer = context.remote.call("spawn_child_agent", {k: v for k, v in arguments.items() if v not in (None, False)})
    return Deployed(**answer)  # type: ignore[arg-type]  # the daemon's answer has these very fields


def _reserve(context: Context, request: Request, looked: settle.Look) -> Admitted | Deployed:
    """Record what was seen, check every limit, and take the slot, in one transaction.

    A refusal is committed as an event, with the rows that the look settled, before it is raised.
    """
    refused: HeadcountError
    with context.registry.write("deploy") as tx:
        live = tx.runs.live()
        settled = tuple(settle.record(context, tx, looked, live))
        try:
            return _admit(context, tx, request, settled)
        except (Refused, NotFound) as error:
            _record_refusal(context, tx, request, error)
            refused = error
    settle.tidy(context, settled, close_views=True)
    raise refused


def _record_refusal(context: Context, tx: Tx, request: Request, error: HeadcountError) -> None:
    known = tx.tasks.get(request.task_id) is not None
    tx.events.add(
        "deploy_refused",
        task_id=request.task_id if known else None,
        reason=error.code,
        data={"role": request.role, "parent": request.parent, "message": error.message},
        now=context.clock.now(),
    )


def _admit(
    context: Context, tx: Tx, request: Request, settled: tuple[settle.Settled, ...]
) -> Admitted | Deployed:
    own = rights.caller_run(context, tx)
    parent = request.parent if own is None else own.key.agent_id
    scope = parent or "person"
    if request.idempotency_key and (earlier := _earlier(context, tx, request, scope)) is not None:
        return earlier
    self_ = context.placement.self_process()
    work = _work_hash(request.prompt)
    facts = tx.runs.admission(
        request.task_id,
        parent=parent,
        role=request.role,
        work_hash=work,
        boot_id=self_.boot_id,
        since_boottime=context.clock.boottime() - context.settings.limits.spawn_window,
    )
    depth = check(_application(request, parent, own), facts, _machine(context), context.settings.limits)
    return _insert(context, tx, request, facts, parent, depth, settled)


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


def _work_hash(prompt: str | None) -> str | None:
    return None if prompt is None else hashlib.sha256(prompt.strip().encode("utf-8", "surrogateescape")).hexdigest()


def _earlier(context: Context, tx: Tx, request: Request, scope: str) -> Deployed | None:
    """Return the answer that this idempotency key had before.

    Raises:
        Refused: the key was used for something else.
    """
    assert request.idempotency_key is not None
    found = tx.keys.get(scope, request.idempotency_key)
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
    task = tx.tasks.get(run.task_id)
    return answer(context, run, left=(task.max_depth if task else run.depth) - run.depth, repeated=True)


def _insert(
    context: Context,
    tx: Tx,
    request: Request,
    facts: AdmissionFacts,
    parent: str | None,
    depth: int,
    settled: tuple[settle.Settled, ...],
) -> Admitted:
    assert facts.task is not None
    now, token = context.clock.now(), context.clock.token()
    key = RunKey(new_id(request.role, now=now, chance=context.clock.chance()), 1)
    new = _new_run(context, request, key, parent=parent, depth=depth, token=token, now=now)
    tx.runs.add(new)
    if request.idempotency_key:
        tx.keys.put(parent or "person", request.idempotency_key, request.fingerprint(), key.agent_id, key.n, now)
    tx.events.add(
        "run_reserved",
        task_id=request.task_id,
        agent_id=key.agent_id,
        run=key.n,
        data={"role": request.role, "parent": parent, "depth": depth, "harness": request.harness},
        now=now,
    )
    row = LiveRun(
        key=key,
        task_id=request.task_id,
        role=request.role,
        state=State.RESERVED,
        harness=request.harness,
        path=new.path,
        deployer=new.deployer,
        runner=None,
        process=None,
        stop_reason=None,
    )
    return Admitted(row, facts.task, parent, depth, token, settled)


def _new_run(
    context: Context, request: Request, key: RunKey, *, parent: str | None, depth: int, token: str, now: float
) -> NewRun:
    return NewRun(
        key=key,
        task_id=request.task_id,
        role=request.role,
        parent=parent,
        depth=depth,
        harness=request.harness,
        model=request.model,
        effort=request.effort,
        prompt=request.prompt,
        work_hash=_work_hash(request.prompt),
        takes_role=not request.allow_duplicate_role,
        takes_work=not request.allow_same_work,
        command=request.command,
        cwd=request.cwd or "",
        path=context.placement.run_path(key, reserved_at=now),
        deployer=context.placement.self_process(),
        reserved_at=now,
        reserved_boottime=context.clock.boottime(),
        token_hash=rights.token_hash(token),
        first=key.n == 1,
    )


def _start(context: Context, request: Request, harness: Harness, admitted: Admitted) -> Started:
    """Write the order and start the runner; on failure leave a row that says why and nothing else."""
    try:
        cwd = _cwd(context, request, admitted.task)
        env, _ = select(
            context.caller.env,
            names=(*harness.env_names, *context.settings.env, *request.env),
            prefixes=harness.env_prefixes,
        )
        launch = harness.command(_spec(context, request, harness, admitted, cwd, env))
        order = _order(context, request, harness, admitted, launch, cwd)
        context.placement.prepare(order)
        env = {**env, **launch.env, **_contract(context, admitted, env)}
        return context.placement.start(
            admitted.row.key, admitted.row.path, env=env, timeout=context.settings.start_timeout
        )
    except HeadcountError as error:
        undo(context, admitted.row, error.message)
        raise
    except OSError as error:
        undo(context, admitted.row, str(error))
        raise PlacementFailed(f"the agent could not be started: {error}", hint="see 'headcount doctor'") from error


def _cwd(context: Context, request: Request, task: Task) -> str:
    """Return where the agent works: as asked; else where the caller is, if that lies within the
    task's project; else the project. Never where the daemon happens to be."""
    if request.cwd is not None:
        return str(Path(context.caller.cwd, request.cwd))
    cwd = context.caller.cwd if Path(context.caller.cwd).is_relative_to(task.project) else task.project
    if not os.path.isdir(cwd):
        raise PlacementFailed(f"the working directory {cwd} is gone", hint="name another with --cwd")
    return cwd


def _spec(
    context: Context, request: Request, harness: Harness, admitted: Admitted, cwd: str, env: Mapping[str, str]
) -> Spec:
    return Spec(
        key=admitted.row.key,
        task_id=admitted.task.task_id,
        prompt=_prompt(context, request, harness, admitted, cwd),
        command=request.command,
        model=request.model,
        effort=request.effort,
        cwd=cwd,
        run_path=admitted.row.path,
        headcount=context.headcount,
        env=env,
    )


def _prompt(context: Context, request: Request, harness: Harness, admitted: Admitted, cwd: str) -> str:
    if not harness.wraps_prompt:
        return request.prompt or ""
    return assemble(
        PromptInput(
            agent_id=admitted.row.key.agent_id,
            role=request.role,
            task=admitted.task,
            parent=admitted.parent,
            depth=admitted.depth,
            prompt=request.prompt or "",
            project=read_project(Path(cwd)),
            replacements=replacements(context),
        )
    )


def replacements(context: Context) -> dict[str, str]:
    """Return the user's own texts for parts of the prompt: `prompts/<part>.md` in the home."""
    folder = context.home.prompts
    if not folder.is_dir():
        return {}
    return {each.stem: each.read_text("utf-8", "replace") for each in sorted(folder.glob("*.md"))}


def _order(
    context: Context, request: Request, harness: Harness, admitted: Admitted, launch: Launch, cwd: str
) -> Order:
    return Order(
        key=admitted.row.key,
        task_id=admitted.task.task_id,
        role=request.role,
        parent=admitted.parent,
        depth=admitted.depth,
        harness=request.harness,
        model=request.model,
        effort=request.effort,
        argv=launch.argv,
        cwd=cwd,
        prompt=request.prompt,
        stdin=launch.stdin,
        files=launch.files,
        grace=context.settings.grace,
        output_cap=context.settings.output_cap,
        deployer=admitted.row.deployer,
        reserved_at=context.clock.now(),
        renders=harness.renders,
        rows=_rows(request, admitted),
    )


def _rows(request: Request, admitted: Admitted) -> dict[str, object]:
    """Return what a rebuilt registry needs of the rows, besides what the order says itself."""
    return {
        "task": {**asdict(admitted.task), "state": admitted.task.state.value},
        "command": list(request.command),
        "work_hash": _work_hash(request.prompt),
        "takes_role": not request.allow_duplicate_role,
        "takes_work": not request.allow_same_work,
        "token_hash": rights.token_hash(admitted.token),
    }


def _contract(context: Context, admitted: Admitted, env: Mapping[str, str]) -> dict[str, str]:
    """Return what every agent of every harness is told."""
    ours = os.path.dirname(context.headcount[0])
    path = env.get("PATH", os.defpath)
    return {
        "HEADCOUNT_AGENT_ID": admitted.row.key.agent_id,
        "HEADCOUNT_RUN": str(admitted.row.key.n),
        "HEADCOUNT_TASK_ID": admitted.task.task_id,
        "HEADCOUNT_TOKEN": admitted.token,
        "HEADCOUNT_HOME": str(context.home.root),
        "HEADCOUNT_SOCKET": str(context.home.daemon_socket),
        "PATH": path if ours in path.split(os.pathsep) else os.pathsep.join((path, ours)),
    }


def undo(context: Context, row: LiveRun, reason: str) -> None:
    """Make sure that a run whose start failed does not run, and record why.

    A runner that was too slow to answer keeps its row until its exit record is there.
    """
    found = context.placement.void(row.key, row.path, reason=reason)
    if found.lock is LockState.HELD:
        context.placement.signal_stop(row.key, row.path, grace=0.0)
        _mark_stopping(context, row, reason)
        return
    with context.registry.write("undo deploy") as tx:
        now = context.clock.now()
        if found.exit is not None and found.exit.error is None:
            settle.end(context, tx, row, found.exit, now=now)
        else:
            settle.start_failed(tx, row, reason, now=now)
    context.placement.unmark(row.key)


def _mark_stopping(context: Context, row: LiveRun, reason: str) -> None:
    with context.registry.write("undo deploy") as tx:
        tx.runs.stop_asked(row.key, reason=reason, by="headcount", now=context.clock.now())


def _confirm(context: Context, admitted: Admitted, started: Started, harness: Harness) -> Deployed:
    """Record that it runs. A stop or halt that came in between has made the row `stopping`: then the
    run is voided, and the deploy refused."""
    row = admitted.row
    with context.registry.write("confirm") as tx:
        confirmed = settle.confirm(tx, row, started, now=context.clock.now())
        run = rights.existing(tx, row.key.agent_id, row.key.n)
    if not confirmed and run.state is State.STOPPING:
        context.placement.signal_stop(row.key, row.path, grace=0.0)
        raise Refused(
            f"agent {row.key.agent_id} was stopped while it was being deployed",
            code="stopped_meanwhile",
            limit="intent",
            holders=[row.key.agent_id],
            hint=run.stop_reason or "",
        )
    if run.live:
        context.views.show(row.key, row.path, runner_pid=started.runner.pid, renders=harness.renders)
    return answer(context, run, left=admitted.task.max_depth - admitted.depth)


def answer(context: Context, run: Run, *, left: int, repeated: bool = False) -> Deployed:
    """Return the facts of a deploy; `left` says how many levels of delegation are below the agent."""
    return Deployed(
        agent_id=run.key.agent_id,
        run=run.key.n,
        task_id=run.task_id,
        role=run.role,
        parent=run.parent,
        depth=run.depth,
        state=run.state.value,
        pid=run.process.pid if run.process else None,
        runner_pid=run.runner.pid if run.runner else None,
        tmux_session=run.key.agent_id if run.live and context.views.available() is None else None,
        guidance=delegation(left),
        repeated=repeated,
    )
