"""Find, and end, whatever a test left behind: processes, and sockets that still listen."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from headcount.runtimes import cgroup

PATIENCE = 5.0
"""Seconds that what is on its way out (a view, a runner writing its record) may take to be gone."""

_OWN_TOOLS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python starts these once for a process and keeps them until it exits."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process that should be gone; `ticks` tells it from a later one with the same pid."""

    pid: int
    ticks: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid}: {self.command}"


def processes_under(root: Path, *, spare: Collection[int] = ()) -> list[Leftover]:
    """Return the processes that have `root` in their environment, arguments or working directory.

    The caller and its ancestors are not among them, nor are those in `spare`.
    """
    mark = re.compile(re.escape(os.fsencode(root)) + rb"(?![A-Za-z0-9_.-])")
    spared = _ancestry(os.getpid()) | set(spare)
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit()) if os.path.isdir("/proc") else ()
    found = [_leftover(pid) for pid in pids if pid not in spared and _bears(pid, mark)]
    return [each for each in found if each is not None]


def children_of(pid: int) -> list[Leftover]:
    """Return the living children of `pid`, without the helpers that Python itself keeps."""
    pids: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += map(int, _read(path).split())
    found = (_leftover(child) for child in pids)
    return [each for each in found if each and not any(tool in each.command for tool in _OWN_TOOLS)]


def sockets_under(root: Path) -> list[str]:
    """Return the paths of the Unix sockets below `root` that some process still has open."""
    lines = _read(Path("/proc/net/unix")).decode(errors="replace").splitlines()
    return sorted({line.split()[-1] for line in lines if f" {root}/" in line})


def unmount(root: Path) -> list[str]:
    """Unmount what a test that died had mounted below `root`; return the places."""
    lines = _read(Path("/proc/self/mounts")).decode(errors="replace").splitlines()
    places = [place for place in (line.split()[1] for line in lines) if place.startswith(f"{root}/")]
    for place in reversed(places):
        subprocess.run(["umount", "--lazy", place], capture_output=True, timeout=10, check=False)
    return [f"mount {place}" for place in places]


def await_none(root: Path, *, patience: float = PATIENCE) -> list[Leftover]:
    """Wait until no process of `root` is left; return those that are after `patience` seconds."""
    deadline = time.monotonic() + patience
    while left := processes_under(root):
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def remove_cgroups(home: Path) -> None:
    """Remove the empty cgroups of runs of `home`: those of runners that a test killed with all else."""
    tag = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:12]
    for place in cgroup.places():
        for leaf in Path(place).glob(f"*-{tag}"):
            with contextlib.suppress(OSError):
                leaf.rmdir()


def end_all(root: Path) -> list[Leftover]:
    """Kill the processes of `root` until there are none; return those that were killed.

    For the end of a test whose subject is that something survives.
    """
    killed: dict[int, Leftover] = {}
    deadline = time.monotonic() + PATIENCE
    while (left := processes_under(root)) and time.monotonic() < deadline:
        for each in left:
            killed[each.pid] = each
            _kill(each)
        time.sleep(0.02)
    return list(killed.values())


def _kill(leftover: Leftover) -> None:
    """Kill exactly this process: the start time is compared after the pidfd has pinned the pid."""
    try:
        pidfd = os.pidfd_open(leftover.pid)
    except ProcessLookupError:
        return
    try:
        if _ticks(leftover.pid) == leftover.ticks:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _bears(pid: int, mark: re.Pattern[bytes]) -> bool:
    proc = Path(f"/proc/{pid}")
    if mark.search(_read(proc / "environ")) or mark.search(_read(proc / "cmdline")):
        return True
    try:
        return mark.match(os.fsencode(os.readlink(proc / "cwd"))) is not None
    except OSError:
        return False


def _leftover(pid: int) -> Leftover | None:
    """Return the process, or None if it is gone or a zombie, which only waits for its parent."""
    ticks = _ticks(pid)
    command = _read(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode(errors="replace").strip()
    return Leftover(pid, ticks, command or "?") if ticks is not None else None


def _ticks(pid: int) -> int | None:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(fields[19]) if fields and fields[0] not in {b"Z", b"X"} else None


def _ancestry(pid: int) -> set[int]:
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        seen.add(pid)
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
        pid = int(fields[1]) if fields else 0
    return seen


def _read(path: Path) -> bytes:
    """Return the file's bytes; a process that is gone, or another user's, has none for us."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
