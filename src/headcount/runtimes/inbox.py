"""Notes for a program that can be told something in its work; docs/run-directory.md has their form.

A note is written once, in one step, and stays; the program's driver answers it by a file beside it.
"""

from __future__ import annotations

import contextlib
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
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode=0o700)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # no link that the agent put there
    try:
        _write(place, name, facts)
    finally:
        os.close(place)


def _write(place: int, name: str, facts: Mapping[str, object]) -> None:
    passing = f".{name}.{os.getpid()}"
    fd = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=place)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(fd)
    os.rename(passing, f"{name}.json", src_dir_fd=place, dst_dir_fd=place)
    os.fsync(place)


def answer(path: str, name: str) -> Mapping[str, Any] | None:
    """Return what the driver says of a note, None as long as it says nothing that can be read."""
    try:
        with open(f"{path}/{FOLDER}/{name}.done", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):  # not there yet, or being written
        return None
    return found if isinstance(found, dict) else None
