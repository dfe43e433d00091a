"""The demo's witness: counts processes by itself and compares with the registry, again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from headcount.api import Headcount

PATIENCE: Final = 3.0
"""Seconds in which registry and machine may differ after a kill: one headcount, and no more."""


def alive(pid: int) -> bool:
    """Say whether a process of ours is there and not only waiting to be reaped."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:  # no /proc here: the signal went through, so it is there
        return not os.path.isdir("/proc")
    except (ProcessLookupError, PermissionError):
        return False


@dataclass(slots=True)
class Witness:
    """Every agent that the demo ever saw, and every moment at which the count was wrong for too long."""

    fleet: Headcount
    pids: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    looks: int = 0
    most: int = 0
    _differs_since: float | None = None

    def look(self) -> None:
        """Compare once; a difference that lasts is noted."""
        agents = self.fleet.list_agents(all=True).agents
        self.pids.update({each.agent_id: each.pid for each in agents if each.pid is not None})
        live = {
            each.agent_id for each in agents if each.state in {"running", "stopping"} and each.pid is not None
        }
        self.looks += 1
        self.most = max(self.most, len(live))
        self._judge(set(self._ghosts(live)) | set(self._strays(live)))

    def _ghosts(self, live: Iterable[str]) -> Iterable[str]:
        return (
            f"{name} is live in the registry, its process is not"
            for name in live
            if not alive(self.pids[name])
        )

    def _strays(self, live: Iterable[str]) -> Iterable[str]:
        over = set(self.pids) - set(live)
        return (
            f"{name} is over in the registry, its process is not" for name in over if alive(self.pids[name])
        )

    def _judge(self, differences: set[str]) -> None:
        now = time.monotonic()
        if not differences:
            self._differs_since = None
        elif self._differs_since is None:
            self._differs_since = now
        elif now - self._differs_since > PATIENCE:
            self.wrong += sorted(differences - set(self.wrong))

    def settle(self) -> bool:
        """Wait until the count is right; return whether it became so in time."""
        deadline = time.monotonic() + PATIENCE + 1
        while time.monotonic() < deadline:
            self.look()
            if self._differs_since is None and self.fleet.registry_health_check().healthy:
                return True
            time.sleep(0.05)
        problems = self.fleet.registry_health_check()
        self.wrong.append(f"at the end: {problems.ghosts + problems.strays + problems.unfinished}")
        return False
