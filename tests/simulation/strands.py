"""Many programs, one baton: exactly one strand runs at a time, and the seed says which.

A strand is a thread that runs only between being handed the baton and giving it back. So real service
code can be switched at any boundary, and the order of everything is a function of the seed alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import Proc


def _taken() -> threading.Lock:
    """Return a lock that waits for a `release`: half the price of a semaphore, and there are millions."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Killed(BaseException):
    """SIGKILL: nothing of the program runs on; what the machine keeps of it is kept."""


@dataclass(eq=False)
class Strand:
    """One thread of one simulated program."""

    name: str
    process: Proc
    body: Callable[[], object]
    doom: int | None = None  # the boundary at which its process is killed
    boundaries: int = 0
    wake_at: float = 0.0
    frozen: int = 0  # turns for which it is stopped (SIGSTOP)
    writing: bool = False  # it is inside a write transaction: others may not run
    done: bool = False
    error: BaseException | None = None
    at: str = ""
    go: threading.Lock = field(default_factory=_taken)


class Strands:
    """The strands of one simulation, and who has the baton."""

    def __init__(self) -> None:
        self.alive: list[Strand] = []
        self.current: Strand | None = None
        self._back = _taken()
        self._idle: list[_Worker] = []
        self._workers: list[_Worker] = []

    def begin(self, strand: Strand) -> None:
        """Make a strand that runs when it is first resumed."""
        worker = self._idle.pop() if self._idle else self._hire()
        self.alive.append(strand)
        worker.jobs.put(strand)

    def _hire(self) -> _Worker:
        worker = _Worker(self)
        self._workers.append(worker)
        worker.thread.start()
        return worker

    def resume(self, strand: Strand) -> None:
        """Hand over the baton and wait until it comes back."""
        self.current = strand
        strand.go.release()
        self._back.acquire()
        self.current = None
        if strand.done:
            self.alive.remove(strand)

    def give_back(self, strand: Strand) -> None:
        """Called by a strand: let others run, and wait for the next turn."""
        self._back.release()
        strand.go.acquire()

    def ended(self, strand: Strand, worker: _Worker) -> None:
        strand.done = True
        self._idle.append(worker)
        self._back.release()

    def close(self) -> None:
        """End the threads; strands that were never finished must be killed and resumed before."""
        for worker in self._workers:
            worker.jobs.put(None)
        for worker in self._workers:
            worker.thread.join()


class _Worker:
    """A thread that is used for strand after strand, so that its database connection is too."""

    def __init__(self, strands: Strands) -> None:
        self.jobs: SimpleQueue[Strand | None] = SimpleQueue()
        self._strands = strands
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while (strand := self.jobs.get()) is not None:
            strand.go.acquire()
            try:
                strand.body()
            except BaseException as error:  # noqa: BLE001 - the driver judges it
                strand.error = error
            self._strands.ended(strand, self)
