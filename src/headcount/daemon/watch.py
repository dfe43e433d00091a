"""Keeps the count right while the daemon lives.

Two threads, beside those that write transcripts, make accounts, resume, and look for what is wrong. The first
is pushed by the kernel: a new mark in `live/` or a start record leads it to the runner, of whose end a pidfd
tells it, and records at once. The second does the whole headcount, views included, every few seconds and
after each end; it may wait for tmux, the first waits for nothing but the registry.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog

from headcount.daemon.accounts import Accounts
from headcount.daemon.inotify import Inotify
from headcount.daemon.notices import Notices
from headcount.daemon.postmortems import PostMortems
from headcount.daemon.progress import Progress
from headcount.daemon.resumes import Resumes
from headcount.daemon.runners import Over, Runners
from headcount.daemon.transcripts import Transcripts
from headcount.daemon.watchdog import Watchdog
from headcount.domain.model import LiveRun, Run
from headcount.services import headcount, heartbeat, settle
from headcount.services.answers import Problem
from headcount.services.context import Context

POLL: Final = 0.25
"""Seconds between looks where the kernel does not tell us."""
AFTER_AN_END: Final = 0.15
"""Seconds in which further ends are gathered before the whole headcount that closes their views."""
AFTER_A_FAILURE: Final = 1.0
FIRST_COPY, NEXT_COPY = 60.0, 900.0
"""Seconds from the start to the first copy of the registry, and from one to the next."""


class Kept(Protocol):
    def keep(self) -> None: ...


class Figures:
    """Who keeps figures of what is done; this one does not."""

    def begin(self) -> None:
        """Count from now on."""
        return

    def headcount_took(self, seconds: float) -> None:
        return

    def repaired(self, problem: Problem) -> None:
        return

    def exposition(self, failures: int = 0) -> bytes:
        """Return the figures as Prometheus reads them, with how often a loop of the daemon failed."""
        return b""


class Watch:
    """The supervision. Exceptions in it are logged and counted; they end nothing."""

    def __init__(
        self,
        context: Context,
        held: Kept,
        *,
        pushed: bool = hasattr(os, "pidfd_open"),
        first_copy: float = FIRST_COPY,
        figures: Figures | None = None,
    ) -> None:
        self._context: Final = context
        self._held: Final = held
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._pushed: Final = pushed
        self._transcripts: Final = Transcripts(context)
        self._accounts: Final = Accounts(context)
        self._resumes: Final = Resumes(context)
        self._postmortems: Final = PostMortems(context)
        self._notices: Final = Notices(context)
        self._watchdog: Final = Watchdog(context, remember=self._resumes.remember)
        self._due: Final = threading.Event()
        self._over: Final = threading.Event()
        self._headcounts = self._failures = self._ends = 0
        self._longest, self._beaten = 0.0, float("-inf")
        self._figures: Final = figures or Figures()
        self.progress: Final = Progress(context.clock.monotonic, pause=context.settings.headcount_every)
        self._copy_due = context.clock.monotonic() + first_copy
        self._copied: int | None = None  # the registry's version then
        self._owed: Over = {}  # runs that are over and not settled yet

    def begin(self) -> None:
        """Start the threads."""
        makers = (self._transcripts.run, self._accounts.run, self._postmortems.run)
        tellers = self._notices.works()
        for work in (self._follow, self._count, *makers, self._resumes.run, self._watchdog.run, *tellers):
            threading.Thread(target=work, name=work.__qualname__, daemon=True).start()

    def end(self) -> None:
        """Let the threads end, without waiting for them: agents need nothing of us."""
        self._over.set()
        self._transcripts.end()
        self._accounts.end()
        self._resumes.end()
        self._postmortems.end()
        self._notices.end()
        self._watchdog.end()
        self._due.set()

    def counters(self) -> dict[str, Any]:
        """Return what has been done since the start."""
        makers = (self._transcripts, self._accounts, self._postmortems)
        others = (*makers, self._resumes, self._watchdog, self._notices)
        failures = self._failures + sum(each.failures for each in others)
        return {"headcounts": self._headcounts, "ends_noticed": self._ends, "failures": failures}

    def exposition(self) -> bytes:
        """Return the figures for Prometheus; raises HeadcountError where the registry cannot be read."""
        return self._figures.exposition(int(self.counters()["failures"]))

    # the headcount

    def _count(self) -> None:
        self._safely(self._figures.begin)
        while not self._over.is_set():
            self.progress.came_round("count")
            self._safely(self._headcount)
            self._safely(self._beat)
            self._safely(self._keep_copy)
            self._due.wait(self._context.settings.headcount_every)
            if self._due.is_set() and not self._over.wait(AFTER_AN_END):
                self._due.clear()

    def _headcount(self) -> None:
        began = self._context.clock.monotonic()
        done = headcount.tick(self._context)
        self._held.keep()
        took = self._context.clock.monotonic() - began
        self._headcounts += 1
        self._longest = max(self._longest, took)
        self._figures.headcount_took(took)
        for each in done:
            self._figures.repaired(each)
            self._log.info("headcount_acted", kind=each.kind, subject=each.subject, action=each.action)

    def _beat(self) -> None:
        """Give a sign of life, but for a headcount that follows another at once."""
        now = self._context.clock.monotonic()
        if now - self._beaten >= min(heartbeat.OFTEN, self._context.settings.headcount_every):
            heartbeat.beat(self._context, headcounts=self._headcounts, longest=self._longest)
            self._beaten = now

    def _keep_copy(self) -> None:
        """Now and then copy the registry, if it has changed, to where a rebuild looks for it. Under a name
        of ours, for a garbage collection makes a copy too."""
        now, registry = self._context.clock.monotonic(), self._context.registry
        if now < self._copy_due:
            return
        self._copy_due = now + NEXT_COPY
        version = registry.version()
        if version != self._copied:
            registry.backup(self._context.home.backups / "daemon.db")
            self._copied = version

    # what the kernel tells

    def _follow(self) -> None:
        runners = self._runners()
        if runners is None:
            while not self._over.wait(POLL):
                self.progress.came_round("follow")
                self._safely(self._observe)
            return
        self._safely(self._observe)  # which opens the registry, so that the first end does not wait for that
        self._safely(lambda: self._take(runners.look_around()))
        while not self._over.is_set():
            self.progress.came_round("follow")
            patience = 0.0 if self._owed else self._context.settings.headcount_every
            self._safely(lambda patience=patience: self._take(runners.wait(patience)))  # type: ignore[misc]

    def _take(self, over: Over) -> None:
        """Settle these runs, and those that could not be settled before."""
        self._owed.update(over)
        self._settle(self._owed)
        self._owed.clear()

    def _runners(self) -> Runners | None:
        """Return None where the kernel cannot tell us what becomes of them."""
        if not self._pushed:
            return None
        try:
            return Runners(self._context, Inotify(), self._transcripts)
        except OSError as error:
            self._log.warning("supervision_polls", reason=str(error))
            return None

    def _settle(self, over: Over) -> None:
        """Record the end of these runs, looking at no other: what is live costs nothing here."""
        if not over:
            return
        placement, registry = self._context.placement, self._context.registry
        seen = {key: placement.look_at(key, path) for key, path in over.items()}
        looked = settle.refine(self._context, seen, act=False)
        with registry.write("end") as tx:
            found = [tx.runs.get(key.agent_id, key.n) for key in over]
            rows = [_row(run) for run in found if run is not None and run.live]
            settled = settle.record(self._context, tx, looked, rows)
        settle.tidy(self._context, settled, close_views=False)
        self._note(settled)

    def _observe(self) -> None:
        """Record every end that can be seen."""
        settled = settle.observe(self._context)
        if settled:
            self._note(settled)

    def _note(self, settled: Sequence[settle.Settled]) -> None:
        self._ends += len(settled)
        for each in settled:
            self._log.info("run_settled", run=str(each.row.key), action=type(each.action).__name__)
        self._due.set()  # views are closed there, and dead runners' trees ended

    def _safely(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001  the edge of the loop: it survives, logs and counts
            self._failures += 1
            self._log.exception("supervision_failed", work=getattr(work, "__name__", "step"))
            self._over.wait(AFTER_A_FAILURE)


def _row(run: Run) -> LiveRun:
    return LiveRun(
        key=run.key,
        task_id=run.task_id,
        role=run.role,
        state=run.state,
        harness=run.harness,
        path=run.path,
        deployer=run.deployer,
        runner=run.runner,
        process=run.process,
        stop_reason=run.stop_reason,
    )
