"""Lets agents go on: after a crash, where that was asked for, and with messages that wait for it.

In a thread of its own, which learns from the registry that there is something to do: what a daemon that was
killed left undone, the next one does. What an agent was given of its deployer's environment is in no file; it
is read from the agent while that lives and kept in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from headcount.domain.errors import HeadcountError, Refused
from headcount.domain.model import AgentMessage, Caller, LiveRun, Run, RunKey
from headcount.services import messages, resume, watchdog
from headcount.services.context import Context
from headcount.store.flags import Flag

EVERY: Final = 0.5
"""Seconds between two looks at whether the registry has changed."""
DUE: Final = 3.0
"""Seconds in which whoever sends a message brings it on its way himself."""
FOR_EVER: Final = float("inf")
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0
"""Seconds after a try until the next one: doubled each time."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is tried before `until`, of the monotonic clock."""

    until: float
    length: float


class Resumes:
    """What is owed to agents that are over."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._over: Final = threading.Event()
        self._given: Final[dict[str, Mapping[str, str]]] = {}  # agent -> environment
        self._pauses: Final[dict[str, Pause]] = {}
        self._version: int | None = None
        self._again = False  # something was left for a later look, though the registry stays as it is
        self.failures = 0

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        """Do what there is to do, until `end`."""
        while not self._over.wait(EVERY):
            try:
                self._look()
            except Exception:  # noqa: BLE001  the edge of the loop: it survives, logs and counts
                self.failures += 1
                self._log.exception("resumes_failed")

    def _look(self) -> None:
        version = self._context.registry.version()
        if version == self._version and not self._again:
            return
        self._again = False
        self._remember()
        self._after_crashes()
        self._after_stops()
        self._with_messages()
        self._version = version

    # what agents were given

    def _remember(self) -> None:
        """Keep the environments of live agents that are to be resumed after a crash."""
        with self._context.registry.read() as tx:
            rows = tx.runs.live_to_resume()
        for row in rows:
            self.remember(row)

    def remember(self, row: LiveRun | Run) -> None:
        """Keep the environment of a live agent that may have to go on."""
        if row.process is None or row.key.agent_id in self._given:
            return
        found = self._context.placement.environment(row.process)
        if found is not None:
            self._given[row.key.agent_id] = _of_the_deployer(found, row.path)

    def _as(self, agent_id: str) -> tuple[Context, tuple[str, ...]]:
        """Return the context in which an agent is resumed, and the names of the variables that it gets."""
        env = self._given.get(agent_id, {})
        caller = self._context.caller
        return self._context.acting_as(Caller(cwd=caller.cwd, env={**caller.env, **env})), tuple(env)

    # what is owed

    def _after_crashes(self) -> None:
        for run in resume.crashes(self._context):
            if self._may_try(run.key.agent_id):
                self._resume(run)

    def _resume(self, run: Run) -> None:
        context, names = self._as(run.key.agent_id)
        try:
            made = resume.after_crash(context, run, env=names)
        except HeadcountError as error:
            self._refused(run.key, error)
            return
        self._pause(run.key.agent_id)  # until it may crash and be resumed again
        self._log.info("resumed_after_crash", run=str(run.key), next=made.run)

    def _after_stops(self) -> None:
        """Let those go on that the watchdog stopped for that."""
        for flag in watchdog.owed(self._context):
            self._again = True
            if self._may_try(flag.key.agent_id):
                self._restart(flag)

    def _restart(self, flag: Flag) -> None:
        context, names = self._as(flag.key.agent_id)
        try:
            made = watchdog.restart(context, flag, env=names)
        except HeadcountError as error:  # that which time mends
            self._log.info("not_restarted", run=str(flag.key), reason=error.code)
            self._pause(flag.key.agent_id)
            return
        if made is not None:
            self._log.info("restarted", run=str(flag.key), next=made.run)

    def _with_messages(self) -> None:
        with self._context.registry.read() as tx:
            waiting = {agent_id: tx.messages.queued(agent_id) for agent_id in tx.messages.waiting()}
        for agent_id, queued in waiting.items():
            messages.collect(self._context, agent_id)
            self._again = True
            if queued[0].at <= self._context.clock.now() - DUE and self._may_try(agent_id):
                self._bring(agent_id, queued)

    def _bring(self, agent_id: str, queued: Sequence[AgentMessage]) -> None:
        context, _ = self._as(agent_id)
        for each in queued:
            if messages.bring(context, each.id, wait=False):
                self._pause(agent_id)
                return

    # patience

    def _may_try(self, agent_id: str) -> bool:
        pause = self._pauses.get(agent_id)
        if pause is None or self._context.clock.monotonic() >= pause.until:
            return True
        self._again |= pause.until < FOR_EVER
        return False

    def _refused(self, key: RunKey, error: HeadcountError) -> None:
        """What time mends is tried again; anything else is on record, and once for ever."""
        self._log.info("not_resumed", run=str(key), reason=error.code)
        passing = isinstance(error, Refused) and error.code in messages.PASSING
        if passing or not isinstance(error, Refused):
            self._pause(key.agent_id)
        else:
            self._pauses[key.agent_id] = Pause(FOR_EVER, LONGEST_PAUSE)

    def _pause(self, agent_id: str) -> None:
        before = self._pauses.get(agent_id)
        length = FIRST_PAUSE if before is None else min(LONGEST_PAUSE, 2 * before.length)
        self._pauses[agent_id] = Pause(self._context.clock.monotonic() + length, length)


def _of_the_deployer(env: Mapping[str, str], run_path: str) -> dict[str, str]:
    """Return what an agent was given of its deployer's: not our contract, nor what its harness set."""
    return {
        name: value
        for name, value in env.items()
        if value and not name.startswith("HEADCOUNT_") and run_path not in value
    }
