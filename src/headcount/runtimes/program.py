"""Compiles the runner once, so that a start need not."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import sys
from _thread import get_ident
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import Final

FOLDER: Final = Path(__file__).parent
PARTS: Final = ("system", "stream", "launch", "tree", "runner")
"""The modules of the runner, each after those that it imports; the last one is the program."""

_LOADER: Final = """
import sys
package = sys.modules["headcount.runtimes"] = type(sys)("headcount.runtimes")
for name, code in "parts":
    module = sys.modules["headcount.runtimes." + name] = type(sys)(name)
    setattr(package, name, module)
    exec(code, module.__dict__)
"""


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
    sources = [(FOLDER / f"{part}.py").read_bytes() for part in PARTS]
    magic = importlib.util.MAGIC_NUMBER
    name = hashlib.sha256(magic + _LOADER.encode() + b"".join(sources)).hexdigest()[:16]
    path = f"{cache}/runner-{name}.pyc"
    if not os.path.exists(path):
        _write(path, magic + bytes(12) + marshal.dumps(_bundle(sources)))
    return path


def _bundle(sources: Sequence[bytes]) -> CodeType:
    """Return one code object that makes all the modules and runs the last as the program."""
    names = (*PARTS[:-1], "__main__")
    codes = [
        compile(source, f"headcount/{part}.py", "exec", dont_inherit=True, optimize=2)
        for part, source in zip(PARTS, sources, strict=True)
    ]
    loader = compile(_LOADER, "headcount/loader", "exec", dont_inherit=True)
    parts = tuple(zip(names, codes, strict=True))
    return loader.replace(co_consts=tuple(parts if const == "parts" else const for const in loader.co_consts))


def _write(path: str, data: bytes) -> None:
    """Write a file that others may be writing at the same time."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    mine = f"{path}.{os.getpid()}.{get_ident()}.tmp"  # other threads write it too
    fd = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)  # after a power cut it would else be there, and empty
    os.replace(mine, path)
