"""When nothing else goes on: one headcount, and rows, processes, marks and views agree."""

from __future__ import annotations

from functools import partial

from headcount.domain.model import RunKey
from headcount.services import headcount, tasks
from headcount.services.answers import Health
from headcount.services.context import Context
from tests.simulation.audit import LIVE, hold
from tests.simulation.stage import Stage
from tests.simulation.world import RunDir


class Ending:
    """Nothing else goes on: one headcount, and rows and processes agree."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.world = stage.world
        self.fleet = stage.fleet
        self.auditor = stage.auditor

    def run(self) -> None:
        self.world.unruly = False
        self.world.free_disk_mb = self.world.free_memory_mb = 10_000
        if self.stage.rng.random() < 0.5 and self.fleet.daemon is not None:
            self.world.kill(self.fleet.daemon, "SIGKILL")
        self.auditor.step()
        self._what_was_said()
        self._tick()
        self.world.settle()
        self._headcount()
        self._blind()
        self._what_was_told()
        self._counts()
        self._healthy()
        self._room_is_room()
        self._halt()

    def _tick(self) -> None:
        """One headcount: the daemon's if it lives, anybody's if not."""
        if self.fleet.daemon is None or not self.fleet.daemon.alive:
            self.stage.alone(self.fleet.tick)
            return
        strand = self.fleet.in_daemon("tick", self.fleet.tick)
        self.stage.finish(strand)
        if strand.error is not None:
            raise strand.error

    def _headcount(self) -> None:
        self._tick()
        self.world.settle()
        self._tick()
        self.auditor.agree()

    def _what_was_told(self) -> None:
        """Each message that was acknowledged is there and reached its agent at most once; one that is said to
        have reached it in a prompt is in that of one run that is known to have begun."""
        for number, text in self.fleet.told.items():
            row = self.auditor.said("message", number)
            hold(row, "I7", f"message {number} was acknowledged and is not there")
            assert row is not None
            begun = [run.key for run in self.world.dirs.values() if self._was_told(run, text)]
            times = len(begun) + self.fleet.heard.count(text)
            hold(times <= 1, "I7", f"message {number} reached its agent {times} times: {begun}")
            told = row["state"] == "delivered" and row["way"] == "resume"
            hold(not told or begun, "I7", f"message {number} is delivered, and no run was told")
            hold(row["state"] == "delivered" or not times, "I7", f"message {number} is {row['state']}")

    def _was_told(self, run: RunDir, text: str) -> bool:
        confirmed = self.auditor.rows[run.key]["started_at"] is not None
        prompt = run.order.stdin if run.order else None
        began = run.exit is None or run.exit.error is None  # what cannot be executed is told nothing
        return run.starts == 1 and confirmed and began and prompt is not None and text.encode() in prompt

    def _what_was_said(self) -> None:
        for said in self.fleet.said:
            row = self.auditor.said(said.table, said.number)
            hold(row, "I7", f"{said.table} {said.number} was acknowledged and is not there")
            assert row is not None
            hold(
                (row["agent_id"], row["message"]) == (said.agent_id, said.message),
                "I7",
                f"{said.table} {said.number} is another one",
            )
        for (task_id, code), number in self.fleet.refused.items():
            task = self.auditor.tasks.get(task_id)
            if task is not None:
                hold(
                    task.refusals.get(code, 0) >= number,
                    "journal",
                    f"{code}: {number} refusals, fewer events",
                )

    def _blind(self) -> None:
        """What cannot be looked at does not change, whoever looks."""
        for run in self.world.dirs.values():
            run.blind = self.stage.rng.random() < 0.7
        blind = {run.key for run in self.world.dirs.values() if run.blind}
        for run in self.world.dirs.values():
            if run.blind and run.runner is not None and self.stage.rng.random() < 0.5:
                self.world.kill(run.runner, "SIGKILL")
        before = self.auditor.states(blind)
        for body in (self.fleet.tick, self.fleet.observe, self.fleet.repair):
            self.stage.alone(body)
        hold(self.auditor.states(blind) == before, "I5", "a row changed though its run could not be seen")
        for run in self.world.dirs.values():
            run.blind = False
        self.world.settle()
        self._headcount()

    def _counts(self) -> None:
        for task_id in self.auditor.tasks:
            self.stage.alone(partial(self._count, task_id))

    def _count(self, task_id: str, context: Context) -> None:
        counts = tasks.status(context, task_id).counts
        for state, number in self.auditor.count(task_id):
            hold(counts.get(state) == number, "counts", f"{state}: {counts.get(state)} told, {number} rows")

    def _healthy(self) -> None:
        """A second headcount finds nothing to do, and says that all is well."""
        for _ in range(2):
            self.stage.alone(self.fleet.tick)
            while self.world.stir_views():
                pass
        found: list[Health] = []
        self.stage.alone(lambda context: found.append(headcount.check(context, task_id=None)))
        (health,) = found
        hold(health.healthy, "I1", f"not healthy after a headcount: {health}")

    def _room_is_room(self) -> None:
        """A deploy that no limit forbids is admitted: nothing dead holds a slot."""
        self.stage.alone(self.fleet.release)
        limits, fleet = self.fleet.settings.limits, self.fleet
        for task_id, task in self.auditor.tasks.items():
            live = [each for each in self.auditor.agents.values() if each.live]
            here = [each for each in live if each.task_id == task_id]
            room = len(live) < limits.machine_max_live and len(here) < task.max_live
            if task.state != "open" or not room or task.agents >= task.max_agents:
                continue
            request = fleet.request(
                task_id=task_id,
                parent=None,
                idempotency_key=None,
                command=("/bin/sh", "dup", "same"),
                allow_duplicate_role=True,
                allow_same_work=True,
            )
            before = sum(fleet.refused.values())
            self.stage.alone(partial(fleet.deploy, request=request))
            hold(sum(fleet.refused.values()) == before, "I2", f"refused, though {task_id} has room")

    def _halt(self) -> None:
        self.stage.alone(self.fleet.halt)
        self.world.settle()
        self._headcount()
        left = [key for key, row in self.auditor.rows.items() if row["state"] in LIVE]
        hold(not left, "I6", f"live after a halt: {left}")
        unlisted: set[RunKey] = {run.key for run in self.world.dirs.values() if run.lock is not None}
        hold(not unlisted, "I6", f"running after a halt: {unlisted}")
