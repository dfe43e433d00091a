"""A private view server, and runs that are no more than a directory and a process to follow."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from headcount.domain.ids import base32
from headcount.domain.model import RunKey
from headcount.runtimes.tmux_view import TmuxViews
from tests.support.waiting import until


class Run:
    """A run directory and a process that stands for its runner."""

    def __init__(self, path: Path, agent_id: str) -> None:
        self.key = RunKey(agent_id, 1)
        self.name = agent_id
        self.path = path
        path.mkdir(parents=True)
        self._runner = subprocess.Popen(("sleep", "1000"))
        self.pid = self._runner.pid

    def write(self, data: bytes, part: str = "output.jsonl") -> None:
        with (self.path / part).open("ab") as file:
            file.write(data)

    def alive(self) -> bool:
        return self._runner.poll() is None

    def end(self) -> None:
        self._runner.kill()
        self._runner.wait()


class Fleet:
    """Runs, and the views of them on a tmux server of their own."""

    def __init__(
        self, home: Path, tmux: str, *, env: Mapping[str, str] = os.environ, **settings: object
    ) -> None:
        self.home = home
        self.tmux = tmux
        self.socket = str(home / "tmux.sock")
        settings = {"timeout": 10.0, **settings}  # of patience with a loaded machine
        self.views = TmuxViews(self.socket, tmux=tmux, env=env, **settings)  # type: ignore[arg-type]  # a test names what differs
        self.runs: list[Run] = []

    def run(self, agent_id: str | None = None, data: bytes = b"") -> Run:
        name = agent_id or f"builder-{base32(len(self.runs), 16)}"
        run = Run(self.home / "runs" / name / "1", name)
        self.runs.append(run)
        run.write(data)
        return run

    def show(self, run: Run, *, renders: bool = False) -> None:
        self.views.show(run.key, str(run.path), runner_pid=run.pid, renders=renders)

    def shown(self, data: bytes = b"", agent_id: str | None = None, *, renders: bool = False) -> Run:
        """Return a run with a session that is there."""
        run = self.run(agent_id, data)
        self.show(run, renders=renders)
        until(lambda: run.name in self.names(), what=f"the session of {run.name}")
        return run

    def names(self) -> list[str]:
        sessions = self.views.list()
        assert sessions is not None, "the view server did not answer"
        return sorted(each.name for each in sessions)

    def ask(self, *command: str) -> str:
        """Return what tmux says; without waiting for ever for one that is broken."""
        argv = (self.tmux, "-u", "-N", "-S", self.socket, *command)
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout

    def screen(self, run: Run) -> str:
        return self.ask("capture-pane", "-p", "-J", "-S", "-", "-t", f"={run.name}:")

    def pane_pids(self) -> list[int]:
        return [int(pid) for pid in self.ask("list-panes", "-a", "-F", "#{pane_pid}").split()]

    def server_pid(self) -> int:
        return int(self.ask("display-message", "-p", "#{pid}"))

    def kill_server(self) -> None:
        """End the server as a crash does."""
        with suppress(ValueError, ProcessLookupError):
            pid = self.server_pid()
            os.kill(pid, signal.SIGKILL)
            until(lambda: not alive(pid), what="the end of the view server")

    def close(self) -> None:
        for run in self.runs:
            run.end()
        panes = self.pane_pids()
        self.kill_server()
        until(lambda: not any(map(alive, panes)), what="the end of the views of a dead server")
        until(self.settled, what="the end of the tmux clients")

    def settled(self) -> bool:
        self.views.list()
        return not self.views._clients


class Person:
    """Somebody at a terminal who looks at a view."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", TMUX="/elsewhere,1,0")
            os.execvp(argv[0], list(argv))
        self.resize(24, 80)
        os.set_blocking(self._fd, False)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def sees(self, text: str) -> bool:
        with suppress(BlockingIOError, OSError):  # OSError: the program at the terminal has ended
            self.seen += os.read(self._fd, 1 << 16).decode(errors="replace")
        return text in self.seen

    def press(self, keys: bytes) -> None:
        self.seen = ""
        os.write(self._fd, keys)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self._fd)
        os.waitpid(self.pid, 0)


@contextmanager
def person(argv: Sequence[str]) -> Iterator[Person]:
    made = Person(argv)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def fleet(home: Path, tmux: str, **settings: object) -> Iterator[Fleet]:
    made = Fleet(home, tmux, **settings)  # type: ignore[arg-type]  # a test names what differs
    try:
        yield made
    finally:
        made.close()


def alive(pid: int) -> bool:
    """Say whether there is such a process, a zombie not counted."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in task.read_text().split():
                pids += tree(int(child))
    return pids


def pss_kb(pid: int) -> int:
    """Return the memory of a process, each shared page divided by those who share it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
