"""Make a quarantined registry anew: from the last backup, then from every run directory that is newer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headcount.domain.account import Ending
from headcount.domain.errors import HeadcountError, Refused
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import (
    Form,
    Isolation,
    LockState,
    Message,
    RunKey,
    Started,
    Task,
    TaskContext,
    TaskState,
    Why,
    Worktree,
    WorktreeState,
)
from headcount.services import settle, stop
from headcount.services.answers import Rebuilt, iso
from headcount.services.context import Context
from headcount.store.quarantine import Quarantine
from headcount.store.registry import Tx
from headcount.store.runs import NewRun


@dataclass(slots=True)
class Tally:
    """What a rebuild restored, and what it could not."""

    tasks: int = 0
    agents: int = 0
    runs: int = 0
    lost: list[str] = field(default_factory=list)


def rebuild(context: Context) -> Rebuilt:
    """Rebuild a quarantined or damaged registry.

    Reports, findings and events since the last backup are lost, so are tasks that had no agent, and the
    closing of tasks; `lost` says so, and names each run directory that could not be read. Runs that live
    are rows again; nothing is started or killed.

    Raises:
        Refused: the registry is whole.
        NotAllowed: an agent asks.
    """
    stop.person_only(context, "rebuild the registry")
    found = _quarantined(context)
    tally = Tally()
    made = context.registry.rebuild(lambda tx: _fill(context, tx, tally))
    return Rebuilt(
        str(made.backup) if made.backup else None,
        str(found.path),
        tally.tasks,
        tally.agents,
        tally.runs,
        (*_gone(iso(made.backup_at)), *tally.lost),
    )


def _gone(backup_at: str | None) -> tuple[str, ...]:
    """Say what no run directory tells."""
    since = f"since the backup of {backup_at}" if backup_at else "of all time: there was no backup"
    return (
        f"reports, findings and events {since}",
        f"tasks without an agent, and the closing and archiving of tasks, {since}",
    )


def _quarantined(context: Context) -> Quarantine:
    """Return the quarantine; a file that can still be read and fails its check is set aside now."""
    found = context.registry.quarantined()
    if found is not None:
        return found
    wrong = context.registry.integrity()
    if wrong:
        return context.registry.quarantine(wrong[0])
    raise Refused(
        "the registry is whole, there is nothing to rebuild",
        code="not_quarantined",
        limit="registry",
        hint="'headcount doctor' says what is wrong",
    )


def _fill(context: Context, tx: Tx, tally: Tally) -> None:
    for path, order in context.placement.orders():
        if order is None:
            tally.lost.append(f"{path}: its order cannot be read")
            continue
        try:
            _restore(context, tx, tally, path, order)
        except (HeadcountError, KeyError, TypeError, ValueError) as error:
            tally.lost.append(f"{path}: {error!r}")
    tx.events.add(
        "registry_rebuilt",
        data={"tasks": tally.tasks, "agents": tally.agents, "runs": tally.runs, "lost": len(tally.lost)},
        now=context.clock.now(),
    )


def _restore(context: Context, tx: Tx, tally: Tally, path: str, order: Mapping[str, Any]) -> None:
    key = RunKey(order["agent_id"], int(order["run"]))
    if tx.runs.get(key.agent_id, key.n) is None:
        if tx.tasks.get(order["task_id"]) is None:
            tx.tasks.add(_task(order["rows"]["task"]))
            tally.tasks += 1
        tally.agents += tx.runs.get(key.agent_id) is None
        tx.runs.add(_run(context, tx, key, path, order))
        _restore_worktree(tx, order["rows"].get("worktree"))
        tally.runs += 1
    _observe(context, tx, key, path)


def _restore_worktree(tx: Tx, row: Mapping[str, Any] | None) -> None:
    """Have a worktree on record as being made: the next headcount finds out what it is."""
    if row is not None and tx.worktrees.get(row["agent_id"]) is None:
        names = ("agent_id", "repository", "path", "branch", "base", "made_at")
        tx.worktrees.add(Worktree(**{name: row[name] for name in names}, state=WorktreeState.MAKING))


def _observe(context: Context, tx: Tx, key: RunKey, path: str) -> None:
    """Bring a restored row up to what its run directory says."""
    row = next((each for each in tx.runs.live() if each.key == key), None)
    if row is None:
        return
    seen = context.placement.look_at(key, path)
    now = context.clock.now()
    if seen.lock is LockState.FREE and not (seen.start or seen.exit or seen.void):
        tx.runs.end(
            key,
            outcome=Outcome.START_FAILED,
            exit=None,
            reason="it had not started when the registry was lost",
            ending=Ending.NOT_STARTED,
            result=None,
            usage=None,
            survivors=(),
            now=now,
        )
        return
    if seen.start and row.runner is None and seen.lock is LockState.HELD:
        settle.confirm(
            tx, row, Started(seen.start.runner, seen.start.process, seen.start.started_at), now=now
        )
        return
    settle.record(context, tx, settle.refine(context, {key: seen}, act=False), [row])


def _task(row: Mapping[str, Any]) -> Task:
    about = row["context"]
    return Task(
        task_id=row["task_id"],
        description=row["description"],
        priority=row["priority"],
        project=row["project"],
        state=TaskState.OPEN,
        context=TaskContext(
            background=about["background"],
            deliverables=tuple(about["deliverables"]),
            success_criteria=tuple(about["success_criteria"]),
            constraints=tuple(about["constraints"]),
            relevant_files=tuple(about["relevant_files"]),
            conversation=tuple(Message(**each) for each in about["conversation"]),
        ),
        max_live=row["max_live"],
        max_agents=row["max_agents"],
        max_depth=row["max_depth"],
        spawn_rules=row["spawn_rules"] and {k: tuple(v) for k, v in row["spawn_rules"].items()},
        created_at=row["created_at"],
        isolation=Isolation(row.get("isolation", "shared")),
        setup=tuple(row.get("setup", ())),
        policy=row.get("policy", {}),
    )


def _run(context: Context, tx: Tx, key: RunKey, path: str, order: Mapping[str, Any]) -> NewRun:
    rows = order["rows"]
    return NewRun(
        key=key,
        task_id=order["task_id"],
        role=order["role"],
        parent=order["parent"],
        depth=order["depth"],
        harness=order["harness"],
        model=order["model"],
        effort=order["effort"],
        prompt=rows.get("agent_prompt", order["prompt"]),
        work_hash=rows["work_hash"],
        takes_role=rows["takes_role"],
        takes_work=rows["takes_work"],
        command=tuple(rows["command"]),
        cwd=order["cwd"],
        path=path,
        deployer=context.placement.self_process(),
        pidns=context.placement.pid_namespace(),
        reserved_at=order["reserved_at"],
        reserved_boottime=0.0,
        token_hash=rows["token_hash"],
        first=tx.runs.get(key.agent_id) is None,
        options=rows.get("options", {}),
        session_id=rows.get("session_id"),
        resumes=rows.get("resumes"),
        why=Why(rows.get("why", "deploy")),
        form=Form(rows.get("form", "headless")),
        resume_on_crash=rows.get("resume_on_crash", 0),
        isolation=Isolation(rows.get("isolation", "shared")),
        policy=rows.get("policy", {}),
    )
