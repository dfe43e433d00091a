"""The daemon's sign of life: written after a headcount, and read by whoever asks whether it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headcount.domain.model import Heartbeat
from headcount.services.context import Context

MISSED: Final = 3
"""Headcounts that may be missing before the daemon is said to hang."""
LATE: Final = 5.0
"""Seconds that a machine under load may be late with one."""
OFTEN: Final = 5.0
"""Seconds within which one sign of life is enough: after each end there is a headcount."""


def beat(context: Context, *, headcounts: int, longest: float) -> None:
    """Write that this process is alive and has done so many headcounts, of which the longest took `longest`
    seconds."""
    own, clock = context.placement.self_process(), context.clock
    made = Heartbeat(own.pid, own.boot_id, clock.now(), clock.monotonic(), headcounts, longest)
    with context.registry.write("heartbeat") as tx:
        tx.heartbeats.put(made)


@dataclass(frozen=True, slots=True)
class Silence:
    """The seconds for which a daemon has been silent, and may be; time asleep is no silence."""

    seconds: float
    most: float

    @property
    def is_long(self) -> bool:
        return self.seconds > self.most


def silence(context: Context, pid: int) -> Silence | None:
    """Return how long the daemon `pid` has been silent; None: it has not given a sign of life yet."""
    with context.registry.read() as tx:
        found = tx.heartbeats.get()
    if found is None or found.pid != pid or found.boot_id != context.placement.self_process().boot_id:
        return None
    most = MISSED * max(context.settings.headcount_every, found.longest) + LATE
    return Silence(max(0.0, context.clock.monotonic() - found.monotonic), most)
