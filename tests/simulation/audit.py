"""What must hold after every step: the journal is replayed through a small model of the rules, and the
rows, the model and the machine are compared. Nothing here uses the code that is tested."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headcount.domain.model import Limits, Process, RunKey
from tests.simulation.world import Proc, RunDir, World

LIVE = ("reserved", "running", "stopping")


class Broken(AssertionError):
    """An invariant does not hold."""


def hold(condition: object, invariant: str, what: str) -> None:
    if not condition:
        raise Broken(f"{invariant}: {what}")


@dataclass
class Known:
    """One agent as the journal tells of it."""

    key: RunKey
    task_id: str
    role: str
    parent: str | None
    depth: int
    work: str | None
    state: str = "reserved"

    @property
    def live(self) -> bool:
        return self.state in LIVE


@dataclass
class KnownTask:
    """One task as it was created."""

    max_live: int
    max_agents: int
    max_depth: int
    rules: Mapping[str, list[str]] | None
    state: str = "open"
    agents: int = 0
    refusals: dict[str, int] = field(default_factory=dict)


class Auditor:
    """Watches one simulation from outside."""

    def __init__(self, world: World, registry: Path, halted: Path, limits: Limits) -> None:
        self.world = world
        self.limits = limits
        self.tasks: dict[str, KnownTask] = {}
        self.agents: dict[str, Known] = {}
        self.rows: dict[RunKey, sqlite3.Row] = {}
        self._over: dict[RunKey, tuple[object, ...]] = {}
        self._halted = halted
        self._runs = 0
        self._seq = 0
        self._events = 0
        self._version = self._commits = -1
        self._db = sqlite3.connect(
            f"{registry.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row
        world.on_reserve = self._reserving
        world.on_signal = self._signalled

    def close(self) -> None:
        self._db.close()

    def step(self) -> None:
        """Check everything that must hold at any moment."""
        if self.world.version == self._version:
            return
        self._version = self.world.version
        if self.world.commits != self._commits:
            self._commits = self.world.commits
            self._replay()
        self._machine()

    # the rows

    def _replay(self) -> None:
        self.rows = {RunKey(row["agent_id"], row["n"]): row for row in self._db.execute("SELECT * FROM run")}
        for event in self._db.execute("SELECT * FROM event WHERE seq > ? ORDER BY seq", (self._seq,)):
            self._seq = event["seq"]
            self._events += 1
            self._take(event)
        (count,) = self._db.execute("SELECT count(*) FROM event").fetchone()
        hold(count == self._events, "journal", "an event was taken away or put in between")
        for key, row in self.rows.items():
            known = self.agents.get(key.agent_id)
            hold(known, "journal", f"{key} has a row and no event")
            assert known is not None
            if key.n < known.key.n:
                hold(row["state"] not in LIVE, "I3", f"{key} is live beside run {known.key.n}")
                continue
            hold(
                row["state"] == known.state,
                "journal",
                f"{key} is {row['state']}, by its events {known.state}",
            )
        hold(len(self.rows) == self._runs, "I4", "a row is gone")
        self._over_stays_over()

    def _over_stays_over(self) -> None:
        for key, facts in self._over.items():
            hold(facts == _end(self.rows[key]), "I4", f"{key} was over and has changed")
        self._over = {key: _end(row) for key, row in self.rows.items() if row["state"] not in LIVE}

    # the journal

    def _take(self, event: sqlite3.Row) -> None:
        data = json.loads(event["data"])
        match event["kind"]:
            case "task_created":
                self._task_created(event["task_id"])
            case "task_paused" | "task_resumed" | "task_closed" | "task_archived" as kind:
                self._task_moved(event["task_id"], kind.removeprefix("task_"))
            case "run_reserved":
                self._reserved(event, data)
            case "refused":
                if event["task_id"] is not None:
                    refusals = self.tasks[event["task_id"]].refusals
                    refusals[event["reason"]] = refusals.get(event["reason"], 0) + 1
            case "run_started":
                self._move(event, "running", "reserved")
            case "stop_asked":
                self._move(event, "stopping", "reserved", "running")
            case "run_ended":
                self._move(event, "ended", *LIVE)
            case "run_lost":
                self._move(event, "lost", *LIVE)
            case _:
                pass

    def _move(self, event: sqlite3.Row, to: str, *sources: str) -> None:
        known = self.agents[event["agent_id"]]
        hold(known.key.n == event["run"], "I4", f"{event['kind']} of run {event['run']} of {known.key}")
        hold(known.state in sources, "I4", f"{event['kind']} of {known.key}, which is {known.state}")
        known.state = to

    def _task_moved(self, task_id: str, how: str) -> None:
        self.tasks[task_id].state = "open" if how == "resumed" else how
        if how in ("closed", "archived"):
            hold(not self._live(task_id), "rows", "a task was closed while agents of it live")

    def _task_created(self, task_id: str) -> None:
        row = self._db.execute("SELECT * FROM task WHERE task_id = ?", (task_id,)).fetchone()
        rules = json.loads(row["spawn_rules"]) if row["spawn_rules"] else None
        self.tasks[task_id] = KnownTask(row["max_live"], row["max_agents"], row["max_depth"], rules)

    def _live(self, task_id: str | None = None) -> list[Known]:
        return [each for each in self.agents.values() if each.live and task_id in (None, each.task_id)]

    def _reserved(self, event: sqlite3.Row, data: Mapping[str, object]) -> None:
        """Judge an admission by what the journal says of the moment before it."""
        agent = self._db.execute("SELECT * FROM agent WHERE agent_id = ?", (event["agent_id"],)).fetchone()
        run = self.rows[RunKey(event["agent_id"], event["run"])]
        new = Known(
            RunKey(agent["agent_id"], event["run"]),
            agent["task_id"],
            agent["role"],
            agent["parent_id"],
            agent["depth"],
            agent["prompt"],
        )
        hold(data["parent"] == new.parent, "journal", f"{new.key} has another parent in the journal")
        task, flags = self.tasks[new.task_id], json.loads(agent["command"])
        hold(task.state == "open", "I2", f"{new.key} was admitted to a task that is {task.state}")
        before = self.agents.get(new.key.agent_id)
        self._judge_widths(new, task)
        if before is None:
            hold(task.agents < task.max_agents, "I2", f"{new.key} exceeds max_agents of its task")
            self._judge_parent(new, task)
            task.agents += 1
        else:
            self._judge_again(new, before, run)
        self._judge_doubles(new, flags)
        if "by-agent" in flags and before is None:
            self._judge_rate(new, run)
        self.agents[new.key.agent_id] = new
        self._runs += 1

    def _judge_again(self, new: Known, before: Known, run: sqlite3.Row) -> None:
        hold(not before.live, "I3", f"{new.key} was admitted beside {before.key}, which is {before.state}")
        hold(new.key.n == before.key.n + 1, "I3", f"{new.key} follows {before.key}")
        continued = self.rows[RunKey(new.key.agent_id, run["resumes"])]
        hold(continued["started_at"], "rows", f"{new.key} goes on with a run that never began")
        hold(run["session_id"] == continued["session_id"], "rows", f"{new.key} is another conversation")

    def _judge_widths(self, new: Known, task: KnownTask) -> None:
        hold(len(self._live()) < self.limits.machine_max_live, "I2", f"{new.key} exceeds machine_max_live")
        hold(len(self._live(new.task_id)) < task.max_live, "I2", f"{new.key} exceeds max_live of its task")

    def _judge_parent(self, new: Known, task: KnownTask) -> None:
        hold(new.depth <= task.max_depth, "I2", f"{new.key} is deeper than max_depth")
        if new.parent is None:
            hold(new.depth == 1, "I2", f"{new.key} is a root at depth {new.depth}")
            return
        parent = self.agents.get(new.parent)
        hold(parent, "I2", f"{new.key} has an unknown parent")
        assert parent is not None
        hold(parent.live, "I2", f"{new.key} has a parent that is {parent.state}")
        hold(parent.task_id == new.task_id, "I2", f"{new.key} has a parent of another task")
        hold(new.depth == parent.depth + 1, "I2", f"{new.key} is at a wrong depth")
        allowed = (task.rules or {}).get(parent.role)
        hold(allowed is None or new.role in allowed, "I2", f"a {parent.role} deployed a {new.role}")

    def _judge_doubles(self, new: Known, flags: list[str]) -> None:
        others = self._live(new.task_id)
        if "dup" not in flags:
            hold(all(each.role != new.role for each in others), "I3", f"{new.key} doubles a role")
        if "same" not in flags and new.work is not None:
            hold(all(each.work != new.work for each in others), "I3", f"{new.key} doubles a work")

    def _judge_rate(self, new: Known, run: sqlite3.Row) -> None:
        since = run["reserved_boottime"] - self.limits.spawn_window
        known = {each.key.agent_id: each.key.n for each in self.agents.values() if each.parent == new.parent}
        siblings = [row for key, row in self.rows.items() if key.n <= known.get(key.agent_id, 0)]
        recent = [
            each
            for each in siblings
            if each["deployer_boot"] == run["deployer_boot"] and each["reserved_boottime"] > since
        ]
        hold(len(recent) < self.limits.spawn_rate, "I2", f"{new.key} exceeds the spawn rate of its parent")

    def _reserving(self) -> None:
        """Called in the very moment in which a row is taken."""
        hold(not self._halted.exists(), "I2", "an agent is reserved while the fleet is halted")
        hold(self.world.free_disk_mb >= self.limits.min_disk_mb, "I2", "reserved without disk")
        hold(self.world.free_memory_mb >= self.limits.min_memory_mb, "I2", "reserved without memory")

    def _signalled(self, run: RunDir, by: Proc) -> None:
        """Called when a run is told to stop: it was asked for, or its own deployer undoes it."""
        self.step()
        row = self.rows.get(run.key)
        asked = row is None or row["state"] not in ("reserved", "running")
        own = run.order is not None and run.order.deployer == by.identity
        # a halt is asked for by its file, and kills what is marked live before it writes a row; also what
        # was let in when it had been lifted in the meantime
        halted = self._halted.exists() or "halt" in self.world.caller
        hold(asked or own or halted, "I6", f"{run.key} is told to stop, nobody asked")

    # rows and machine

    def _machine(self) -> None:
        for run in self.world.dirs.values():
            hold(run.starts <= 1, "I3", f"{run.key} was started {run.starts} times")
            if run.lock is None and not run.living:
                continue
            row = self.rows.get(run.key)
            hold(row, "I1", f"{run.key} runs without a row")
            if row is not None and row["state"] not in LIVE:
                self._nothing_left(run, row)

    def _nothing_left(self, run: RunDir, row: sqlite3.Row) -> None:
        listed = set(json.loads(row["survivors"]))
        left = [each for each in run.living if each.identity.pid not in listed]
        hold(
            not left,
            "I6",
            f"{run.key} is {row['state']}, but {', '.join(map(str, left))} live and are unlisted",
        )
        hold(run.lock is None, "I1", f"{run.key} is {row['state']} and its runner still holds the lock")

    # one headcount after anything

    def agree(self) -> None:
        """Check what must hold when a headcount is over and nothing else goes on."""
        self._version = -1
        self.step()
        running = {run.key for run in self.world.dirs.values() if run.lock is not None}
        live = {key for key, row in self.rows.items() if row["state"] in LIVE}
        hold(live == running, "I1", f"rows say {_names(live)}, processes say {_names(running)}")
        marked = {run.key for run in self.world.dirs.values() if run.marked}
        hold(marked == live, "I1", f"live/ has {_names(marked)}, rows have {_names(live)}")
        for run in self.world.dirs.values():
            row = self.rows[run.key]
            if run.key in live:
                self._identities(run, row)
            if row["state"] == "reserved":
                deployer = (row["deployer_pid"], row["deployer_ticks"], row["deployer_boot"])
                hold(self.world.find(Process(*deployer)), "I1", f"{run.key} is not adopted")

    def _identities(self, run: RunDir, row: sqlite3.Row) -> None:
        if row["state"] != "running":
            return  # its identities were never confirmed: it was stopped, or its confirmation failed
        assert run.start is not None
        named = (row["runner_pid"], row["runner_ticks"], row["runner_boot"])
        seen = run.start.runner
        hold(
            named == (seen.pid, seen.ticks, seen.boot_id), "I1", f"the row of {run.key} names another runner"
        )

    def states(self, keys: set[RunKey] | None = None) -> dict[RunKey, tuple[object, ...]]:
        """Return all rows (or some), to be compared with those of another moment. The account of a run that
        is over may be made at any time after, and is of no row's state."""
        found = [dict(row) for row in self._db.execute("SELECT * FROM run")]
        for row in found:
            for column in ("account", "session_id"):
                del row[column]
        rows = {RunKey(row["agent_id"], row["n"]): tuple(row.values()) for row in found}
        return {key: row for key, row in rows.items() if keys is None or key in keys}

    def said(self, table: str, number: int) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(
            f"SELECT * FROM {table} WHERE id = ?",
            (number,),
        ).fetchone()
        return row

    def count(self, task_id: str) -> Iterator[tuple[str, int]]:
        """Yield how many agents of a task are in each state."""
        found = self._db.execute(
            "SELECT state, count(*) FROM run WHERE task_id = ? AND n = (SELECT max(n) FROM run AS other"
            " WHERE other.agent_id = run.agent_id) GROUP BY state",
            (task_id,),
        )
        yield from ((row[0], row[1]) for row in found)


def _end(row: sqlite3.Row) -> tuple[object, ...]:
    return row["state"], row["outcome"], row["ended_at"], row["exit_code"], row["signal"], row["survivors"]


def _names(keys: set[RunKey]) -> str:
    return "{" + ", ".join(map(str, sorted(keys))) + "}"
