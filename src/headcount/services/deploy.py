"""Begin one run: admit and reserve, write the order, start, confirm. A deploy is an agent's first.

What a crash leaves: after the reservation a reserved row whose deployer is dead, which the next
headcount voids; after the start a runner that holds its lock, which it adopts. Neither starts anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headcount.domain.environment import select
from headcount.domain.errors import HeadcountError, PlacementFailed, Refused
from headcount.domain.lifecycle import Outcome, State
from headcount.domain.model import Form, LiveRun, LockState, Order, Run, Started, Why
from headcount.domain.options import Ability, Options, parse_options
from headcount.domain.prompt import Further, PromptInput, assemble, delegation, go_on
from headcount.harnesses.base import Harness, Launch, Spec
from headcount.services import admit, headcount, rights, settle, stop, worktrees
from headcount.services.admit import Admitted, Earlier
from headcount.services.answers import Deployed
from headcount.services.context import Context, Remote
from headcount.services.project_files import read_project
from headcount.services.request import Request, check_cwd, validate


@dataclass(frozen=True, slots=True)
class Job:
    """An admitted deploy that is being carried out."""

    context: Context
    harness: Harness
    admitted: Admitted
    env: tuple[str, ...]  # names of further variables of the caller's
    words: str | None  # what the agent is told, as it was given


def deploy(context: Context, request: Request) -> Deployed:
    """Deploy one agent; return when its process is confirmed to run.

    Raises:
        InvalidInput, NotFound, Refused: nothing was started.
        PlacementFailed: the row says why it did not start; nothing is left running.
    """
    harness = validate(context, request)
    if context.remote is not None:
        admit.own_task_only(context, request)
        return _through_daemon(context.remote, request)
    check_cwd(context.caller.cwd, request.cwd)
    return begin(
        context,
        harness,
        lambda looked: admit.reserve(context, request, looked),
        env=request.env,
        words=request.prompt,
    )


def begin(
    context: Context,
    harness: Harness,
    reserve: Callable[[settle.Look], Admitted | Earlier],
    *,
    env: tuple[str, ...],
    words: str | None,
) -> Deployed:
    """Reserve a run, start it, and return when its process is confirmed to run.

    Raises:
        NotFound, Refused: nothing was started.
        PlacementFailed: the row says why it did not start; nothing is left running.
    """
    context.ensure_daemon()
    with context.views.held_back():
        admitted = reserve(settle.look(context, act=True))
        if isinstance(admitted, Earlier):
            left = admitted.task.max_depth - admitted.run.depth
            return answer(context, admitted.run, left=left, repeated=True)
        job = Job(context, harness, admitted, env, words)
        run = _confirm(job, _start(job))
    if run.live and run.runner is not None:
        headcount.show(context, run, run.runner)
    return answer(context, run, left=admitted.task.max_depth - admitted.new.depth)


def _through_daemon(remote: Remote, request: Request) -> Deployed:
    """Within an agent's tree nothing is started: the daemon does it, as a child of that agent."""
    arguments: dict[str, object] = {
        "agent_type": request.role,
        "harness": request.harness,
        "prompt": request.prompt,
        "command": list(request.command) or None,
        **_split(request.options),
        "cwd": request.cwd,
        "env": list(request.env) or None,
        "allow_duplicate_role": request.allow_duplicate_role,
        "allow_same_work": request.allow_same_work,
        "idempotency_key": request.idempotency_key,
        "resume_on_crash": request.resume_on_crash or None,
        "isolation": request.isolation,
        "policy": dict(request.policy) or None,
    }
    answered = remote.call(
        "spawn_child_agent", {k: v for k, v in arguments.items() if v not in (None, False)}
    )
    return Deployed(**answered)  # type: ignore[arg-type]  # the daemon's answer has these very fields


def _split(options: Options) -> dict[str, object]:
    """Return options as the tools take them: model and effort by name, the rest together."""
    rest = options.given()
    return {"model": rest.pop("model", None), "effort": rest.pop("effort", None), "options": rest or None}


def _start(job: Job) -> Started:
    """Write the order and start the runner; on failure leave a row that says why and nothing else."""
    context, row = job.context, job.admitted.row
    try:
        env = _caller_env(job)
        if job.admitted.worktree is not None:
            worktrees.make(context, job.admitted.worktree, job.admitted.task, row.key, env)
        cwd = _cwd(job)
        launch = _launch(job, _spec(job, cwd, env))
        context.placement.prepare(_order(job, launch, cwd))
        env = {**env, **launch.env, **_contract(job)}
        return context.placement.start(row.key, row.path, env=env, timeout=context.settings.start_timeout)
    except HeadcountError as error:
        _give_up(job, error.message)
        raise
    except OSError as error:
        _give_up(job, str(error))
        raise PlacementFailed(
            f"the agent could not be started: {error}", hint="see 'headcount doctor'"
        ) from error
    except BaseException:
        context.given_up.add(row.key)
        raise


def _give_up(job: Job, reason: str) -> None:
    """Undo a start that failed, and take the worktree away that nobody works in then."""
    run = undo(job.context, job.admitted.row, reason)
    if job.admitted.worktree is not None and not run.live:
        worktrees.unmake(job.context, run.key.agent_id)
    _refuse_if_stopped(run)


def _launch(job: Job, spec: Spec) -> Launch:
    if job.admitted.new.form is Form.HEADLESS:
        return job.harness.command(spec)
    return job.context.on_terminal(job.harness.interactive(spec), spec.run_path)


def _cwd(job: Job) -> str:
    cwd = job.admitted.new.cwd or job.admitted.task.project  # it was left open by earlier releases
    if not os.path.isdir(cwd):
        raise PlacementFailed(f"the working directory {cwd} is gone", hint="name another with --cwd")
    return cwd


def _caller_env(job: Job) -> dict[str, str]:
    kept, _ = select(
        job.context.caller.env,
        names=(*job.harness.env_names, *job.context.settings.env, *job.env),
        prefixes=job.harness.env_prefixes,
    )
    return {**kept, "PATH": _path(job.context, kept.get("PATH", os.defpath))}


def _path(context: Context, path: str) -> str:
    """Return where programs are looked for: as the caller does, and last where our own command is."""
    ours = os.path.dirname(context.headcount[0])
    return path if ours in path.split(os.pathsep) else os.pathsep.join((path, ours))


def _spec(job: Job, cwd: str, env: Mapping[str, str]) -> Spec:
    return Spec(
        key=job.admitted.row.key,
        task_id=job.admitted.task.task_id,
        prompt=_prompt(job, cwd),
        command=job.admitted.new.command,
        options=_options(job),
        session=job.admitted.session,
        cwd=cwd,
        run_path=job.admitted.row.path,
        headcount=job.context.headcount,
        env=env,
        ask_expiry=job.context.settings.ask_expiry,
    )


def _options(job: Job) -> Options:
    return parse_options(job.admitted.new.options)


def _prompt(job: Job, cwd: str) -> str:
    if not job.admitted.new.first:
        return _further_prompt(job)
    if not job.harness.wraps_prompt:
        return job.words or ""
    return assemble(
        PromptInput(
            agent_id=job.admitted.row.key.agent_id,
            role=job.admitted.new.role,
            task=job.admitted.task,
            parent=job.admitted.new.parent,
            depth=job.admitted.new.depth,
            prompt=job.words or "",
            project=read_project(Path(cwd)),
            replacements=replacements(job.context),
            result_schema=_asked_schema(job),
        )
    )


def _asked_schema(job: Job) -> Mapping[str, object] | None:
    """Return the schema that only words can ask for: the program itself knows none."""
    return None if Ability.RESULT_SCHEMA in job.harness.abilities else _options(job).result_schema


def _further_prompt(job: Job) -> str:
    """Return what an agent is told that goes on: it has all it was told before. At a terminal, nothing."""
    new, messages = job.admitted.new, job.admitted.messages
    if new.form is Form.INTERACTIVE:
        return ""
    if not job.harness.wraps_prompt:
        return job.words or "".join(each.text for each in messages)
    return go_on(
        Further(
            agent_id=new.key.agent_id,
            role=new.role,
            task_id=new.task_id,
            n=new.key.n,
            interrupted=new.why is Why.CRASH,
            prompt=job.words,
            messages=tuple((each.sender, each.text) for each in messages),
            result_schema=_asked_schema(job),
        )
    )


def replacements(context: Context) -> dict[str, str]:
    """Return the user's own texts for parts of the prompt: `prompts/<part>.md` in the home."""
    folder = context.home.prompts
    if not folder.is_dir():
        return {}
    return {each.stem: each.read_text("utf-8", "replace") for each in sorted(folder.glob("*.md"))}


def _order(job: Job, launch: Launch, cwd: str) -> Order:
    new, settings = job.admitted.new, job.context.settings
    return Order(
        key=new.key,
        task_id=new.task_id,
        role=new.role,
        parent=new.parent,
        depth=new.depth,
        harness=new.harness,
        model=new.model,
        effort=new.effort,
        argv=launch.argv,
        cwd=cwd,
        prompt=job.words,
        stdin=launch.stdin,
        files=launch.files,
        grace=settings.grace,
        output_cap=settings.output_cap,
        deployer=new.deployer,
        reserved_at=new.reserved_at,
        renders=job.harness.renders and new.form is Form.HEADLESS,
        rows=_rows(job.admitted),
        interrupts=launch.interrupts,
    )


def _rows(admitted: Admitted) -> dict[str, object]:
    """Return what a rebuilt registry needs of the rows, besides what the order says itself."""
    new = admitted.new
    plain = ("options", "work_hash", "takes_role", "takes_work", "token_hash", "session_id")
    return {
        "task": {**asdict(admitted.task), "state": admitted.task.state.value},
        "command": list(new.command),
        "agent_prompt": new.prompt,
        "why": new.why.value,
        "form": new.form.value,
        **{name: getattr(new, name) for name in (*plain, "resumes", "resume_on_crash")},
        "isolation": new.isolation.value,
        "policy": new.policy,
        "worktree": None if admitted.worktree is None else asdict(admitted.worktree.tree),
    }


def _contract(job: Job) -> dict[str, str]:
    """Return what every agent of every harness is told."""
    home, key = job.context.home, job.admitted.row.key
    return {
        "HEADCOUNT_AGENT_ID": key.agent_id,
        "HEADCOUNT_RUN": str(key.n),
        "HEADCOUNT_TASK_ID": job.admitted.task.task_id,
        "HEADCOUNT_TOKEN": job.admitted.token,
        "HEADCOUNT_HOME": str(home.root),
        "HEADCOUNT_SOCKET": str(home.daemon_socket),
    }


def undo(context: Context, row: LiveRun, reason: str) -> Run:
    """Make sure that a run whose start failed does not run, record why, and return it as it is then.

    A runner that was too slow to answer keeps its row until its exit record is there. If the registry
    cannot be written, the next headcount of this process, or after its end, does the rest.
    """
    context.given_up.add(row.key)
    found = context.placement.void(row.key, row.path, reason=reason)
    if found.lock is not LockState.FREE:  # a runner has it, or nobody can tell
        context.placement.signal_stop(row.key, row.path, grace=0.0)
        run = _mark_stopping(context, row, reason)
        if found.lock is LockState.HELD:  # else it may never have begun, and nobody but us would begin it
            context.given_up.discard(row.key)
        return run
    with context.registry.write("undo deploy") as tx:
        now = context.clock.now()
        for current in (each for each in tx.runs.live() if each.key == row.key):
            if found.exit is not None and found.exit.error is None:
                settle.end(context, tx, current, found.exit, now=now)
            else:
                settle.start_failed(tx, current, reason, now=now)
        run = rights.existing(tx, row.key.agent_id, row.key.n)
    context.given_up.discard(row.key)
    context.placement.unmark(row.key)
    return run


def _mark_stopping(context: Context, row: LiveRun, reason: str) -> Run:
    with context.registry.write("undo deploy") as tx:
        stop.mark(context, tx, row.key, row.task_id, reason, by="headcount")
        return rights.existing(tx, row.key.agent_id, row.key.n)


def _refuse_if_stopped(run: Run) -> None:
    """Raise Refused if a stop or halt came while the run was being deployed."""
    if run.outcome is Outcome.STOPPED:
        raise Refused(
            f"agent {run.key.agent_id} was stopped while it was being deployed",
            code="stopped_meanwhile",
            limit="intent",
            holders=[run.key.agent_id],
            hint=run.stop_reason or "",
        )


def _confirm(job: Job, started: Started) -> Run:
    """Record that it runs. A stop or halt that came in between has made the row `stopping`: then the
    run is ended, and the deploy refused."""
    context, row = job.context, job.admitted.row
    try:
        with context.registry.write("confirm") as tx:
            confirmed = settle.confirm(tx, row, started, now=context.clock.now())
            run = rights.existing(tx, row.key.agent_id, row.key.n)
            if job.admitted.worktree is not None:
                worktrees.made(context, tx, job.admitted.worktree.tree)
    except BaseException:
        context.given_up.add(row.key)  # it runs: the next headcount adopts it
        raise
    if run.state is State.STOPPING:
        stop.end(context, run, grace=0.0)
        run = replace(run, outcome=Outcome.STOPPED)
    if not confirmed:
        _refuse_if_stopped(run)
    return run


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
