"""What others put into the run directory for a conversation, and what it puts there for them.

`inbox/<id>.json` is a letter, answered by `inbox/<id>.done`; `asks/<id>.json` a question to a person,
answered by them in `asks/<id>.answer` and closed by us in `asks/<id>.done`. Each file appears whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = ("message", "cancel", "answer", "end")


class Letter:
    """`id` names its file; `facts` is what the file holds."""

    __slots__ = ("facts", "id", "kind", "text")

    def __init__(self, name: str, facts: Mapping[str, Any]) -> None:
        self.id = name
        self.kind = str(facts.get("kind"))
        self.text = str(facts.get("text") or "")
        self.facts = facts


class Inbox:
    """The letters of a run, each taken once."""

    def __init__(self, run_path: str) -> None:
        self.folder = os.path.join(run_path, "inbox")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._taken: set[str] = set()

    def take(self) -> Iterator[Letter]:
        """Yield the letters that came since, in their order. One that cannot be read is settled as failed."""
        there = os.listdir(self.folder)
        done = {name[:-5] for name in there if name.endswith(".done")}
        new = {name[:-5] for name in there if name.endswith(".json")} - done - self._taken
        for name in sorted(new, key=_order):
            self._taken.add(name)
            facts = read(os.path.join(self.folder, name + ".json"))
            if facts is None or facts.get("kind") not in KINDS:
                self.settle(name, "failed", "it is no letter that can be understood")
            else:
                yield Letter(name, facts)

    def settle(self, name: str, state: str, reason: str = "") -> None:
        """Answer a letter: `delivered` or `failed`."""
        write(os.path.join(self.folder, name + ".done"), {"id": name, "state": state, "reason": reason})


class Asks:
    """The questions of a run that a person may answer until they expire."""

    def __init__(self, run_path: str, expiry: float) -> None:
        self.folder = os.path.join(run_path, "asks")
        self._expiry = expiry
        self._open: dict[str, float] = {}
        self._count = 0

    def put(self, facts: Mapping[str, Any]) -> str:
        """Ask; return the question's id."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._count += 1
        name, now = str(self._count), time.time()
        times = {"asked_at": now, "expires_at": now + self._expiry}
        write(os.path.join(self.folder, name + ".json"), {"id": name, **facts, **times})
        self._open[name] = time.monotonic() + self._expiry
        return name

    def open(self) -> Iterator[str]:
        """Yield the ids of the questions that nobody has answered."""
        return iter(tuple(self._open))

    def answered(self) -> Iterator[tuple[str, bool, str, str]]:
        """Yield what was answered or has expired: id, whether it is allowed, by whom, why."""
        for name, until in list(self._open.items()):
            found = read(os.path.join(self.folder, name + ".answer"))
            if found is not None:
                yield (
                    name,
                    found.get("allow") is True,
                    str(found.get("by") or "a person"),
                    str(found.get("reason") or ""),
                )
            elif time.monotonic() >= until:
                yield name, False, "", "expired"

    def close(self, name: str, state: str, *, by: str = "", reason: str = "") -> None:
        """Say what became of a question: `allowed`, `denied`, `expired` or `withdrawn`."""
        if self._open.pop(name, None) is not None:
            facts = {"id": name, "state": state, "by": by, "reason": reason, "at": time.time()}
            write(os.path.join(self.folder, name + ".done"), facts)


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers by their value, before other names."""
    return (True, 0, name) if not name.isdigit() else (False, int(name), name)


def read(path: str) -> dict[str, Any] | None:
    """Return the object of a file; None if it is not there or holds none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


ANEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW


def write(path: str, facts: Mapping[str, Any]) -> None:
    """Make a file appear whole and durable."""
    temporary = path + ".tmp"
    with open(os.open(temporary, ANEW, 0o600), "wb") as file:
        file.write(json.dumps(facts).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
