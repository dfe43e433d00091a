"""Where runners may make cgroups, if they may."""

from __future__ import annotations

import os
from collections.abc import Sequence


def places() -> Sequence[str]:
    """Return directories of the cgroup v2 tree in which a runner may try to make cgroups, best first.

    The top of the tree is for root and for containers; below `user@<uid>.service` a user has what systemd
    delegates. Failing in all of them is normal.
    """
    mount = _mount()
    if mount is None:
        return ()
    found = [mount] if os.access(mount, os.W_OK) else []
    delegated = _delegated(mount)
    if delegated and os.access(f"{delegated}/cgroup.procs", os.W_OK):
        found.append(delegated)
    return [f"{each}/headcount" for each in found]


def is_ours() -> bool:
    """Say whether this process is in a cgroup that was made for a run."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return any(line.startswith("0::") and "/headcount/" in line for line in file)
    except OSError:
        return False


def _mount() -> str | None:
    for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{place}/cgroup.procs") and os.path.exists(f"{place}/cgroup.controllers"):
            return place
    return None


def _delegated(mount: str) -> str | None:
    """Return the cgroup of this user's systemd instance, if this process is inside it."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next((line[3:].strip() for line in file if line.startswith("0::")), "")
    except OSError:
        return None
    service = f"/user@{os.getuid()}.service"
    head, found, _ = own.partition(service)
    return f"{mount}{head}{service}" if found else None
