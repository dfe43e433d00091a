"""The daemon's figures, as Prometheus reads them.

What stands is read from the registry when it is asked for. What happens is counted from the journal, whoever
did it, from the daemon's start on; so no figure is kept twice, and none drifts.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric

from headcount import __version__
from headcount.daemon.watch import Figures
from headcount.domain.model import Event, Run, RunKey
from headcount.services.answers import Problem
from headcount.services.context import Context

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SHORT: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0)
BATCH: Final = 1_000
"""Events read at once."""
AWAITED: Final = 10_000
"""Runs that are over and whose account is awaited, at most: each scrape looks at them."""
IN_THE_JOURNAL: Final = frozenset(
    ("record_end", "record_lost", "adopt", "correct_row", "kill_stray", "unmark")
)
"""Repairs that are an event too, or none."""


class Kind(StrEnum):
    """What a figure is, in Prometheus's words."""

    GAUGE = "gauge"  # as it stands when it is asked for
    COUNTER = "counter"  # from the daemon's start on
    HISTOGRAM = "histogram"  # the same


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


AGENTS: Final = Figure("headcount_agents", Kind.GAUGE, "Live agents.", ("state", "harness"))
HALTED: Final = Figure("headcount_halted", Kind.GAUGE, "1 while the emergency stop is in force.")
PAUSED: Final = Figure(
    "headcount_tasks_paused", Kind.GAUGE, "Tasks that begin no run until they are resumed."
)
QUEUED: Final = Figure(
    "headcount_messages_queued", Kind.GAUGE, "Messages that have not reached their agent yet."
)
FLAGS: Final = Figure("headcount_flags", Kind.GAUGE, "What the watchdog sees at the moment.", ("kind",))
FAILURES: Final = Figure(
    "headcount_daemon_failures", Kind.GAUGE, "Failures in the daemon's loops; each is in its log."
)
INFO: Final = Figure("headcount_info", Kind.GAUGE, "1, with the daemon's version.", ("version",))
ADMISSIONS: Final = Figure(
    "headcount_admissions_total",
    Kind.COUNTER,
    "Runs that were admitted, by what made them begin: deploy, resume, crash, message, takeover.",
    ("why",),
)
REFUSALS: Final = Figure(
    "headcount_refusals_total", Kind.COUNTER, "Runs that were refused, by the limit or rule.", ("reason",)
)
OVER: Final = Figure(
    "headcount_runs_over_total",
    Kind.COUNTER,
    "Runs that came to an end; lost: nobody knows how.",
    ("harness", "outcome"),
)
REPAIRS: Final = Figure(
    "headcount_repairs_total",
    Kind.COUNTER,
    "What the headcount put right. A ghost is a live row with nothing running and no record of its end.",
    ("kind",),
)
MESSAGES: Final = Figure(
    "headcount_messages_total", Kind.COUNTER, "Messages to agents: sent, delivered or failed.", ("state",)
)
TOKENS: Final = Figure(
    "headcount_tokens_total",
    Kind.COUNTER,
    "Tokens that runs used, known at their end: input, output, cached, reasoning.",
    ("harness", "kind"),
)
COST: Final = Figure(
    "headcount_cost_usd_total",
    Kind.COUNTER,
    "What runs cost in US dollars, as far as it is known, at their end.",
    ("harness",),
)
DEPLOY: Final = Figure(
    "headcount_deploy_seconds", Kind.HISTOGRAM, "From the admission of a run to the start of its program."
)
NOTICE: Final = Figure(
    "headcount_exit_notice_seconds", Kind.HISTOGRAM, "From the end of a run to its record in the registry."
)
TICK: Final = Figure("headcount_tick_seconds", Kind.HISTOGRAM, "One whole headcount.")
TRANSACTION: Final = Figure(
    "headcount_registry_transaction_seconds",
    Kind.HISTOGRAM,
    "One transaction of the daemon, read or write, its wait for others included.",
    ("kind",),
)
STANDING: Final = (AGENTS, HALTED, PAUSED, QUEUED, FLAGS, FAILURES)
HAPPENED: Final = (
    ADMISSIONS,
    REFUSALS,
    OVER,
    REPAIRS,
    MESSAGES,
    TOKENS,
    COST,
    DEPLOY,
    NOTICE,
    TICK,
    TRANSACTION,
)
FIGURES: Final = (*STANDING, INFO, *HAPPENED)
"""All of our own; beside them stand those of the process, by Prometheus's library."""
REPAIR_KINDS: Final = ("ghost", "stray", "unfinished", "wrong_identity", "earlier_boot", "view_missing")


class Metrics(Figures):
    """All figures of one daemon."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self._one: Final = threading.Lock()
        self._cursor: int | None = None
        self._awaited: Final[dict[RunKey, None]] = {}
        self._failures = 0
        # a series more for each, which nobody reads
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it so
        own = self.registry = CollectorRegistry()
        self._admitted: Final = self._counter(ADMISSIONS)
        self._refused: Final = self._counter(REFUSALS)
        self._over: Final = self._counter(OVER)
        self._repairs: Final = self._counter(REPAIRS, *REPAIR_KINDS)
        self._messages: Final = self._counter(MESSAGES, "sent", "delivered", "failed")
        self._tokens: Final = self._counter(TOKENS)
        self._cost: Final = self._counter(COST)
        self._deploys: Final = self._histogram(DEPLOY)
        self._notices: Final = self._histogram(NOTICE)
        self._ticks: Final = self._histogram(TICK)
        self._transactions: Final = self._histogram(TRANSACTION, SHORT)
        Gauge(INFO.name, INFO.help, INFO.labels, registry=own).labels(__version__).set(1)
        ProcessCollector(registry=own)
        own.register(_Collected(self))

    def _counter(self, figure: Figure, *begun: str) -> Counter:
        """Return a counter; what is `begun` stands at 0 from the start, so that its first rise is seen."""
        made = Counter(figure.name, figure.help, figure.labels, registry=self.registry)
        for label in begun:
            made.labels(label)
        return made

    def _histogram(self, figure: Figure, buckets: Sequence[float] = SECONDS) -> Histogram:
        return Histogram(figure.name, figure.help, figure.labels, buckets=buckets, registry=self.registry)

    # what the daemon tells

    def headcount_took(self, seconds: float) -> None:
        self._ticks.observe(seconds)

    def repaired(self, problem: Problem) -> None:
        if problem.action not in IN_THE_JOURNAL:
            self._repairs.labels(problem.kind).inc()

    def transaction(self, kind: str) -> AbstractContextManager[object]:
        """Return what measures a transaction, read or write."""
        return self._transactions.labels(kind).time()

    # what is read

    def begin(self) -> None:
        """Count from now on."""
        with self._context.registry.read() as tx:
            self._cursor = tx.events.last()

    def exposition(self, failures: int = 0) -> bytes:
        """Return all figures in Prometheus's text format.

        Raises:
            HeadcountError: the registry cannot be read.
        """
        with self._one:
            self._failures = failures
            if self._cursor is None:
                self.begin()
            self._catch_up()
            self._take_accounts()
            return generate_latest(self.registry)

    def _catch_up(self) -> None:
        while True:
            with self._context.registry.read() as tx:
                found = tx.events.since(self._cursor or 0, limit=BATCH, kinds=_HEARD)
                keys = {_key(each) for each in found if each.kind in _OF_A_RUN}
                runs = {key: tx.runs.get(key.agent_id, key.n) for key in keys}
                last = tx.events.last()
            for each in found:
                self._hear(each, runs.get(_key(each)))
            self._cursor = found[-1].seq if len(found) == BATCH else last
            if len(found) < BATCH:
                return

    def _hear(self, event: Event, run: Run | None) -> None:
        match event.kind:
            case "run_reserved":
                self._admitted.labels(event.reason or "deploy").inc()
            case "refused":
                self._refused.labels(event.reason or "unknown").inc()
            case "run_started":
                self._started(event, run)
            case "run_ended" | "run_lost":
                self._ended(event, run)
            case "run_corrected":
                self._repairs.labels("wrong_identity").inc()
            case "stray_ended":
                self._repairs.labels("stray").inc()
            case _:
                self._messages.labels(event.kind.removeprefix("message_")).inc()

    def _started(self, event: Event, run: Run | None) -> None:
        if event.data.get("adopted"):
            self._repairs.labels("unfinished").inc()
        elif run is not None and run.started_at is not None:
            self._deploys.observe(max(0.0, run.started_at - run.reserved_at))

    def _ended(self, event: Event, run: Run | None) -> None:
        if event.kind == "run_lost":
            self._repairs.labels("earlier_boot" if "restarted" in (event.reason or "") else "ghost").inc()
        if run is None:
            return
        self._over.labels(run.harness, run.outcome.value if run.outcome else run.state.value).inc()
        if event.kind == "run_ended" and run.started_at is not None and run.ended_at is not None:
            self._notices.observe(max(0.0, event.at - run.ended_at))
        if len(self._awaited) < AWAITED:
            self._awaited[run.key] = None

    def _take_accounts(self) -> None:
        """Add what the accounts say that have been made since."""
        with self._context.registry.read() as tx:
            runs = [tx.runs.get(key.agent_id, key.n) for key in self._awaited]
        for run in runs:
            if run is not None and run.account is not None:
                del self._awaited[run.key]
                self._account(run.harness, run.account)

    def _account(self, harness: str, account: Mapping[str, object]) -> None:
        for kind in ("input", "output", "cached", "reasoning"):
            if isinstance(number := account.get(kind), int) and number > 0:
                self._tokens.labels(harness, kind).inc(number)
        if isinstance(cost := account.get("cost_usd"), int | float) and cost > 0:
            self._cost.labels(harness).inc(cost)

    def standing(self) -> Iterator[tuple[Figure, Mapping[tuple[str, ...], float]]]:
        """Return the figures that are read when they are asked for, by the values of their labels."""
        with self._context.registry.read() as tx:
            live: Mapping[tuple[str, ...], float] = Tally(
                (row.state.value, row.harness) for row in tx.runs.live()
            )
            paused, queued, flags = (
                tx.figures.tasks_paused(),
                tx.figures.messages_queued(),
                tx.figures.flags_open(),
            )
        yield AGENTS, live
        yield HALTED, {(): float(self._context.home.halted.exists())}
        yield PAUSED, {(): paused}
        yield QUEUED, {(): queued}
        yield FLAGS, {(kind,): number for kind, number in flags.items()}
        yield FAILURES, {(): self._failures}


_OF_A_RUN: Final = frozenset(("run_started", "run_ended", "run_lost"))
_HEARD: Final = (
    *_OF_A_RUN,
    "run_reserved",
    "refused",
    "run_corrected",
    "stray_ended",
    "message_sent",
    "message_delivered",
    "message_failed",
)


def _key(event: Event) -> RunKey:
    return RunKey(event.agent_id or "", event.run or 0)


class _Collected:
    """Lets Prometheus's library collect what stands."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics: Final = metrics

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(each.name, each.help, labels=each.labels) for each in STANDING]

    def collect(self) -> Iterable[Metric]:
        for each, values in self._metrics.standing():
            family = GaugeMetricFamily(each.name, each.help, labels=each.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family
