"""Read what an agent wrote, during its run or after it."""

from __future__ import annotations

from dataclasses import dataclass

from headcount.runtimes.base import OutputSlice, Placement


@dataclass(frozen=True, slots=True)
class Wish:
    """What to read, not yet checked."""

    agent_id: str
    run: int | None
    stream: str
    format: str
    tail: int | None
    filter: str | None
    max_bytes: int
    cursor: int | None


@dataclass(frozen=True, slots=True)
class Source:
    """One stream of one run, as bytes."""

    placement: Placement
    path: str
    stream: str

    def read(self, offset: int, limit: int) -> OutputSlice:
        """Return bytes from an absolute offset, or from the end if it is negative."""
        return self.placement.read_output(self.path, offset=offset, limit=limit, stream=self.stream)
