"""Compiles the runner once, so that a start need not."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("runner.py")


def interpreter() -> str:
    """Return the Python that runs runners: the one below a virtual environment, which starts faster."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def compiled_runner(cache: str) -> str:
    """Return the path of the compiled runner in the directory `cache`, made if it is not there.

    It is named by its source and this Python's bytecode version, so that an upgrade of either takes nothing
    away from those that run.

    Raises:
        OSError: it cannot be written.
    """
    source = SOURCE.read_bytes()
    magic = importlib.util.MAGIC_NUMBER
    path = f"{cache}/runner-{hashlib.sha256(source + magic).hexdigest()[:16]}.pyc"
    if not os.path.exists(path):
        code = compile(source, "headcount-runner", "exec", dont_inherit=True, optimize=2)
        _write(path, magic + bytes(12) + marshal.dumps(code))
    return path


def _write(path: str, data: bytes) -> None:
    """Write a file that others may be writing at the same time."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    mine = f"{path}.{os.getpid()}.tmp"
    with open(mine, "wb") as file:
        file.write(data)
    os.replace(mine, path)
