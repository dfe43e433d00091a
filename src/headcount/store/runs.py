"""Agents and their runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from headcount.domain.admission import AdmissionFacts
from headcount.domain.errors import NotFound, Refused
from headcount.domain.lifecycle import LIVE, Change, Outcome, State, advance, sources
from headcount.domain.model import (
    Agent,
    ExitRecord,
    Form,
    Isolation,
    LiveRun,
    Process,
    Run,
    RunKey,
    Used,
    Why,
)
from headcount.store.codec import dump, load, load_object
from headcount.store.session import Session, Value
from headcount.store.tasks import Tasks


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is to be reserved; with `first` its agent is new too.

    A slot that is not taken is the caller's wish for a double. `token_hash` None: nobody can act for it.
    """

    key: RunKey
    task_id: str
    role: str
    parent: str | None
    depth: int
    harness: str
    model: str | None
    effort: str | None
    prompt: str | None
    work_hash: str | None
    takes_role: bool
    takes_work: bool
    command: tuple[str, ...]
    cwd: str
    path: str
    deployer: Process
    pidns: str
    reserved_at: float
    reserved_boottime: float  # seconds of CLOCK_BOOTTIME, comparable within the deployer's boot
    token_hash: bytes | str | None
    first: bool
    options: Mapping[str, object] = field(default_factory=dict)  # of a `first` one: domain.options
    session_id: str | None = None  # the conversation, if it is known beforehand
    resumes: int | None = None  # the run whose conversation this one continues
    why: Why = Why.DEPLOY
    form: Form = Form.HEADLESS
    resume_on_crash: int = 0  # of a `first` one
    isolation: Isolation = Isolation.SHARED  # of a `first` one
    policy: Mapping[str, object] = field(default_factory=dict)  # of a `first` one: domain.policy


_FROM_MAX: Final = 3
"""How many source states the statements have room for; lifecycle has no change with more."""

_REFUSALS: Final = {
    "duplicate_role:": ("duplicate_role", "one live agent per (task, role)"),
    "run.role_slot": ("duplicate_role", "one live agent per (task, role)"),
    "same_work:": ("same_work", "one live agent per (task, prompt)"),
    "run.work_slot": ("same_work", "one live agent per (task, prompt)"),
    "agent.agent_id": ("agent_exists", "an agent's id is unique"),
    "run.agent_id": ("agent_live", "one live run per agent"),
    "run_number:": ("agent_live", "one live run per agent"),
}


class Runs:
    """The agent and run tables inside one transaction. Each change says whether it happened."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, new: NewRun) -> None:
        """Reserve a run; of a `first` one also add its agent.

        Raises:
            Refused: a live run holds the agent, the role or the work; nothing was added.
            NotFound: the task, the parent or (unless `first`) the agent does not exist; likewise.
        """
        row = _new_row(new)
        added = 0
        try:
            if new.first:
                added = self._session.change("runs.add_agent", **row)
            self._session.change("runs.add", **row)
        except sqlite3.IntegrityError as error:
            if added:
                self._session.change("runs.undo_agent", agent_id=new.key.agent_id)
            raise _refusal(error, new) from error

    def live(self) -> list[LiveRun]:
        """Return all live rows of the machine, oldest agent first."""
        return [_live_run(row) for row in self._session.all("runs.live")]

    def live_of_task(self, task_id: str) -> list[Run]:
        return _runs(self._session.all("runs.live_of_task", task_id=task_id))

    def get(self, agent_id: str, n: int | None = None) -> Run | None:
        """Return one run of an agent; the latest if `n` is None."""
        if n is None:
            row = self._session.one("runs.latest", agent_id=agent_id)
        else:
            row = self._session.one("runs.get", agent_id=agent_id, n=n)
        return None if row is None else run_of(row)

    def agent(self, agent_id: str) -> Agent | None:
        """Return what an agent was deployed as."""
        row = self._session.one("runs.agent", agent_id=agent_id)
        return None if row is None else _agent(row)

    def of_agent(self, agent_id: str) -> list[Run]:
        """Return all runs of an agent, in their order."""
        return _runs(self._session.all("runs.all_of_agent", agent_id=agent_id))

    def unaccounted(self, limit: int) -> list[RunKey]:
        """Return runs that are over and whose account is still to be made, the latest first."""
        return [
            RunKey(row["agent_id"], row["n"]) for row in self._session.all("runs.unaccounted", limit=limit)
        ]

    def live_to_resume(self) -> list[LiveRun]:
        """Return the live rows of agents that are to be resumed after a crash."""
        return [_live_run(row) for row in self._session.all("runs.live_to_resume")]

    def crashed_since(self, moment: float, limit: int) -> list[Run]:
        """Return the latest runs of agents that are to be resumed after a crash, if they ended since a moment
        and were not stopped; an agent that has been resumed so as often as it may is left out."""
        return _runs(self._session.all("runs.crashed_since", since=moment, limit=limit))

    def last_stopped_for(self, task_id: str, reason: str) -> list[Run]:
        """Return the latest runs of those agents of a task whose latest run was stopped for this reason."""
        return _runs(self._session.all("runs.last_stopped_for", task_id=task_id, reason=reason))

    def resumed_after_crash(self, agent_id: str) -> int:
        """Return how often an agent was resumed after a crash."""
        return self._session.number("runs.resumed_after_crash", agent_id=agent_id)

    def set_account(self, key: RunKey, account: Mapping[str, object], *, session_id: str | None) -> bool:
        """Record what a run used and did. False: it is recorded already, or the run is not over."""
        values: dict[str, Value] = {"account": dump(account), "session_id": session_id}
        return self._session.change("runs.set_account", agent_id=key.agent_id, n=key.n, **values) == 1

    def know_session(self, key: RunKey, session_id: str) -> bool:
        """Record the conversation of a run. False: it is known already."""
        values: dict[str, Value] = {"session_id": session_id}
        return self._session.change("runs.know_session", agent_id=key.agent_id, n=key.n, **values) == 1

    def used(self, task_id: str) -> Used:
        """Return what the runs of a task used, as far as it is known."""
        (row,) = self._session.all("runs.used", task_id=task_id)
        return Used(**dict(row))

    def by_token(self, token_hash: bytes | str) -> Run | None:
        row = self._session.one("runs.by_token", token_hash=_hex(token_hash))
        return None if row is None else run_of(row)

    def children(self, agent_id: str) -> list[Run]:
        """Return the latest run of each agent that this one deployed, oldest first."""
        return _runs(self._session.all("runs.children", agent_id=agent_id))

    def page(
        self,
        task_id: str | None = None,
        *,
        all: bool = False,  # the name of the option at every door
        limit: int,
        after: str | None = None,
    ) -> list[Run]:
        """Return the latest run of each agent, newest agent first: of one task or of the machine.

        Without `all` only live ones. `after` is the agent id of the last run of the page before.
        """
        name = f"runs.page_{'all' if all else 'live'}"
        if task_id is None:
            return _runs(self._session.all(name, limit=limit, after=after))
        return _runs(self._session.all(f"{name}_of_task", task_id=task_id, limit=limit, after=after))

    def admission(
        self,
        task_id: str,
        *,
        parent: str | None,
        role: str,
        work_hash: str | None,
        boot_id: str,
        since_boottime: float,
    ) -> AdmissionFacts:
        """Return what bears on a deploy. Inside a write transaction it stays true until the commit."""
        rows = self._session.all("runs.holders")
        here = [row for row in rows if row["task_id"] == task_id]
        recent = {"parent": parent, "boot_id": boot_id, "since": since_boottime}
        return AdmissionFacts(
            task=Tasks(self._session).get(task_id),
            live_machine=tuple(row["agent_id"] for row in rows),
            live_task=tuple(row["agent_id"] for row in here),
            agents_of_task=self._session.number("runs.agents_of_task", task_id=task_id),
            parent=None if parent is None else self.get(parent),
            role_holders=tuple(row["agent_id"] for row in here if row["role"] == role),
            work_holders=tuple(
                row["agent_id"] for row in here if work_hash and row["work_hash"] == work_hash
            ),
            recent_children=0 if parent is None else self._session.number("runs.recent_children", **recent),
        )

    def confirm(
        self, key: RunKey, *, runner: Process, process: Process, started_at: float, now: float
    ) -> bool:
        """Record that the harness runs. False: it was stopped or settled meanwhile, and nothing changed."""
        del now  # the start record says when it started; the event has the time of this
        return self._change(
            Change.CONFIRMED,
            key,
            "runs.confirm",
            started_at=started_at,
            **_identity("runner", runner),
            **_identity("process", process),
        )

    def correct(self, key: RunKey, *, was: Process, runner: Process, process: Process) -> bool:
        """Name the processes that the run really has. False: it is over, or names another than `was` now."""
        values = {**_identity("was", was), **_identity("runner", runner), **_identity("process", process)}
        return self._session.change("runs.correct", agent_id=key.agent_id, n=key.n, **values) == 1

    def stop_asked(self, key: RunKey, *, reason: str, by: str | None, now: float) -> bool:
        """Record the wish. False: somebody asked before, or it is over."""
        return self._change(Change.STOP_ASKED, key, "runs.stop_asked", reason=reason, by=by, now=now)

    def end(
        self,
        key: RunKey,
        *,
        outcome: Outcome,
        exit: ExitRecord | None,  # the record's name
        reason: str | None,
        ending: str | None = None,
        result: Mapping[str, object] | None,
        usage: Mapping[str, object] | None,
        survivors: Iterable[int],
        now: float,
    ) -> bool:
        """Record how it ended, at the exit record's time if there is one. False: it was over already."""
        return self._change(
            Change.END_SEEN,
            key,
            "runs.end",
            outcome=outcome.value,
            ended_at=exit.ended_at if exit else now,
            started_at=exit.started_at if exit else None,
            exit_code=exit.code if exit else None,
            signal=exit.signal if exit else None,
            exit=dump(asdict(exit)) if exit else None,
            reason=reason,
            ending=ending,
            survivors=dump(list(survivors)),
            result=None if result is None else dump(result),
            usage=None if usage is None else dump(usage),
        )

    def lost(self, key: RunKey, *, reason: str, survivors: Iterable[int], now: float) -> bool:
        """Record that nobody knows how it ended. False: it was over already."""
        pids = dump(list(survivors))
        return self._change(Change.FOUND_LOST, key, "runs.lost", reason=reason, survivors=pids, now=now)

    def view_failed(self, key: RunKey) -> int:
        """Count one more death of the run's view; return how many there were (0: no such run)."""
        row = self._session.one("runs.view_failed", agent_id=key.agent_id, n=key.n)
        return 0 if row is None else int(row[0])

    def counts(self, task_id: str) -> dict[str, int]:
        """Count a task's agents, all and the live ones, and by the state, and for ended ones also by the
        outcome, of their latest run."""
        found = {"total": 0, "live": 0, **{name.value: 0 for name in (*State, *Outcome)}}
        for row in self._session.all("runs.counts", task_id=task_id):
            found["total"] += row["number"]
            found["live"] += row["number"] if row["state"] in LIVE else 0
            found[row["state"]] += row["number"]
            if row["outcome"] is not None:
                found[row["outcome"]] += row["number"]
        return found

    def keys(self) -> set[RunKey]:
        """Return the names of all runs, those that are over too. Costs history."""
        return {RunKey(row["agent_id"], row["n"]) for row in self._session.all("runs.keys")}

    def ended_before(self, moment: float, limit: int) -> list[Run]:
        """Return runs that were over before `moment`, longest over first."""
        return _runs(self._session.all("runs.ended_before", before=moment, limit=limit))

    def forget(self, keys: Iterable[RunKey]) -> int:
        """Delete runs that are over, and agents that nothing refers to any more; return how many runs.

        An agent of a task that may still take agents stays as a name, for the task's lifetime limit.
        """
        gone = 0
        for key in sorted(keys):  # an agent's earlier runs first: its latest goes only as the last
            gone += self._session.change("runs.forget", agent_id=key.agent_id, n=key.n)
            self._session.change("runs.empty_agent", agent_id=key.agent_id)
            self._session.change("runs.forget_worktree", agent_id=key.agent_id)
            self._forget_agents_from(key.agent_id)
        return gone

    def _forget_agents_from(self, agent_id: str | None) -> None:
        """Delete an agent, then its parent if that was kept for this child only, and so on up."""
        while agent_id is not None:
            row = self._session.one("runs.forget_agent", agent_id=agent_id)
            agent_id = None if row is None else row["parent_id"]

    def _change(self, change: Change, key: RunKey, statement: str, **values: Value) -> bool:
        """Compare-and-set, on the states that the lifecycle table names and to the one it names."""
        from_ = sources(change)
        padded = [*(state.value for state in from_), *[None] * _FROM_MAX][:_FROM_MAX]
        states = {f"from_{number}": state for number, state in enumerate(padded, start=1)}
        to = advance(from_[0], change).value
        return self._session.change(statement, agent_id=key.agent_id, n=key.n, to=to, **states, **values) == 1


def _new_row(new: NewRun) -> dict[str, Value]:
    deployer = _identity("deployer", new.deployer)
    return {
        **deployer,
        "agent_id": new.key.agent_id,
        "n": new.key.n,
        "task_id": new.task_id,
        "state": State.RESERVED.value,
        "role": new.role,
        "parent": new.parent,
        "depth": new.depth,
        "harness": new.harness,
        "model": new.model,
        "effort": new.effort,
        "prompt": new.prompt,
        "work_hash": new.work_hash,
        "role_slot": new.role if new.takes_role else None,
        "work_slot": new.work_hash if new.takes_work else None,
        "command": dump(new.command),
        "cwd": new.cwd,
        "path": new.path,
        "pidns": new.pidns,
        "reserved_at": new.reserved_at,
        "reserved_boottime": new.reserved_boottime,
        "token_hash": None if new.token_hash is None else _hex(new.token_hash),
        "options": dump(dict(new.options)),
        "session_id": new.session_id,
        "resumes": new.resumes,
        "why": new.why.value,
        "form": new.form.value,
        "resume_on_crash": new.resume_on_crash,
        "isolation": new.isolation.value,
        "policy": dump(dict(new.policy)),
    }


def _identity(who: str, process: Process) -> dict[str, Value]:
    return {f"{who}_pid": process.pid, f"{who}_ticks": process.ticks, f"{who}_boot": process.boot_id}


def _hex(token_hash: bytes | str) -> str:
    return token_hash.hex() if isinstance(token_hash, bytes) else token_hash


def _refusal(error: sqlite3.IntegrityError, new: NewRun) -> Exception:
    """Return what a violated constraint means, or the error itself where that would be a fault of ours."""
    for sign, (code, limit) in _REFUSALS.items():
        if sign in str(error):
            message = f"{new.key.agent_id} cannot be reserved: {limit}"
            return Refused(message, code=code, limit=limit, value=1, hint="wait for the holder, or stop it")
    if "FOREIGN KEY" in str(error):
        return NotFound(f"{new.key.agent_id} belongs to a task, parent or agent that does not exist")
    return error


def _runs(rows: Iterable[sqlite3.Row]) -> list[Run]:
    return [run_of(row) for row in rows]


def run_of(row: sqlite3.Row) -> Run:
    """Return a row of the run table that has its agent's facts beside it."""
    outcome = row["outcome"]
    return Run(
        key=RunKey(row["agent_id"], row["n"]),
        task_id=row["task_id"],
        role=row["role"],
        parent=row["parent_id"],
        depth=row["depth"],
        harness=row["harness"],
        state=State(row["state"]),
        outcome=None if outcome is None else Outcome(outcome),
        path=row["path"],
        deployer=Process(row["deployer_pid"], row["deployer_ticks"], row["deployer_boot"]),
        runner=_process(row, "runner"),
        process=_process(row, "process"),
        reserved_at=row["reserved_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        exit_code=row["exit_code"],
        signal=row["signal"],
        reason=row["reason"],
        stop_reason=row["stop_reason"],
        survivors=tuple(load(row["survivors"])),
        view_failures=row["view_failures"],
        result=load_object(row["result"]),
        usage=load_object(row["usage"]),
        options=load_object(row["options"]) or {},
        session_id=row["session_id"],
        resumes=row["resumes"],
        why=Why(row["why"]),
        ending=row["ending"],
        account=load_object(row["account"]),
        takes_role=row["role_slot"] is not None,
        takes_work=row["work_slot"] is not None,
        form=Form(row["form"]),
    )


def _agent(row: sqlite3.Row) -> Agent:
    return Agent(
        agent_id=row["agent_id"],
        task_id=row["task_id"],
        role=row["role"],
        parent=row["parent_id"],
        depth=row["depth"],
        harness=row["harness"],
        options=load_object(row["options"]) or {},
        resume_on_crash=row["resume_on_crash"],
        work_hash=row["work_hash"],
        command=tuple(load(row["command"])),
        cwd=row["cwd"],
        prompt=row["prompt"],
        created_at=row["created_at"],
        isolation=Isolation(row["isolation"]),
        policy=load_object(row["policy"]) or {},
    )


def _live_run(row: sqlite3.Row) -> LiveRun:
    return LiveRun(
        key=RunKey(row["agent_id"], row["n"]),
        task_id=row["task_id"],
        role=row["role"],
        state=State(row["state"]),
        harness=row["harness"],
        path=row["path"],
        deployer=Process(row["deployer_pid"], row["deployer_ticks"], row["deployer_boot"]),
        runner=_process(row, "runner"),
        process=_process(row, "process"),
        stop_reason=row["stop_reason"],
        options=load_object(row["options"]) or {},
        reserved_boottime=row["reserved_boottime"],
        form=Form(row["form"]),
    )


def _process(row: sqlite3.Row, who: str) -> Process | None:
    pid = row[f"{who}_pid"]
    return None if pid is None else Process(pid, row[f"{who}_ticks"], row[f"{who}_boot"])
