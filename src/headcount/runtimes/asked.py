"""Asking a program for its version: in a directory of its own, for a short while, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Final

PATIENCE: Final = 5.0
"""Seconds; the slowest of the agent programs that we know takes two on a busy machine."""
SAID_MAX: Final = 4_000


def version(argv: Sequence[str], *, path: str, patience: float = PATIENCE) -> str | None:
    """Return what a program says to being asked for its version, None if it does not say it in time.

    It gets a home of its own that is taken away again, none of the caller's variables but PATH, and no
    input; when the time is up, it is ended with all that it started.
    """
    with tempfile.TemporaryDirectory(prefix="headcount-version-", ignore_cleanup_errors=True) as home:
        env = {"PATH": path, "HOME": home, "TMPDIR": home, "XDG_RUNTIME_DIR": home, "LC_ALL": "C.UTF-8"}
        try:
            process = subprocess.Popen(
                argv,
                cwd=home,
                env={**env, "CI": "1", "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return None
        return _said(process, patience)


def _said(process: subprocess.Popen[bytes], patience: float) -> str | None:
    with process:
        try:
            out, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):  # its children too: it led a session of its own
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
    said = out[:SAID_MAX].decode("utf-8", "replace").strip()
    return said or None
