"""Which process is which, and whether it is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Final

from headcount.domain.model import Presence, Process
from headcount.runtimes import runner

PS: Final = "/bin/ps"
PS_TIMEOUT: Final = 5.0
PS_SLACK: Final = 1
"""Seconds: `ps` adds the start in ticks to the boot time, and rounds differently from call to call on Linux."""


class ProcessTable:
    """Looks at processes: through /proc, or through `ps` where that is missing or `proc` is in `without`."""

    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        self.proc = "proc" not in without and os.path.exists("/proc/self/stat")

    @cached_property
    def boot_id(self) -> str:
        """The id of this boot; no process outlives it."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return _sysctl("kern.bootsessionuuid") or _sysctl("kern.boottime") or "unknown"

    @cached_property
    def pid_namespace(self) -> str:
        try:
            return os.readlink("/proc/self/ns/pid")
        except OSError:
            return ""

    def identify(self, pid: int) -> Process | None:
        """Return the identity of the process that has `pid` now, None if none has.

        Raises:
            OSError: it cannot be told.
        """
        found = self.find(pid)
        return None if found is None or found.dead else Process(pid, found.ticks, self.boot_id)

    def presence(self, process: Process) -> Presence:
        """Say whether exactly this process is alive."""
        if process.boot_id != self.boot_id:
            return Presence.DEAD
        try:
            found = self.find(process.pid)
        except (OSError, ValueError, subprocess.SubprocessError):
            return Presence.UNKNOWN
        if found is None or found.dead or not self.same(found.ticks, process.ticks):
            return Presence.DEAD
        return Presence.ALIVE

    def same(self, one: int, other: int) -> bool:
        """Say whether two start times of one pid mean one process."""
        return one == other if self.proc else abs(one - other) <= PS_SLACK

    def find(self, pid: int) -> runner.Proc | None:
        if self.proc:
            return runner.proc_stat(pid)
        return runner.parse_ps(_ps("-o", runner.PS_COLUMNS.decode(), "-p", str(pid))).get(pid)

    def all(self) -> dict[int, runner.Proc]:
        """Return the whole process table."""
        if self.proc:
            return runner.proc_table()
        return runner.parse_ps(_ps("axo", runner.PS_COLUMNS.decode()))

    def environments(self, pids: Collection[int]) -> dict[int, dict[bytes, bytes]]:
        """Return the environments of those processes that let us read theirs."""
        if self.proc:
            return {pid: found for pid in pids if (found := _environ(pid))}
        flags = ("-axwwE", "-o") if sys.platform == "darwin" else ("axewwo",)
        found = {}
        for line in _ps(*flags, "pid=,command=").splitlines():
            pid, _, words = line.strip().partition(b" ")
            if pid.isdigit() and int(pid) in pids:
                found[int(pid)] = _variables(words.split(b" "))
        return found


def _environ(pid: int) -> dict[bytes, bytes]:
    try:
        return _variables(runner.read_file(b"/proc/%d/environ" % pid).split(b"\0"))
    except OSError:
        return {}


def _variables(words: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return our own variables: no other is of interest, and `ps` shows them between arguments."""
    pairs = (word.partition(b"=") for word in words if word.startswith(b"HEADCOUNT_"))
    return {name: value for name, _, value in pairs}


def _ps(*args: str) -> bytes:
    env = {name.decode(): value.decode() for name, value in runner.PS_ENV.items()}
    return subprocess.run(
        (PS, *args), env=env, stdout=subprocess.PIPE, timeout=PS_TIMEOUT, check=False
    ).stdout


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(("sysctl", "-n", name), stdout=subprocess.PIPE, timeout=PS_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
