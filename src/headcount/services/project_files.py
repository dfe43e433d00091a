"""Reading a project's manifest files: bounded, and never out of its directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from headcount.domain.project import LOOKED_FOR, READ, Project, detect

SIZE_MAX: Final = 512 * 1024
"""Bytes of one manifest; a larger one is no manifest that a person wrote."""


def read_project(path: Path) -> Project:
    """Return what the files in `path` say; what is broken, missing or not a plain file is passed over.

    Symbolic links are not followed: a project could point them at anything.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return Project()
    try:
        texts = {name: text for name in READ if (text := _read(directory, name)) is not None}
        present = {name for name in LOOKED_FOR if _is_file(directory, name)}
    finally:
        os.close(directory)
    return detect(texts, present)


def _read(directory: int, name: str) -> str | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: it may be a FIFO
    try:
        file = os.open(name, flags, dir_fd=directory)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        data = os.read(file, SIZE_MAX + 1)
    except OSError:
        return None
    finally:
        os.close(file)
    return data.decode("utf-8", "replace") if len(data) <= SIZE_MAX else None


def _is_file(directory: int, name: str) -> bool:
    """Only the last part may be followed or not; a folder on the way that is a link leads outside."""
    folder = os.path.dirname(name)
    try:
        if folder and not stat.S_ISDIR(os.stat(folder, dir_fd=directory, follow_symlinks=False).st_mode):
            return False
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False
