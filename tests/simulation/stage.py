"""A simulated machine with its programs, on which one of them at a time does what a test says."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from headcount.config import Home
from headcount.domain.model import Limits
from headcount.services import stop
from headcount.services.context import Context
from tests.simulation.audit import Broken
from tests.simulation.fleet import Fleet, make_home
from tests.simulation.registry import template
from tests.simulation.strands import Killed, Strand
from tests.simulation.world import Climate, World


class InTurn:
    """Instead of a pool of threads: the same work, one after the other, so that the seed decides all."""

    def __init__(self, **_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return iter([work(item) for item in items])


@contextmanager
def scratch_home() -> Iterator[Home]:
    """A home with an empty registry, in memory where there is such a place: syncing is free there."""
    folder = tempfile.mkdtemp(prefix="headcount-sim-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    try:
        yield make_home(Path(folder, "home"), _empty())
    finally:
        shutil.rmtree(folder)


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return template(Path(folder))


class Stage:
    """Machine, programs and auditor; nothing happens but what is asked for."""

    def __init__(
        self,
        rng: random.Random,
        home: Home,
        limits: Limits,
        climate: Climate = Climate(),  # noqa: B008
    ) -> None:
        self.rng = rng
        self.world = World(rng, climate)
        self.fleet = Fleet(self.world, home, limits, rng)
        self.auditor = self.fleet.auditor
        self._patch = patch.object(stop, "ThreadPoolExecutor", InTurn)
        self._patch.start()

    def close(self) -> None:
        """Let every thread end, whatever state it is in."""
        for strand in list(self.world.strands.alive):
            strand.process.alive = False
            while not strand.done:
                self.world.strands.resume(strand)
        self.world.strands.close()
        self.fleet.registry.close()
        self.auditor.close()
        self._patch.stop()

    def resume(self, strand: Strand) -> None:
        """Give one strand a turn, and judge how it ended if it did."""
        self.world.strands.resume(strand)
        if strand.done and strand.error is not None and not isinstance(strand.error, Killed):
            if not self.fleet.expects(strand.error):
                raise strand.error
            self.world.note(f"{strand.name} fails: {strand.error}")

    def alone(self, body: Callable[[Context], object]) -> None:
        """Run one program to its end; the machine moves only while it waits.

        Raises:
            whatever the program raises.
        """
        strand = self.fleet.person(getattr(body, "__name__", "program"), body)
        self.finish(strand)
        if strand.error is not None:
            raise strand.error

    def finish(self, strand: Strand) -> None:
        """Run a strand to its end."""
        self.until(strand, None)

    def until(self, strand: Strand, boundary: str | None) -> None:
        """Run a strand up to a boundary (None: to its end)."""
        for _ in range(20_000):
            if strand.done or (boundary is not None and strand.at == boundary):
                return
            if strand.wake_at > self.world.uptime:
                self.world.pass_time(strand.wake_at - self.world.uptime)
                self.world.stir()
            self.resume(strand)
            self.auditor.step()
        raise Broken(f"liveness: {strand.name} never ends, it is at {strand.at}")
