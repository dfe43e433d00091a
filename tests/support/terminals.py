"""A terminal for a program that a person talks to: a private tmux, its keys and what it shows.

A test module that imports the fixture `terminal` can use it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.waiting import until

TARGET = "=it:"


@dataclass(frozen=True)
class Terminal:
    """One session of a server of its own."""

    socket: Path

    def open(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Start a program with these variables and no others."""
        given = {"TERM": "xterm-256color", "LANG": "C.UTF-8", **env}
        command = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in given.items()), *argv])
        self._tmux("new-session", "-d", "-s", "it", "-x", "150", "-y", "50", "-c", str(cwd), command)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p", "-t", TARGET)

    def shows(self, words: str) -> None:
        """Wait until it shows these words."""
        until(lambda: words in self.screen(), what=f"the terminal shows {words!r}", patience=60)

    def enter(self, text: str, *, shown: str) -> None:
        """Type a line, and send it once `shown` of it is there: a program may be slow to take it."""
        self._tmux("send-keys", "-t", TARGET, "-l", text)
        self.shows(shown)
        self._tmux("send-keys", "-t", TARGET, "Enter")

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *command: str) -> str:
        argv = ["tmux", "-S", str(self.socket), "-f", "/dev/null", *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    needs.program("tmux", how="apt-get install tmux")
    found = Terminal(tmp_path / "tmux")
    yield found
    found.close()
