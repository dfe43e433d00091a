"""Which process is which, and whether it is still there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from functools import cached_property
from typing import Final

from headcount.domain.model import Presence, Process
from headcount.runtimes import system

PS: Final = "/bin/ps"
SYSCTL: Final = "/usr/sbin/sysctl"
LSOF: Final = "/usr/sbin/lsof"
"""In full: a process that does not find it would take another for one of an earlier boot."""
PS_TIMEOUT: Final = 5.0


class ProcessTable:
    """Looks at processes: through /proc, or through `ps` where that is missing or `proc` is in `without`."""

    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        self.proc = "proc" not in without and os.path.exists("/proc/self/stat")

    @cached_property
    def boot_id(self) -> str:
        """The id of this boot; no process outlives it."""
        try:
            # not as ASCII, whose codec would have to be imported in the middle of a deploy
            with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
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
        if found is None or found.dead or not system.same(found.ticks, process.ticks):
            return Presence.DEAD
        return Presence.ALIVE

    def find(self, pid: int) -> system.Proc | None:
        if self.proc:
            return system.proc_stat(pid)
        return system.parse_ps(_ps("-o", system.PS_COLUMNS.decode(), "-p", str(pid))).get(pid)

    def all(self) -> dict[int, system.Proc]:
        """Return the whole process table."""
        if self.proc:
            return system.proc_table()
        return system.parse_ps(_ps("axo", system.PS_COLUMNS.decode()))

    def inside(self, path: str) -> tuple[int, ...] | None:
        """Return the processes of ours whose working directory is `path` or below it; None: nobody can say.

        Those of other users cannot be looked at, and could not work there: the home is private.
        """
        if self.proc:
            places = {pid: at for pid in self.all() if (at := _cwd(pid))}
        else:
            found = _lsof()
            if found is None:
                return None
            places = found
        below = path.rstrip("/") + "/"
        return tuple(sorted(pid for pid, at in places.items() if f"{at}/".startswith(below)))

    def environments(self, pids: Collection[int]) -> dict[int, dict[bytes, bytes]]:
        """Return our own variables in the environments of those processes that let us read theirs."""
        if self.proc:
            return system.proc_environments(pids)
        found = system.parse_environments(_ps(*(word.decode() for word in system.PS_ENVIRONMENTS)))
        return {pid: env for pid, env in found.items() if pid in pids}


def _cwd(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")
    except OSError:
        return None  # it is over, or another user's


def _lsof() -> dict[int, str] | None:
    """Return where the user's processes work, as lsof tells it: pid lines and name lines."""
    try:
        done = subprocess.run(
            (LSOF, "-w", "-a", "-d", "cwd", "-u", str(os.getuid()), "-Fpn"),
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PS_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    places, pid = {}, 0
    for line in os.fsdecode(done.stdout).splitlines():
        if line.startswith("p"):
            pid = int(line[1:])
        elif line.startswith("n"):
            places[pid] = line[1:]
    return places or None  # we ourselves are somewhere


def _ps(*args: str) -> bytes:
    env = {name.decode(): value.decode() for name, value in system.PS_ENV.items()}
    return subprocess.run(
        (PS, *args), env=env, stdout=subprocess.PIPE, timeout=PS_TIMEOUT, check=False
    ).stdout


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run((SYSCTL, "-n", name), stdout=subprocess.PIPE, timeout=PS_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
