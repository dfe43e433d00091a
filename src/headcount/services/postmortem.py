"""Make the post-mortem of a run that is over: what is known of its end, gathered while it can be, and kept.

Nothing is changed by looking, and no transaction is open meanwhile. Killed at any step, the post-mortem is
made by whoever comes next: that a run has none is in the registry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import HeadcountError, Refused
from headcount.domain.lifecycle import State
from headcount.domain.lines import backward
from headcount.domain.model import Agent, Report, Run, RunKey, Worktree
from headcount.domain.policy import merged
from headcount.domain.postmortem import (
    ENTRIES,
    FRESH,
    NEAR,
    STDERR_MAX,
    TEXT_MAX,
    Edge,
    Memory,
    entry_facts,
    in_words,
    may_be_memory,
    memory_of,
    near,
    of_the_run,
    signal_name,
)
from headcount.runtimes.base import OutputSlice
from headcount.services import account, given, rights, settle, worktrees
from headcount.services.agents import READ_AT_ONCE
from headcount.services.answers import PostMortem, iso
from headcount.services.context import Context
from headcount.store.codec import dump
from headcount.store.postmortems import Circumstances

SEARCH: Final = 4_000_000
"""Bytes from the end of the output in which the last tool call is looked for."""
SINCE: Final = 86_400.0
"""Seconds since the end in which a post-mortem is made unasked: of what ended before, little can be seen."""
WITHOUT_ACCOUNT: Final = 60.0
"""Seconds that a post-mortem waits for the account of its run."""


def get(context: Context, agent_id: str, n: int | None) -> PostMortem:
    """Return the post-mortem of a run, by default the agent's latest that is over; made now if it has none.

    Raises:
        NotFound: no such agent or run.
        Refused: it is live.
    """
    given.maybe_whole("run", n, least=1)
    settle.observe(context)
    with context.registry.read() as tx:
        rights.existing(tx, agent_id, n)
        runs = tx.runs.of_agent(agent_id)
    over = [run for run in runs if not run.live and n in (None, run.key.n)]
    if not over:
        raise Refused(
            f"agent {agent_id} is live: there is nothing to examine yet",
            code="agent_live",
            limit="state",
            value=runs[-1].state.value,
            holders=[agent_id],
            hint=f"see how it is with 'headcount show {agent_id}'",
        )
    _account(context, over[-1])
    make(context, over[-1].key)
    return _answer(context, over[-1].key)


def _account(context: Context, run: Run) -> None:
    """Make the account first, if it is quickly made; what fails is said as unknown."""
    with suppress(HeadcountError):
        if context.placement.read_output(run.path, offset=0, limit=1).end <= READ_AT_ONCE:
            account.make(context, run.key)


def due(context: Context, most: int) -> list[RunKey]:
    """Return runs that are over and whose post-mortem is to be made."""
    now = context.clock.now()
    with context.registry.read() as tx:
        return tx.postmortems.due(since=now - SINCE, without=now - WITHOUT_ACCOUNT, limit=most)


def waiting(context: Context) -> bool:
    """Say whether there are runs whose post-mortem waits for something."""
    with context.registry.read() as tx:
        return tx.postmortems.waiting(since=context.clock.now() - SINCE)


def make(context: Context, key: RunKey) -> bool:
    """Make the post-mortem of a run that is over; False if it has one, or is live or not there."""
    with context.registry.read() as tx:
        run, agent = tx.runs.get(key.agent_id, key.n), tx.runs.agent(key.agent_id)
        if run is None or agent is None or run.live or tx.postmortems.get(key) is not None:
            return False
        case = _Case(
            run,
            agent,
            tx.postmortems.circumstances(run),
            tx.reports.latest_of([key]).get(key),
            [each for each in tx.runs.of_agent(key.agent_id) if each.key.n <= key.n],
        )
    facts = _facts(context, case)
    with context.registry.write("post-mortem") as tx:
        return tx.postmortems.add(key, facts, now=context.clock.now())


@dataclass(frozen=True, slots=True)
class _Case:
    """What the registry says."""

    run: Run
    agent: Agent
    known: Circumstances
    report: Report | None
    runs: list[Run]


def _facts(context: Context, case: _Case) -> dict[str, Any]:
    """Return what is kept: all of the answer but the account, which the registry has already."""
    run, record = case.run, case.known.exit
    memory = memory_of(run, record, _memory_kill(context, case))
    entries, call = _entries(context, run)
    files, why_not = _files(context, case)
    return {
        "how": in_words(run, record),
        "ran_s": None if run.started_at is None or run.ended_at is None else run.ended_at - run.started_at,
        "stop": _stop(case),
        "out_of_memory": asdict(memory),
        "unknown": [*_unknown(context, case, memory), *why_not],
        "last_report": _report(case.report),
        "last_tool_call": None if call is None else call.text[:TEXT_MAX],
        "near_limits": [asdict(each) for each in _near(context, case)],
        "flags": [_flag(each) for each in case.known.flags],
        "runs": [_history(each) for each in case.runs],
        "files": files,
        "entries": [entry_facts(each, len(dump(each.data))) for each in entries],
        "stderr": _stderr(context, run),
    }


# ---------------------------------------------------------------- who and what


def _memory_kill(context: Context, case: _Case) -> str | None:
    """Return what the kernel's log says, if a run ended so that it is worth a look."""
    run = case.run
    pids = {each.pid for each in (run.process, run.runner) if each is not None}
    if not pids or run.started_at is None or not may_be_memory(run, case.known.exit):
        return None
    return context.memory_kill(pids, context.clock.now() - run.started_at)


def _stop(case: _Case) -> dict[str, object] | None:
    if case.run.stop_reason is None:
        return None
    asked_at = iso(case.known.stop_asked_at)
    return {"by": case.known.stop_by, "reason": case.run.stop_reason, "asked_at": asked_at}


def _report(said: Report | None) -> dict[str, object] | None:
    if said is None:
        return None
    facts = {"status": said.status.value, "message": said.message[:TEXT_MAX], "progress": said.progress}
    return {**facts, "at": iso(said.at), "late": said.late}


def _flag(flag: Mapping[str, Any]) -> dict[str, object]:
    return {name: iso(value) if name.endswith("_at") else value for name, value in flag.items()}


def _history(run: Run) -> dict[str, object]:
    return {
        "run": run.key.n,
        "why": run.why.value,
        "state": run.state.value,
        "outcome": run.outcome.value if run.outcome else None,
        "ending": run.ending,
        "reason": run.reason,
        "started_at": iso(run.started_at),
        "ended_at": iso(run.ended_at),
    }


def _unknown(context: Context, case: _Case, memory: Memory) -> Iterator[str]:
    """Yield what nobody knows of this end."""
    run = case.run
    if run.state is State.LOST:
        yield "its exit code or signal, and the moment of its end: its runner left no record of them"
    unasked = run.signal is not None and run.stop_reason is None
    if run.signal is not None and unasked and not memory.killed:
        yield f"who sent {signal_name(run.signal)}: nobody of Headcount did"
    if memory.killed is None and (run.state is State.LOST or unasked):
        yield f"whether memory was short: {memory.evidence}"
    if not os.path.isdir(run.path):
        yield "what it wrote: its run directory is gone"
    elif run.account is None:
        yield "what it used and did: its output could not be counted"
    elif run.account.get("model") is not None and run.account.get("cost_usd") is None:
        yield "what it cost: neither its program nor your prices tell"
    if run.survivors:
        yield f"what became of the processes that survived it: {', '.join(map(str, run.survivors))}"


# ---------------------------------------------------------------- what it wrote


def _entries(context: Context, run: Run) -> tuple[list[Entry], Entry | None]:
    """Return the last entries of its output, the earliest first, and the last call of a tool. Pieces of one
    text are one entry."""
    harness = context.harness(run.read_by)

    def read(offset: int, limit: int) -> OutputSlice:
        return context.placement.read_output(run.path, offset=offset, limit=limit)

    end = read(0, 1).end
    found: list[Entry] = []
    call: Entry | None = None
    for line in backward(read, end):
        for entry in reversed(harness.read(line.data)):
            if call is None and entry.kind is EntryKind.TOOL_CALL:
                call = entry
            if found and _goes_on(entry, found[-1]):
                found[-1] = Entry(entry.kind, (entry.text + found[-1].text)[: 2 * TEXT_MAX], entry.data)
            elif len(found) <= ENTRIES:  # one more: the last may have a beginning that is not there yet
                found.append(entry)
        if len(found) > ENTRIES and (call or not harness.renders or end - line.start > SEARCH):
            break
    return found[:ENTRIES][::-1], call


def _goes_on(entry: Entry, following: Entry) -> bool:
    return entry.kind is following.kind is EntryKind.TEXT and following.data.get("delta") is True


def _stderr(context: Context, run: Run) -> str:
    said = context.placement.read_output(run.path, offset=-STDERR_MAX, limit=STDERR_MAX, stream="stderr")
    return said.data.decode("utf-8", "replace")


# ---------------------------------------------------------------- limits


def _near(context: Context, case: _Case) -> Iterator[Edge]:
    """Yield the limits that were near at the end. Those of the machine are today's settings; what it has free
    is told only if the end was just now."""
    run, known, limits = case.run, case.known, context.settings.limits
    policy = merged(run.role, context.settings.policy, known.task_policy, known.agent_policy)
    yield from of_the_run(run, known.exit, policy)
    crashes = sum(each.why.value == "crash" for each in case.runs)
    yield from near(
        Edge("resume_on_crash", case.agent.resume_on_crash, crashes, "run"),
        Edge("max_depth", known.max_depth, run.depth, "task"),
        Edge("max_live", known.max_live, known.live, "task"),
        Edge("max_agents", known.max_agents, known.agents, "task"),
        Edge("machine_max_live", limits.machine_max_live, known.live_machine, "machine"),
    )
    if run.ended_at is not None and context.clock.now() - run.ended_at <= FRESH:
        for name, least, free in (
            ("min_disk_mb", limits.min_disk_mb, context.placement.free_disk_mb()),
            ("min_memory_mb", limits.min_memory_mb, context.placement.free_memory_mb()),
        ):
            if free * NEAR <= least:
                yield Edge(name, least, free, "machine")


# ---------------------------------------------------------------- files


def _files(context: Context, case: _Case) -> tuple[dict[str, object], list[str]]:
    """Return which files were changed since the start, and what cannot be told of that."""
    run = case.run
    if run.started_at is None or run.ended_at is None:
        return {"source": "none", "note": "it never began", "count": 0, "files": []}, []
    with suppress(HeadcountError):
        worktrees.note(context, run.key)
    with context.registry.read() as tx:
        tree = tx.worktrees.get(run.key.agent_id)
    if tree is not None:
        return _of_worktree(tree, run)
    try:
        found = context.repositories.changed(case.known.project, since=run.started_at, until=run.ended_at)
    except HeadcountError as error:
        return {"source": "git", "count": None, "files": []}, [f"which files were changed: {error.message}"]
    if found is None:
        return {"source": "none", "note": "the project is not in git", "count": None, "files": []}, []
    unknown = [f"whether {found.later} files that were changed later were changed before, too"]
    note = "by anybody: the project is shared" + ("" if found.whole else "; there are more")
    return (
        {"source": "git", "note": note, "count": found.count, "files": list(found.files)},
        unknown if found.later else [],
    )


def _of_worktree(tree: Worktree, run: Run) -> tuple[dict[str, object], list[str]]:
    result = tree.result or {}
    facts: dict[str, object] = {"source": "worktree", "branch": tree.branch, "base": tree.base}
    if result.get("run") != run.key.n or "error" in result:
        why = result.get("error") or "its worktree has been used since, or is gone"
        return {**facts, "count": None, "files": []}, [f"which files were changed: {why}"]
    names = [str(each["path"]) for each in result["files"]]
    note = f"since its base; 'headcount worktree diff {tree.agent_id}' shows how"
    count = {"count": result["files_changed"], "commits": result["commit_count"]}
    return {**facts, **count, "note": note, "files": names, "uncommitted": result["dirty_count"]}, []


# ---------------------------------------------------------------- the answer


_KEPT: Final = {each.name for each in fields(PostMortem)}


def _answer(context: Context, key: RunKey) -> PostMortem:
    with context.registry.read() as tx:
        run, kept = rights.existing(tx, key.agent_id, key.n), tx.postmortems.get(key) or {}
    lists: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()
    }
    return PostMortem(
        agent_id=key.agent_id,
        run=key.n,
        task_id=run.task_id,
        role=run.role,
        harness=run.harness,
        state=run.state.value,
        outcome=run.outcome.value if run.outcome else None,
        ending=run.ending,
        reason=run.reason,
        exit_code=run.exit_code,
        signal=run.signal,
        started_at=iso(run.started_at),
        ended_at=iso(run.ended_at),
        survivors=run.survivors,
        account=run.account,
        **{name: value for name, value in lists.items() if name in _KEPT and name != "made_at"},
        made_at=iso(kept.get("made_at")) or "",
    )
