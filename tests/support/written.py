"""An agent's output in memory, perhaps with a part of it cut away, as a placement would read it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    data: bytes
    offset: int
    end: int


@dataclass
class Stream:
    """All that was written, and which bytes of it were lost: from `lost[0]` to `lost[1]`."""

    written: bytes
    lost: tuple[int, int] = (0, 0)
    bytes_read: int = 0

    def read(self, offset: int, limit: int) -> Slice:
        first, behind = self.lost
        start = behind if first <= offset < behind else offset
        stop = min(start + limit, first if start < first < behind else len(self.written))
        data = self.written[start:stop]
        self.bytes_read += len(data)
        return Slice(data, start, len(self.written))

    def kept(self) -> list[bytes]:
        """Return the lines that are left, as the reader should see them."""
        first, behind = self.lost
        parts = [self.written[:first], self.written[behind:]] if behind > first else [self.written]
        return [line for part in parts for line in part.removesuffix(b"\n").split(b"\n") if part]
