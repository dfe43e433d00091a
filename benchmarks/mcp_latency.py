"""What MCP and the daemon cost. Exits 1 if a bound is missed.

    python benchmarks/mcp_latency.py [--agents 100] [--slack 2]

A deploy through the bridge and the daemon beside one through the library; a read beside a bare request over
the same socket; how soon an end is recorded, beside the end of a bare process noticed in the same way; memory
and idle time of the daemon, memory of a bridge. Needs Linux. It touches a scratch directory only.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from headcount import Headcount
from headcount.config import Home
from tests.support.daemons import Bridge, daemon
from tests.support.fleets import fleet, new_task

DEPLOY_MORE_MS = 5.0
NOTICED_MEDIAN_MS = 15.0
NOTICED_P99_MS = 60.0
DAEMON_KB = 100 * 1024
BRIDGE_KB = 20 * 1024
IDLE_SHARE = 0.01
SLEEP = ["/bin/sleep", "600"]


class Bounds:
    """Prints each measurement beside its bound, and remembers whether one was missed."""

    def __init__(self, slack: float) -> None:
        self._slack = slack
        self.missed = False

    def hold(self, what: str, found: float, most: float, unit: str) -> None:
        good = found <= most * self._slack
        self.missed = self.missed or not good
        verdict = "ok" if good else "MISSED"
        print(f"{what:<52} {found:9.2f} {unit:<3} (limit {most * self._slack:.2f})  {verdict}")


def milliseconds(act: Callable[[], object], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


def spread(taken: list[float]) -> str:
    return f"{statistics.median(taken):9.2f} ms, p99 {taken[int(len(taken) * 0.99) - 1]:.2f}"


def bare_request(home: Path) -> None:
    """Ask the daemon's health over the socket: HTTP without MCP, SDK, threads or registry."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.fspath(Home(home).daemon_socket))
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while line.recv(65_536):
            pass


def resident_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def deploys(opened: Headcount, bridge: Bridge, times: int) -> tuple[float, float]:
    """Return the medians of a deploy through the library and through MCP, taken in turns."""
    task = new_task(opened, Path("/tmp"), max_live=1000, max_agents=1000)
    given: dict[str, Any] = {
        "task_id": task,
        "harness": "command",
        "command": SLEEP,
        "allow_duplicate_role": True,
    }

    def by_library() -> None:
        opened.deploy(task, role="library", harness="command", command=SLEEP, allow_duplicate_role=True)

    def by_mcp() -> None:
        bridge.call("deploy_headless_agent", agent_type="mcp", **given)

    by_library()
    by_mcp()
    pairs = [(milliseconds(by_library, 1)[0], milliseconds(by_mcp, 1)[0]) for _ in range(times)]
    return statistics.median(each for each, _ in pairs), statistics.median(each for _, each in pairs)


def bare_ends(times: int) -> list[float]:
    """Return how long after its kill a bare process is noticed through a pidfd."""
    taken = []
    for _ in range(times):
        with subprocess.Popen(SLEEP) as process:
            fd = os.pidfd_open(process.pid)
            began = time.perf_counter()
            process.kill()
            select.select([fd], [], [])
            taken.append((time.perf_counter() - began) * 1000)
            os.close(fd)
    return sorted(taken)


def noticed(opened: Headcount, times: int) -> list[float]:
    """Kill agents one by one; return how long after each is gone its row has ended."""
    taken = []
    for agent in opened.list_agents(limit=500).agents[:times]:
        assert agent.pid is not None
        fd = os.pidfd_open(agent.pid)
        os.kill(agent.pid, signal.SIGKILL)
        select.select([fd], [], [])
        began = time.perf_counter()
        while _is_live(opened, agent.agent_id):
            time.sleep(0.0005)
        taken.append((time.perf_counter() - began) * 1000)
        os.close(fd)
    return sorted(taken)


def _is_live(opened: Headcount, agent_id: str) -> bool:
    with opened.context.registry.read() as tx:
        run = tx.runs.get(agent_id)
    return run is not None and run.live


def idle_share(pid: int, seconds: float) -> float:
    began = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - began) / seconds


def measure(home: Path, agents: int, bounds: Bounds) -> None:
    limits = {"machine_max_live": 2000}
    env = {"HEADCOUNT_MACHINE_MAX_LIVE": "2000", "HEADCOUNT_HEADCOUNT_EVERY": "15"}
    with fleet(home, **limits) as opened, daemon(home, **env) as process, Bridge(home) as bridge:
        bridge.ask("tools/list")
        library, mcp = deploys(opened, bridge, agents // 2)
        print(f"{'deploy through the library':<52} {library:9.2f} ms")
        print(f"{'deploy through MCP':<52} {mcp:9.2f} ms")
        bounds.hold("deploy: MCP more than the library", mcp - library, DEPLOY_MORE_MS, "ms")
        bare = milliseconds(lambda: bare_request(home), 100)
        print(f"{'bare request over the socket':<52} {spread(bare)}")
        reads = milliseconds(lambda: bridge.call("list_tasks"), 200)
        print(f"{'list_tasks through the bridge':<52} {spread(reads)}")
        time.sleep(2)  # the headcount after the deploys
        bounds.hold(
            f"daemon idle with {agents} agents", idle_share(process.pid, 20) * 100, IDLE_SHARE * 100, "%"
        )
        bounds.hold(f"daemon with {agents} agents", resident_kb(process.pid) / 1024, DAEMON_KB / 1024, "MB")
        bounds.hold("bridge", resident_kb(bridge.process.pid) / 1024, BRIDGE_KB / 1024, "MB")
        print(f"{'end of a bare process noticed':<52} {spread(bare_ends(50))}")
        ends = noticed(opened, 100)
        bounds.hold("end of an agent recorded, median", statistics.median(ends), NOTICED_MEDIAN_MS, "ms")
        bounds.hold("end of an agent recorded, p99", ends[int(len(ends) * 0.99) - 1], NOTICED_P99_MS, "ms")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--slack", type=float, default=1.0, help="factor on every limit, 2 in CI")
    asked = parser.parse_args()
    bounds = Bounds(asked.slack)
    with tempfile.TemporaryDirectory(prefix="hcb-", dir="/tmp") as home:
        measure(Path(home), asked.agents, bounds)
    return int(bounds.missed)


if __name__ == "__main__":
    sys.exit(main())
