"""The machine, simulated: processes, run directories and what they do by themselves.

It has no opinion of the registry. Services reach it through `SimPlacement` and `SimViews` only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from headcount.domain.errors import Infrastructure
from headcount.domain.model import ExitRecord, Order, Process, RunKey, StartRecord, VoidRecord
from tests.simulation.strands import Killed, Strand, Strands

PIDS = range(100, 140)
"""Few, so that they are given out again all the time."""

LEFTOVER_GRACE = 2.0


@dataclass(eq=False)
class Proc:
    """A process. Two never have the same identity, though often the same pid."""

    identity: Process
    kind: str
    run: RunKey | None = None  # whose tree it belongs to
    alive: bool = True
    stubborn: bool = False  # no signal ends it (a sick disk)
    patient: bool = False  # ignores TERM

    def __str__(self) -> str:
        return f"{self.kind} {self.identity.pid}"


@dataclass(eq=False)
class RunDir:
    """A run directory and the processes of its run."""

    key: RunKey
    path: str
    order: Order | None = None
    marked: bool = False
    lock: Proc | None = None
    start: StartRecord | None = None
    start_is_durable: bool = False
    exit: ExitRecord | None = None
    void: VoidRecord | None = None
    stop: float | None = None  # grace of the shortest stop that was asked
    phase: str = "prepared"
    runner: Proc | None = None
    tree: list[Proc] = field(default_factory=list)
    sender: Proc | None = None  # who writes the order into the runner's pipe
    order_sent: bool = False
    answer: str | None = None  # the runner's line to its starter
    kill_at: float = 0.0
    starts: int = 0  # how often an agent was let go: at most once, ever
    token: str = ""
    blind: bool = False  # it cannot be looked at now
    viewed: str | None = None  # None, "asked", "shown"

    @property
    def living(self) -> list[Proc]:
        return [each for each in self.tree if each.alive]


@dataclass(frozen=True)
class Climate:
    """How hard life is in one simulation."""

    crash: float = 0.0  # of a program at one of its boundaries
    violence: float = 0.0  # a move of the machine is a kill
    unknown: float = 0.0  # a look at a run fails
    faults: float = 0.0  # the registry or the disk does not do what is asked
    frozen: float = 0.0
    reboot: float = 0.0
    jump: float = 0.0  # wall time is set
    views_lost: float = 0.0


class World:
    """Everything that a real machine would be."""

    def __init__(self, rng: random.Random, climate: Climate) -> None:
        self.rng = rng
        self.climate = climate
        self.strands = Strands()
        self.boots = 1
        self.uptime = 1000.0
        self.wall_offset = 1_750_000_000.0
        self.procs: list[Proc] = []
        self.dirs: dict[RunKey, RunDir] = {}
        self.notes: dict[tuple[str, str], dict[str, Any] | None] = {}  # in a run's inbox, with its answer
        self.free_disk_mb = 10_000
        self.free_memory_mb = 10_000
        self.views_up = True
        self.unruly = False  # accidents happen
        self.switching = 1.0  # how often a boundary is a switch to others
        self.slowness = 0.0  # how many times longer than asked a pause may be
        self.log: list[str] = []
        self.version = 0  # changes with every change of the machine or commit
        self.commits = 0
        self._ticks = 0
        self._next_pid = 0
        self.on_reserve: Callable[[], None] = lambda: None
        self.on_signal: Callable[[RunDir, Proc], None] = lambda run, by: None

    # time and identity

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def pass_time(self, seconds: float) -> None:
        self.uptime += seconds

    def note(self, text: str) -> None:
        self.log.append(f"{self.uptime:9.3f} {self.caller or '-':<14} {text}")

    @property
    def caller(self) -> str:
        """The name of the strand that runs now."""
        return self.strands.current.name if self.strands.current else ""

    def touched(self) -> None:
        self.version += 1

    def chance(self, probability: float) -> bool:
        return self.unruly and probability > 0 and self.rng.random() < probability

    # processes

    def spawn(self, kind: str, run: RunKey | None = None) -> Proc:
        taken = {each.identity.pid for each in self.procs if each.alive}
        while True:
            pid = PIDS[self._next_pid % len(PIDS)]
            self._next_pid += 1
            if pid not in taken:
                break
            assert len(taken) < len(PIDS), "the simulated machine is full of processes"
        self._ticks += 1
        proc = Proc(Process(pid, self._ticks, self.boot_id), kind, run)
        self.procs.append(proc)
        self.touched()
        return proc

    def find(self, identity: Process) -> Proc | None:
        return next((each for each in self.procs if each.alive and each.identity == identity), None)

    def kill(self, proc: Proc, why: str = "") -> None:
        """End a process at once, with what ends with it."""
        if not proc.alive:
            return
        proc.alive = False
        self.touched()
        self.note(f"{proc} {f'of {proc.run} ' if proc.run else ''}is gone{f' ({why})' if why else ''}")
        for each in self.dirs.values():
            if each.lock is proc:
                each.lock = None
            if each.runner is proc:
                self._without_runner(each)

    def _without_runner(self, run: RunDir) -> None:
        run.answer = run.answer or ""  # the pipe closes
        if run.phase in ("forked", "recorded"):
            for each in run.living:  # it waits for a word of its runner, which will not come
                self.kill(each, "its runner is gone")
        elif run.phase in ("running", "ending") and run.living and self.rng.random() < 0.5:
            self.kill(run.tree[0], "parent-death signal")
        run.phase = "over"

    # boundaries: where programs are switched, killed, and met by accidents

    def boundary(self, name: str) -> None:
        """Called by services' code, through the simulated parts, before and after everything that it does."""
        strand = self.strands.current
        assert strand is not None, "services run in strands only"
        self._die_if_killed(strand)
        strand.boundaries += 1
        strand.at = name
        if strand.doom is not None and strand.boundaries >= strand.doom and self.unruly:
            self.note(f"KILLED at {name}")
            self.kill(strand.process, "SIGKILL")
            raise Killed
        self.pass_time(self.rng.random() * 0.004)
        if strand.writing:
            if self.rng.random() < 0.2:
                self.stir()  # the machine goes on while a writer holds the lock
        elif strand.wake_at > self.uptime or self.rng.random() < self.switching:
            self.strands.give_back(strand)
        self._die_if_killed(strand)

    def sleep(self, seconds: float) -> None:
        strand = self.strands.current
        assert strand is not None
        strand.wake_at = self.uptime + seconds * (1 + self.rng.random() * self.slowness)
        self.boundary("pause")

    def _die_if_killed(self, strand: Strand) -> None:
        if not strand.process.alive:
            raise Killed

    def fault(self, what: str) -> None:
        """Fail now and then, as disks and crowded registries do."""
        if self.chance(self.climate.faults):
            self.note(f"FAULT {what}")
            raise Infrastructure(f"simulated fault: {what}")

    # what the machine does by itself

    def stir(self) -> bool:
        """Make one move of the machine, if any can be made."""
        moves = list(self._moves())
        if not moves:
            return False
        self.rng.choice(moves)()
        self.touched()
        return True

    def settle(self) -> None:
        """Let everything that is under way in runners come to its end; agents that run go on."""
        for _ in range(10_000):
            moves = [move for run in self.dirs.values() for move in self._runner_moves(run, by_itself=False)]
            if not moves:
                return
            self.rng.choice(moves)()
            self.touched()
            self.pass_time(0.05)
        raise AssertionError("the machine does not come to rest")

    def stir_views(self) -> bool:
        """Show one view that was asked for."""
        asked = [run for run in self.dirs.values() if run.viewed == "asked"]
        for run in asked[:1]:
            self._show(run)
        return bool(asked)

    def _moves(self) -> Iterator[Callable[[], None]]:
        for run in self.dirs.values():
            yield from self._runner_moves(run, by_itself=True)
            if run.viewed == "asked":
                yield partial(self._show, run)
        if self.chance(self.climate.violence):
            yield from self._violence()

    def _violence(self) -> Iterator[Callable[[], None]]:
        for run in self.dirs.values():
            if run.runner is not None and run.runner.alive:
                yield partial(self.kill, run.runner, "SIGKILL")
            for each in run.living:
                yield partial(self.agent_dies, each, 9)
        for each in self.procs:
            if each.alive and each.kind in ("daemon", "person"):
                yield partial(self.kill, each, "SIGKILL")

    def _show(self, run: RunDir) -> None:
        run.viewed = "shown" if self.views_up else None

    def agent_dies(self, proc: Proc, status: int) -> None:
        proc.alive = False
        self.note(f"{proc} of {proc.run} ends with {status}")

    def reboot(self) -> None:
        """Everything ends; disks keep what was synced."""
        self.note("REBOOT")
        for each in self.procs:
            each.alive = False
        for run in self.dirs.values():
            run.lock, run.viewed = None, None
            if run.runner is not None:
                run.phase = "over"
            if run.start and not run.start_is_durable and self.rng.random() < 0.5:
                run.start = None
        self.boots += 1
        self.uptime = 5.0
        self._ticks = 0
        self._next_pid = 0
        for strand in self.strands.alive:
            strand.wake_at = 0.0
        self.touched()

    # the runner, move by move as runtimes/runner.py does it

    def _runner_moves(self, run: RunDir, *, by_itself: bool) -> Iterator[Callable[[], None]]:
        """Return the one next move of the runner, or what its agent may do while it waits."""
        if run.runner is None or not run.runner.alive:
            return
        if run.phase == "running":
            yield from self._agent_moves(run, by_itself=by_itself)
        elif run.phase == "locked" and not run.order_sent:
            if run.sender is None or not run.sender.alive:
                yield partial(self._void, run, "the order was cut short: the deployer died")
        elif run.phase in _NEXT:
            yield partial(_NEXT[run.phase], self, run)

    def _take_lock(self, run: RunDir) -> None:
        runner = run.runner
        assert runner is not None
        if run.lock is not None or run.start or run.exit or run.void:
            self.note(f"runner of {run.key} is refused")
            run.answer = "refused"
            self.kill(runner)
            return
        run.lock = runner
        run.phase = "locked"
        self.note(f"runner of {run.key} takes the lock")

    def _void(self, run: RunDir, reason: str) -> None:
        self.note(f"runner voids {run.key}: {reason}")
        run.void = VoidRecord(reason, self.wall)
        run.answer = f"failed {reason}"
        assert run.runner is not None
        self.kill(run.runner)

    @property
    def wall(self) -> float:
        return self.wall_offset + self.uptime

    def _fork(self, run: RunDir) -> None:
        if run.stop is not None:
            self._void(run, "stopped before the start")
            return
        agent = self.spawn("agent", run.key)
        agent.patient = self.rng.random() < 0.2
        run.tree.append(agent)
        run.phase = "forked"

    def _write_start(self, run: RunDir) -> None:
        assert run.runner is not None
        run.start = StartRecord(run.runner.identity, run.tree[0].identity, "ns", self.wall, ("sim",), None)
        run.phase = "recorded"
        self.note(f"{run.key} has a start record, its agent is {run.tree[0].identity.pid}")

    def _let_go(self, run: RunDir) -> None:
        run.phase = "running"
        run.starts += 1
        if run.order is not None and "fails" in run.order.argv:
            self.agent_dies(run.tree[0], 127)
            run.phase = "failed"
            self._write_exit(run, error="no such file")
            run.answer = "failed no such file"
            return
        if not run.tree[0].alive:  # it was killed while it waited
            run.phase = "ending"
        run.answer = "started"

    def _agent_moves(self, run: RunDir, *, by_itself: bool) -> Iterator[Callable[[], None]]:
        agent = run.tree[0]
        if run.stop is not None or not agent.alive:
            yield partial(self._begin_ending, run)
            return
        if not by_itself:
            return
        if self.rng.random() < 0.06:
            yield partial(self.agent_dies, agent, self.rng.choice((0, 0, 1)))
        if len(run.tree) < 4 and self.rng.random() < 0.1:
            yield partial(self._fork_child, run)

    def _fork_child(self, run: RunDir) -> None:
        child = self.spawn("child", run.key)
        child.stubborn = self.unruly and self.rng.random() < 0.05
        child.patient = self.rng.random() < 0.3
        run.tree.append(child)
        self.note(f"agent of {run.key} forks {child}")

    def _begin_ending(self, run: RunDir) -> None:
        run.phase = "ending"
        grace = LEFTOVER_GRACE if run.stop is None else run.stop
        run.kill_at = self.uptime + grace
        if grace > 0:
            for each in run.living:
                if not each.patient and not each.stubborn:
                    self.kill(each, "TERM")

    def _end_tree(self, run: RunDir) -> None:
        if run.stop is not None:
            run.kill_at = min(run.kill_at, self.uptime + run.stop)
        if self.uptime >= run.kill_at:
            for each in run.living:
                if not each.stubborn:
                    self.kill(each, "KILL")
        if all(each.stubborn for each in run.living):
            run.phase = "ended"
        else:
            self.pass_time(0.01)

    def _write_exit(self, run: RunDir, error: str | None = None) -> None:
        stopped = run.stop is not None
        run.exit = ExitRecord(
            code=None if error or stopped else 0,
            signal=15 if stopped and not error else None,
            error=error,
            stopped=stopped,
            started_at=run.start.started_at if run.start else None,
            ended_at=self.wall,
            max_rss_kb=1,
            cpu_ms=1,
            output_bytes=0,
            output_cut=0,
            stderr_bytes=0,
            stderr_cut=0,
            survivors=tuple(each.identity.pid for each in run.living),
        )
        run.phase = "written"
        self.note(f"{run.key} has an exit record")

    def _leave(self, run: RunDir) -> None:
        assert run.runner is not None
        run.phase = "over"
        self.kill(run.runner)


_NEXT: Mapping[str, Callable[[World, RunDir], None]] = {
    "spawned": World._take_lock,
    "locked": World._fork,
    "forked": World._write_start,
    "recorded": World._let_go,
    "ending": World._end_tree,
    "ended": World._write_exit,
    "written": World._leave,
}
"""What a runner does next, by its phase."""
