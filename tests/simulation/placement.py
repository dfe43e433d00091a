"""The placement, views and clock of one simulated program, all in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headcount.domain.errors import PlacementFailed
from headcount.domain.model import (
    LockState,
    Order,
    Presence,
    Process,
    Run,
    RunKey,
    Seen,
    Started,
    VoidRecord,
)
from headcount.domain.watchdog import Vitals
from headcount.runtimes.base import OutputSlice, Session
from tests.simulation.world import Proc, RunDir, World


class SimPlacement:
    """What `LocalPlacement` does, on a simulated machine. Each moment at which the real one could be
    interrupted, or the machine change under it, is a boundary."""

    def __init__(self, world: World, process: Proc) -> None:
        self._world = world
        self._process = process

    # processes

    def self_process(self) -> Process:
        return self._process.identity

    def pid_namespace(self) -> str:
        return "ns"

    def presence(self, process: Process) -> Presence:
        if process.boot_id != self._world.boot_id:
            return Presence.DEAD
        if self._world.chance(self._world.climate.unknown):
            return Presence.UNKNOWN
        return Presence.DEAD if self._world.find(process) is None else Presence.ALIVE

    # deploying

    def run_path(self, key: RunKey, *, reserved_at: float) -> str:
        return f"/sim/{key.agent_id}/{key.n}"

    def prepare(self, order: Order) -> str:
        world, path = self._world, self.run_path(order.key, reserved_at=order.reserved_at)
        world.boundary("prepare")
        if order.key in world.dirs:
            raise PlacementFailed(f"{path} exists")
        run = world.dirs[order.key] = RunDir(order.key, path)
        world.boundary("the directory is made")
        if world.chance(world.climate.faults):
            del world.dirs[order.key]
            world.note("FAULT the disk is full")
            raise PlacementFailed("the disk is full")
        run.order = order
        world.boundary("the order is written")
        run.marked = True
        world.touched()
        world.boundary("the run is marked")
        return path

    def start(self, key: RunKey, path: str, *, env: Mapping[str, str], timeout: float) -> Started:
        world = self._world
        world.boundary("start")
        run = world.dirs.get(key)
        if run is None or run.order is None:
            raise PlacementFailed(f"{path} has no order")
        runner = world.spawn("runner", key)
        if run.runner is not None:  # there was one: whatever it does, this one finds its lock or its records
            world.kill(runner, "refused")
            raise PlacementFailed("refused: this run was already started")
        run.runner, run.phase = runner, "spawned"
        run.sender = self._process
        run.token = env.get("HEADCOUNT_TOKEN", "")
        world.note(f"starts {runner} of {key}")
        world.boundary("the runner is started")
        run.order_sent = True
        return self._await_answer(run, runner, world.uptime + timeout)

    def _await_answer(self, run: RunDir, runner: Proc, until: float) -> Started:
        world = self._world
        while run.answer is None and world.uptime < until:
            world.sleep(0.005)
        if run.answer is None:
            world.note(f"gives up on {runner}")
            world.kill(runner, "it did not answer")
            world.boundary("the runner that did not answer is killed")
        answer = run.answer or ""
        if answer == "started" and run.start is not None:
            return Started(run.start.runner, run.start.process, run.start.started_at)
        seen = self.look_at(run.key, run.path)
        if not answer and seen.lock is LockState.FREE and seen.start and not seen.exit:
            self.reap(seen)
        raise PlacementFailed(answer or "the runner ended without an answer")

    # looking

    def look(self) -> Sequence[Seen]:
        self._world.boundary("look")
        names = [key for key, run in self._world.dirs.items() if run.marked]
        self._world.rng.shuffle(names)
        seen = [self._see(key, f"/sim/{key.agent_id}/{key.n}", marked=True) for key in names]
        self._world.boundary("looked")
        return seen

    def look_at(self, key: RunKey, path: str) -> Seen:
        self._world.boundary("look at")
        run = self._world.dirs.get(key)
        marked = run is not None and run.marked
        return self._see(key, path, marked=marked)

    def _see(self, key: RunKey, path: str, *, marked: bool) -> Seen:
        """Probe the lock, then read: between the two the machine may have moved on."""
        world, run = self._world, self._world.dirs.get(key)
        if run is None:
            return Seen(key, path, LockState.FREE, marked=marked)
        if run.blind or world.chance(world.climate.unknown):
            return Seen(key, path, LockState.UNKNOWN, marked=marked, error="simulated: cannot be probed")
        free = run.lock is None
        if world.rng.random() < 0.3:
            world.boundary("between probe and records")
        if free and (run.start or run.exit):
            free = run.lock is None  # it was free before the start, or it is free after the end
        start, exited, void = run.start, run.exit, run.void
        if not free:
            pid = run.lock.identity.pid if run.lock else None
            return Seen(key, path, LockState.HELD, pid, start, exited, void, marked=marked)
        deployer = Presence.UNKNOWN
        if not (start or exited or void) and run.order is not None:
            deployer = self.presence(run.order.deployer)
        return Seen(key, path, LockState.FREE, None, start, exited, void, deployer, marked)

    # ending

    def signal_stop(self, key: RunKey, path: str, *, grace: float) -> bool:
        world = self._world
        world.boundary("signal stop")
        run = world.dirs.get(key)
        if run is None:
            return False
        world.on_signal(run, self._process)
        world.note(f"tells {key} to stop in {grace:g} s")
        run.stop = grace if run.stop is None else min(run.stop, grace)
        world.touched()
        took = run.lock is not None and run.lock is run.runner
        world.boundary("stop is signalled")
        return took

    def reap(self, seen: Seen) -> Sequence[int] | None:
        world = self._world
        again = self.look_at(seen.key, seen.path)
        if again.lock is not LockState.FREE or again.exit or again.start is None:
            return None
        run = world.dirs[seen.key]
        if again.start.runner.boot_id != world.boot_id:
            return ()
        world.note(f"reaps {seen.key}")
        for each in run.living:
            if not each.stubborn:
                world.kill(each, "reaped")
                world.boundary("one is reaped")
        return tuple(each.identity.pid for each in run.living)

    def remains(self, dead: Iterable[Seen]) -> Mapping[RunKey, Sequence[int]]:
        self._world.boundary("remains")
        found = [self._world.dirs[seen.key] for seen in dead]
        return {run.key: [each.identity.pid for each in run.living] for run in found}

    def void(self, key: RunKey, path: str, *, reason: str) -> Seen:
        world = self._world
        world.boundary("void")
        run = world.dirs.get(key)
        if run is None:
            gone = VoidRecord("the run directory is gone", world.wall)
            return replace(self.look_at(key, path), void=gone)
        if run.lock is None and not (run.start or run.exit or run.void):
            run.void = VoidRecord(reason, world.wall)
            world.touched()
            world.note(f"voids {key}")
        return self.look_at(key, path)

    def clear(self, key: RunKey) -> Sequence[int]:
        return ()

    def unmark(self, key: RunKey) -> None:
        self._world.boundary("unmark")
        run = self._world.dirs.get(key)
        if run is not None:
            run.marked = False
            self._world.touched()
        self._world.boundary("unmarked")

    # reading

    def read_output(self, path: str, *, offset: int, limit: int, stream: str = "output") -> OutputSlice:
        return OutputSlice(b"", max(offset, 0), 0, 0)

    def directories(self) -> Iterator[tuple[RunKey, str]]:
        return iter(())

    def orders(self) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
        return iter(())

    def put_note(self, path: str, name: str, facts: Mapping[str, object]) -> None:
        self._world.boundary("put note")
        self._world.notes.setdefault((path, name), None)
        self._world.boundary("the note is put")

    def note_answer(self, path: str, name: str) -> Mapping[str, Any] | None:
        self._world.boundary("note answer")
        return self._world.notes.get((path, name))

    def asks(self, path: str) -> Iterator[Mapping[str, Any]]:
        return iter(())

    def answer_ask(self, path: str, name: str, facts: Mapping[str, object]) -> bool:
        return False

    def ask_outcome(self, path: str, name: str) -> Mapping[str, Any] | None:
        return None

    def environment(self, process: Process) -> Mapping[str, str] | None:
        return None

    def vitals(self, runs: Sequence[Run], *, weigh: Collection[RunKey]) -> Mapping[RunKey, Vitals]:
        return {run.key: Vitals() for run in runs}

    def free_disk_mb(self) -> int:
        return self._world.free_disk_mb

    def free_memory_mb(self) -> int:
        return self._world.free_memory_mb


class SimViews:
    """The view server. It loses sessions, or does not answer, as it likes."""

    def __init__(self, world: World) -> None:
        self._world = world

    def available(self) -> str | None:
        return None

    def list(self) -> Sequence[Session] | None:
        self._world.boundary("list views")
        if self._world.chance(self._world.climate.unknown):
            return None
        shown = [run for run in self._world.dirs.values() if run.viewed == "shown"]
        return [Session(run.key.agent_id, run.key.agent_id, 0.0) for run in shown]

    def show(
        self, key: RunKey, path: str, *, runner_pid: int, renders: bool, interactive: bool = False
    ) -> None:
        self._world.boundary("show")
        run = self._world.dirs[key]
        if run.viewed is None:
            run.viewed = "asked"

    def hide(self, name: str) -> None:
        self._world.boundary("hide view")
        if not self._world.chance(self._world.climate.unknown):
            self.close(name)

    def close(self, name: str) -> bool:
        self._world.boundary("close view")
        for run in self._world.dirs.values():
            if run.key.agent_id == name:
                run.viewed = None
        return True

    def held_back(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def shut(self) -> None:
        for run in self._world.dirs.values():
            run.viewed = None

    def attach_argv(self, name: str, *, interactive: bool = False) -> Sequence[str]:
        return ("attach", name)


class SimClock:
    """The clocks of the machine; wall time is set now and then."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.wall

    def boottime(self) -> float:
        return self._world.uptime

    def monotonic(self) -> float:
        return self._world.uptime

    def pause(self, seconds: float) -> None:
        self._world.sleep(seconds)

    def chance(self) -> int:
        return self._world.rng.getrandbits(64)

    def token(self) -> str:
        return f"token-{self._world.rng.getrandbits(64):016x}"
