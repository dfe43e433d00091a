"""The real command `headcount`, in a process of its own, on the test's home."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

QUIET = {
    "HEADCOUNT_VIEWS": "0",
    "HEADCOUNT_AUTOSTART": "0",
    "HEADCOUNT_GRACE": "2",
    "HEADCOUNT_MIN_MEMORY_MB": "1",
    "COLUMNS": "80",
}
"""No daemon and no views, unless a test is about them."""


_TO_TERMINAL = "import os, sys; os.login_tty(os.dup(0)); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes the terminal the one whose Ctrl-C reaches the program."""

NO_KEYS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        """What `--json` printed; it is all that was printed."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return self.facts["error"]


def headcount(
    *args: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Ran:
    """Run `headcount ARGS` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "headcount", *args],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(env),
        cwd=cwd,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def answer(*args: str, **how: Any) -> Any:
    """Run `headcount ARGS --json`, which must succeed, and return its facts."""
    at = args.index("--") if "--" in args else len(args)
    ran = headcount(*args[:at], "--json", *args[at:], **how)
    assert ran.code == 0, ran
    return ran.facts


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, **QUIET, **(more or {})}


@contextmanager
def started(*args: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start `headcount ARGS` with pipes; at the end it is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headcount", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(env),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def on_a_terminal(
    *args: str, env: Mapping[str, str] | None = None, typing: Mapping[str, str] = NO_KEYS
) -> Ran:
    """Run `headcount ARGS` to its end on a terminal of 80 columns; `out` is all that was drawn.

    `typing` says what is typed once a text has been drawn.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _TO_TERMINAL, sys.executable, "-m", "headcount", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(env), "TERM": "xterm-256color"},
    )
    os.close(theirs)
    try:
        drawn = _played(ours, dict(typing), deadline=time.monotonic() + 60)
        return Ran(process.wait(timeout=30), drawn.decode(errors="replace"), "")
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()


def _played(fd: int, typing: dict[str, str], *, deadline: float) -> bytes:
    """Read, and type, until the other side is closed, which on Linux is an input/output error."""
    drawn = b""
    while time.monotonic() < deadline:
        if not select.select([fd], [], [], 0.2)[0]:
            continue
        try:
            part = os.read(fd, 65536)
        except OSError:
            break
        if not part:
            break
        drawn += part
        for seen in [seen for seen in typing if seen.encode() in drawn]:
            os.write(fd, typing.pop(seen).encode())
    return drawn
