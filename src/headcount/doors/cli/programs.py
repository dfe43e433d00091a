"""Programs of others that a command runs for its user: tmux, and the clients' own commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NoReturn

from headcount.domain.errors import Infrastructure


def ran(argv: Sequence[str], *, timeout: float) -> tuple[int, str]:
    """Run a program to its end; return its exit code and what it said.

    Raises:
        Infrastructure: it is not there, or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except OSError as error:
        raise Infrastructure(f"{argv[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Infrastructure(f"{argv[0]} took longer than {timeout:g} s") from error
    return done.returncode, (done.stdout + done.stderr).strip()


def become(argv: Sequence[str]) -> NoReturn:
    """Give this process, and its terminal, to another program.

    Raises:
        Infrastructure: it cannot be run.
    """
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - no shell, on purpose
    except OSError as error:
        raise Infrastructure(f"{argv[0]} cannot be run: {error.strerror}") from error
