"""Whether we may do as much as another process: what runs in an agent's tree may be in a sandbox."""

from __future__ import annotations

import os
from typing import Final

NAMESPACES: Final = ("mnt", "net", "pid", "user", "ipc", "uts")
RIGHTS: Final = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapEff", "CapBnd")
"""Lines of /proc/PID/status. Landlock is not there, but whoever takes it on has NoNewPrivs or is root."""


def is_free_as(pid: int) -> bool:
    """Say whether we have the namespaces and rights of that process; False where the system does not tell."""
    try:
        return _bounds("self") == _bounds(str(pid))
    except OSError:
        return False


def _bounds(who: str) -> tuple[object, ...]:
    with open(f"/proc/{who}/status", encoding="utf-8", errors="replace") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    rights = tuple(lines.get(name) for name in RIGHTS)
    return (rights, *(os.readlink(f"/proc/{who}/ns/{name}") for name in NAMESPACES))
