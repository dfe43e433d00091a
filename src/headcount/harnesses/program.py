"""Finding the program that an agent is, before anything is started for it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from headcount.domain.errors import InvalidInput, PlacementFailed

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


def find_program(name: str, *, env: Mapping[str, str], cwd: str, hint: str) -> str:
    """Return the absolute path of `name` as a shell in `cwd` with the caller's PATH would find it.

    Links are not resolved: a virtual environment's python is known by the path it is called by.

    Raises:
        PlacementFailed: there is none, or it cannot be run; `hint` says what to do.
    """
    if "/" in name:
        return _runnable(os.path.join(cwd, name), name, hint)
    for directory in env.get("PATH", DEFAULT_PATH).split(":"):
        path = os.path.join(cwd, directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise PlacementFailed(f"the program {name!r} was not found in the caller's PATH", hint=hint)


def _runnable(path: str, name: str, hint: str) -> str:
    if not os.path.exists(path):
        raise PlacementFailed(f"the program {name!r} does not exist", hint=hint)
    if not os.path.isfile(path):
        raise PlacementFailed(f"{name!r} is not a program but a directory or device", hint=hint)
    if not os.access(path, os.X_OK):
        raise PlacementFailed(f"the program {name!r} is not executable", hint=f"chmod +x {path}")
    return path


def check_argument(what: str, value: str) -> str:
    """Return `value` if it can be an argument of a program.

    Raises:
        InvalidInput: it has a NUL, which no argument can hold, or is not valid text.
    """
    if "\0" in value:
        raise InvalidInput(f"{what} has a NUL character", hint="leave it out")
    return check_text(what, value)


def check_text(what: str, value: str) -> str:
    """Return `value` if it can be encoded.

    Raises:
        InvalidInput: it has half of a surrogate pair.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} is not valid Unicode text", hint="send it as UTF-8") from None
    return value
