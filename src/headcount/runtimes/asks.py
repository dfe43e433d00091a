"""Questions of a run to a person; docs/run-directory.md has their form. A question is answered once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

FOLDER: Final = "asks"


def pending(path: str) -> Iterator[Mapping[str, Any]]:
    """Yield the questions in the run directory `path` that are not settled, in their order."""
    try:
        there = frozenset(os.listdir(f"{path}/{FOLDER}"))
    except OSError:  # nothing was ever asked, or it is gone
        return
    names = [each.removesuffix(".json") for each in there if each.endswith(".json")]
    for name in sorted(names, key=lambda each: (len(each), each)):
        if f"{name}.done" not in there and (found := _read(f"{path}/{FOLDER}/{name}.json")) is not None:
            yield {**found, "id": name, "answered": f"{name}.answer" in there}


def answer(path: str, name: str, facts: Mapping[str, object]) -> bool:
    """Answer a question, durably; return False if somebody has done so before.

    Raises:
        OSError: it cannot be written.
    """
    place = os.open(f"{path}/{FOLDER}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return _write(place, name, facts)
    finally:
        os.close(place)


def _write(place: int, name: str, facts: Mapping[str, object]) -> bool:
    passing = f".{name}.{os.getpid()}"
    fd = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=place)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(facts, file)
            file.flush()
            os.fsync(fd)
        os.link(passing, f"{name}.answer", src_dir_fd=place, dst_dir_fd=place)
    except FileExistsError:
        return False
    finally:
        os.unlink(passing, dir_fd=place)
    return True


def outcome(path: str, name: str) -> Mapping[str, Any] | None:
    """Return what became of a question, None as long as it stands."""
    return _read(f"{path}/{FOLDER}/{name}.done")


def _read(file: str) -> Mapping[str, Any] | None:
    try:
        with open(file, encoding="utf-8") as opened:
            found = json.load(opened)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
