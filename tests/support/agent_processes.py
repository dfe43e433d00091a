"""The processes of each agent as the machine has them, whatever a registry says: by what is in their
environment, which every process inherits from the agent that started it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_AGENT: Final = re.compile(rb"(?:^|\0)HEADCOUNT_AGENT_ID=([^\0]+)")
_HOME: Final = re.compile(rb"(?:^|\0)HEADCOUNT_HOME=([^\0]+)")


def by_agent(home: Path) -> Mapping[str, list[int]]:
    """Return the living processes of each agent of this home."""
    found: dict[str, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            environ = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue  # gone, or another user's; a zombie's is empty
        agent, where = _AGENT.search(environ), _HOME.search(environ)
        if agent and where and where[1] == os.fsencode(home):
            found[agent[1].decode()].append(int(name))
    return found


def pss_mb(pids: list[int]) -> float:
    """Return what these processes weigh together: their own memory, and their share of what is shared."""
    return sum(map(_pss_kb, pids)) / 1024


def _pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
