"""One seed, one history: who runs when, what fails, and what must hold at every step and at the end."""

from __future__ import annotations

import random
from collections.abc import Callable

from headcount.config import Home
from headcount.domain.model import Limits
from headcount.services.context import Context
from tests.simulation.audit import hold
from tests.simulation.ending import Ending
from tests.simulation.stage import Stage, scratch_home
from tests.simulation.world import Climate, RunDir

STEPS = 20
"""How many things are asked for in one simulation."""

TURNS = 6_000
SHOWN = 60

CLIMATES = (
    Climate(),
    Climate(crash=0.4),
    Climate(crash=0.15, violence=0.1, unknown=0.05, faults=0.01, frozen=0.02, views_lost=0.02),
    Climate(violence=0.3, frozen=0.01),
    Climate(unknown=0.2, crash=0.1),
    Climate(faults=0.05, crash=0.1),
    Climate(crash=0.2, reboot=0.01, jump=0.02, violence=0.05),
    Climate(frozen=0.05, crash=0.1, violence=0.05),
)


class Failed(AssertionError):
    """A seed that breaks an invariant; the message has the end of its history and how to replay it."""


def simulate(seed: int, steps: int = STEPS) -> list[str]:
    """Run one history and return its log.

    Raises:
        Failed: an invariant was broken.
    """
    with scratch_home() as home:
        driver = Driver(seed, home, steps)
        try:
            driver.run()
        except Failed:
            raise
        except Exception as error:
            raise Failed(_report(seed, driver.world.log, error)) from error
        finally:
            driver.close()
        return driver.world.log


def _report(seed: int, log: list[str], error: BaseException) -> str:
    shown = "\n".join(log[-SHOWN:])
    return (
        f"seed {seed}: {type(error).__name__}: {error}\n{shown}\n"
        f"replay: HEADCOUNT_SEED={seed} pytest -p no:randomly tests/simulation/test_histories.py"
    )


class Driver(Stage):
    """Hands out turns, as the seed says."""

    def __init__(self, seed: int, home: Home, steps: int) -> None:
        rng = random.Random(seed)
        self.steps = steps
        self.climate = rng.choice(CLIMATES)
        self.turns = 0
        limits = Limits(
            machine_max_live=rng.randint(1, 6),
            spawn_rate=rng.randint(1, 3),
            spawn_window=rng.choice((0.5, 10.0)),
        )
        super().__init__(rng, home, limits, self.climate)
        self.world.switching, self.world.slowness = 0.6, 20.0

    def run(self) -> None:
        self.alone(self.fleet.create_task)
        self.alone(self.fleet.create_task)
        hold(len(self.auditor.tasks) == 2, "I7", "a task that was created is not there")
        self.world.unruly = True
        while self.steps > 0 or self.world.strands.alive:
            self._turn()
        Ending(self).run()

    # turns

    def _turn(self) -> None:
        self.turns += 1
        hold(
            self.turns < TURNS,
            "liveness",
            f"never done: {[(s.name, s.at) for s in self.world.strands.alive]}",
        )
        if self.steps > 0 and len(self.world.strands.alive) < 4 and self.rng.random() < 0.25:
            self.steps -= 1
            self._ask_something()
        self._accidents()
        if self.rng.random() < 0.35:
            self.world.stir()
        else:
            self._resume_one()
        self.fleet.auditor.step()

    def _resume_one(self) -> None:
        strands = self.world.strands.alive
        for strand in strands:
            strand.frozen = max(0, strand.frozen - 1)
        dead = [each for each in strands if not each.process.alive]
        ready = dead or [each for each in strands if not each.frozen and each.wake_at <= self.world.uptime]
        if ready:
            self.resume(self.rng.choice(ready))
        elif not self.world.stir() and strands:
            self.world.pass_time(max(0.001, min(each.wake_at for each in strands) - self.world.uptime))

    def _accidents(self) -> None:
        world, rng, climate = self.world, self.rng, self.climate
        if world.strands.alive and world.chance(climate.frozen):
            strand = rng.choice(world.strands.alive)
            strand.frozen = rng.randint(10, 100)
            world.note(f"SIGSTOP {strand.name} at {strand.at}")
        if world.chance(climate.reboot):
            world.reboot()
        if world.chance(climate.jump):
            world.wall_offset += rng.choice((-31_536_000.0, 31_536_000.0))
            world.note("the wall clock jumps")
        if world.dirs and world.chance(climate.views_lost):
            for run in world.dirs.values():
                run.viewed = None
        self._shortages()

    def _shortages(self) -> None:
        """Let disk and memory run short for a while, and somebody lift a halt."""
        world, rng = self.world, self.rng
        low = world.free_disk_mb < 100 or world.free_memory_mb < 100
        if low and rng.random() < 0.03:
            world.free_disk_mb = world.free_memory_mb = 10_000
        elif not low and rng.random() < 0.001:
            world.free_disk_mb, world.free_memory_mb = rng.choice(((50, 10_000), (10_000, 50)))
        if rng.random() < 0.03 and self.fleet.home.halted.exists():
            self.fleet.person("release", self.fleet.release)

    def _doom(self) -> int | None:
        return self.rng.randint(1, 45) if self.rng.random() < self.climate.crash else None

    def _ask_something(self) -> None:
        fleet, rng = self.fleet, self.rng
        acting = [run for run in self.world.dirs.values() if run.phase == "running" and run.tree[0].alive]
        kind = rng.random()
        if acting and kind < 0.4:
            body: Callable[[Context, RunDir], None] = rng.choices(
                (fleet.agent_reports, fleet.agent_spawns, fleet.agent_oversteps), (2, 6, 1)
            )[0]
            run = rng.choice(acting)
            process_is_daemons = body == fleet.agent_spawns
            if process_is_daemons:
                fleet.in_daemon(f"spawn of {run.key}", lambda context: body(context, run), doom=self._doom())
            else:
                fleet.of_agent(run, body)
            return
        if kind < 0.65:
            fleet.person("deploy", fleet.deploy, doom=self._doom())
            return
        if kind < 0.78:
            fleet.in_daemon("tick", fleet.tick, doom=self._doom())
            return
        bodies = {
            fleet.stop: 4,
            fleet.resume: 8,
            fleet.send: 6,
            fleet.bring: 2,
            fleet.again: 3,
            fleet.halt: 1,
            fleet.repair: 2,
            fleet.dry_run: 1,
            fleet.status: 2,
            fleet.list_agents: 1,
            fleet.observe: 2,
            fleet.wait: 1,
            fleet.close_task: 1,
            fleet.pause_task: 1,
            fleet.resume_task: 2,
            fleet.archive_task: 1,
            fleet.create_task: 1,
            fleet.stranger: 1,
            fleet.says_late: 2,
        }
        (chosen,) = rng.choices(list(bodies), list(bodies.values()))
        fleet.person(chosen.__name__, chosen, doom=self._doom())
