"""Notes for a program that can be told something in its work; docs/run-directory.md has their form.

A note is written once, in one step, and stays; the program's driver answers it by a file beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

FOLDER: Final = "inbox"


def put(path: str, name: str, facts: Mapping[str, object]) -> None:
    """Write a note into the run directory `path`, durably, unless it or its answer is there.

    Raises:
        OSError: it cannot be written.
    """
    folder = f"{path}/{FOLDER}"
    note = f"{folder}/{name}.json"
    if os.path.exists(f"{folder}/{name}.done") or os.path.exists(note):
        return
    os.makedirs(folder, mode=0o700, exist_ok=True)
    passing = f"{folder}/.{name}.{os.getpid()}"
    fd = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(fd)
    os.rename(passing, note)
    _sync(folder)


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def answer(path: str, name: str) -> Mapping[str, Any] | None:
    """Return what the driver says of a note, None as long as it says nothing that can be read."""
    try:
        with open(f"{path}/{FOLDER}/{name}.done", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):  # not there yet, or being written
        return None
    return found if isinstance(found, dict) else None
