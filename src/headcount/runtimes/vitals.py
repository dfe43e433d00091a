"""What a look at the machine shows of live runs: who is halted, what they use and write."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headcount.domain.model import Process, Run, RunKey
from headcount.domain.watchdog import Vitals
from headcount.runtimes import output, system

HALTED: Final = frozenset({"T", "t"})
DEAD: Final = frozenset({"Z", "X"})
KB: Final = 1024
MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the process table. `waited_s`: of children that have ended and were waited for."""

    pid: int
    ppid: int
    state: str
    ticks: int
    cpu_s: float
    waited_s: float


def measure(runs: Sequence[Run], *, weigh: Collection[RunKey], proc: bool) -> Mapping[RunKey, Vitals]:
    """Look once at the process table and at the output of these runs; weigh the memory of some of them."""
    table = _table() if proc else {}
    children: dict[int, list[int]] = {}
    for line in table.values():
        children.setdefault(line.ppid, []).append(line.pid)
    runners = {run.runner.pid for run in runs if run.runner}
    uptime = _uptime()
    found = {}
    for run in runs:
        tree = _tree(run, table, children, spared=runners | {os.getpid()})
        found[run.key] = _vitals(run, table, tree, uptime, weigh=run.key in weigh)
    return found


def _vitals(run: Run, table: Mapping[int, Line], tree: list[Line], uptime: float, *, weigh: bool) -> Vitals:
    written, at = _output(run.path)
    if not table:
        return Vitals(output=written, written_at=at)
    own = _same(table, run.process)
    runner = _same(table, run.runner)
    return Vitals(
        alive=own is not None and own.state not in DEAD,
        halted=own is not None and own.state in HALTED,
        processes=len(tree),
        cpu_s=sum(each.cpu_s + each.waited_s for each in tree) + (runner.waited_s if runner else 0.0),
        memory_mb=_memory(each.pid for each in tree) if weigh else None,
        age_s=None if own is None else max(0.0, uptime - own.ticks / _HZ),
        output=written,
        written_at=at,
    )


def _same(table: Mapping[int, Line], process: Process | None) -> Line | None:
    """Return the line of exactly this process."""
    line = table.get(process.pid) if process else None
    return line if line and process and system.same(line.ticks, process.ticks) else None


def _tree(
    run: Run, table: Mapping[int, Line], children: Mapping[int, list[int]], *, spared: Collection[int]
) -> list[Line]:
    """Return the living processes of a run: what is below its runner, to which orphans come."""
    runner = _same(table, run.runner)
    queue = list(children.get(runner.pid, ())) if runner else []
    found: dict[int, Line] = {}
    while queue:
        pid = queue.pop()
        if pid in found or pid in spared or pid not in table:
            continue
        found[pid] = table[pid]
        queue += children.get(pid, ())
    return [each for each in found.values() if each.state not in DEAD]


def _table() -> dict[int, Line]:
    """Return the process table from /proc; empty where there is none."""
    table = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return {}
    for name in names:
        try:
            line = _parse(int(name), system.read_file(b"/proc/%s/stat" % name.encode()))
        except OSError:
            continue  # it has ended, or is another user's where /proc hides those
        table[line.pid] = line
    return table


def _parse(pid: int, raw: bytes) -> Line:
    words = raw[raw.rindex(b")") + 2 :].split()
    used = [int(word) / _HZ for word in words[11:15]]
    return Line(
        pid,
        ppid=int(words[1]),
        state=words[0].decode(),
        ticks=int(words[19]),
        cpu_s=used[0] + used[1],
        waited_s=used[2] + used[3],
    )


def _uptime() -> float:
    try:
        with open("/proc/uptime", encoding="utf-8") as file:
            return float(file.read().split()[0])
    except OSError:
        return 0.0


def _memory(pids: Iterable[int]) -> float | None:
    """Return the megabytes that processes have of their own, with their share of what they have in common."""
    total, told = 0, False
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
                total += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
                told = True
        except OSError:
            continue  # it has ended meanwhile
    return total * KB / MB if told else None


def _output(path: str) -> tuple[int, float | None]:
    """Return how many bytes of both streams were written, and when the last."""
    written, latest = 0, None
    for stream in ("output", "stderr"):
        parts = output.segments(path, stream)
        if not parts:
            continue
        written += max(each.end for each in parts)
        try:
            at = os.stat(parts[-1].path).st_mtime if parts[-1].end else None
        except OSError:
            continue
        latest = max(filter(None, (latest, at)), default=None)
    return written, latest


_HZ: Final = os.sysconf("SC_CLK_TCK")
