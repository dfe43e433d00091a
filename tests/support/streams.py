"""What the real agent CLIs have said, recorded by scripts/record_streams.py.

    for stream in streams.every("codex"):
        stream.lines, stream.code, stream.signal

Paths, ids, times and ports are neutral: the home is /home/user, the directory /work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "data" / "streams"
INDEX: Final = FOLDER / "index.json"


@dataclass(frozen=True)
class Stream:
    """One run: what it printed, how it ended, and what it was asked to do (`case`)."""

    cli: str
    case: str
    version: str
    code: int | None
    signal: int | None
    stderr: str = field(repr=False)
    output: bytes = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.cli}-{self.case}"

    @property
    def lines(self) -> Sequence[bytes]:
        return self.output.splitlines()

    def __str__(self) -> str:
        return self.name


@cache
def _index() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(INDEX.read_text())
    return found


def load(cli: str, case: str) -> Stream:
    """Return the recording of `case` with `cli`."""
    name = f"{cli}-{case}"
    return Stream(cli, case, output=(FOLDER / f"{name}.jsonl").read_bytes(), **_index()[name])


def every(*clis: str) -> list[Stream]:
    """Return all recordings, or those of `clis`, as parameters with names that can be read."""
    pairs = (name.split("-", maxsplit=1) for name in _index())
    return [load(cli, case) for cli, case in pairs if not clis or cli in clis]
