"""A terminal for an agent that a person talks to: who holds it, and the window onto it.

Two programs of their own. The keeper is the first process of the run: it holds the terminal, so that the
agent does not notice what becomes of tmux, of the window or of us. The window is what a pane of tmux runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

_HERE: Final = os.path.dirname(__file__)
ENV: Final = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
"""What an agent on such a terminal is told of it: tmux, which shows it, understands both."""


def kept(argv: Sequence[str], run_path: str) -> tuple[str, ...]:
    """Return the command that runs `argv` on a terminal of its own."""
    return (_python(), "-I", "-S", os.path.join(_HERE, "keeper.py"), run_path, *argv)


def window(run_path: str, runner_pid: int) -> tuple[str, ...]:
    """Return the command that shows that terminal in the one where it is started, and takes its keys."""
    return (_python(), "-I", "-S", os.path.join(_HERE, "window.py"), f"{run_path}/.", str(runner_pid))


def _python() -> str:
    """Return the Python below a virtual environment, which starts faster."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)
