"""Ends what a dead runner left of its tree, by identity.

The layers, each for what escapes the one before: the run's cgroup, the agent by pid and start time, its
session and process group, processes that carry exactly this run's mark in their environment, and everything
below any of these. Whoever holds the daemon's lock or the lock of a live run is spared, with all below it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Final

from headcount.domain.model import RunKey, StartRecord
from headcount.runtimes import system
from headcount.runtimes.process import ProcessTable

BOUND: Final = 3.0
"""Seconds after which what is left is reported as surviving."""
PAUSE: Final = 0.005
QUIET_LOOKS: Final = 2
"""A process that was forked during the look, by one that then ended, is in neither place."""
QUIET_MOST: Final = 8
"""Each round that found something asks for one more quiet look: what forks hides between two of them."""
PATIENCE: Final = 2
"""Rounds after which whatever is left must be forking faster than we look."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at all processes: the table, whom to spare, and our variables in their environments."""

    table: Mapping[int, system.Proc]
    spared: AbstractSet[int]
    marks: Mapping[int, Mapping[bytes, bytes]]


class Reaper:
    """Kills the trees of runs of one home."""

    _kept: ClassVar[dict[tuple[int, int], int]] = {}  # open lock files of daemons, by device and inode

    def __init__(self, home: str, table: ProcessTable, own_locks: AbstractContextManager[object]) -> None:
        self._home = os.fsencode(home)
        self._table = table
        self._own_locks = own_locks

    def reap(self, key: RunKey, start: StartRecord) -> tuple[int, ...]:
        """Kill what is left of a run whose runner is dead; return the pids that survived.

        Processes of another boot or pid namespace are none of ours: nothing is done.
        """
        if start.process.boot_id != self._table.boot_id or start.pidns != self._table.pid_namespace:
            return ()
        until = time.monotonic() + BOUND
        strikes = quiet = 0
        while quiet < min(QUIET_LOOKS + strikes, QUIET_MOST):
            sight = self._sight()
            left = self._tree(key, start, sight)
            inside = self._cgroup(start) - sight.spared
            if time.monotonic() > until:
                return tuple(sorted(left))
            if left or inside:
                strikes, quiet = strikes + 1, 0
                self._strike(left, start, sight, by_group=strikes > PATIENCE)
            else:
                quiet += 1
            time.sleep(PAUSE)
        if start.cgroup:
            system.remove_cgroup(os.fsencode(start.cgroup))
        return ()

    def marked(self) -> dict[int, RunKey]:
        """Return every process that carries the mark of a run of this home."""
        table = self._own(self._table.all())
        found = {}
        for pid, env in self._table.environments(table).items():
            number = env.get(b"HEADCOUNT_RUN", b"")
            if env.get(b"HEADCOUNT_HOME") == self._home and number.isdigit():
                found[pid] = RunKey(os.fsdecode(env.get(b"HEADCOUNT_AGENT_ID", b"")), int(number))
        return found

    def remains(self, dead: Iterable[tuple[RunKey, StartRecord]]) -> dict[RunKey, tuple[int, ...]]:
        """Return the pids that are left of runs whose runners are dead; kill nothing. Looks once for all."""
        sight = self._sight()
        return {key: tuple(sorted(self._tree(key, start, sight))) for key, start in dead}

    def _sight(self) -> Sight:
        """Look at the processes of this machine."""
        table = self._table.all()
        with self._own_locks:
            spared = system.lock_holders(self._home) | {pid for pid in table if system.is_runner(pid)}
        spared |= {self._daemon()} & set(table)
        spared |= set(system.below(table, spared, ())) | {os.getpid()}
        return Sight(table, frozenset(spared), self._table.environments(self._own(table)))

    def _daemon(self) -> int:
        """Return the pid of the daemon, -1 if there is none.

        Its lock may be our own: so the file, once open, is never closed, for that would drop the lock.
        """
        path = os.path.join(os.fsdecode(self._home), "daemon.lock")
        try:
            is_now = system.identity(os.stat(path))
            if is_now not in self._kept:
                self._kept[is_now] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            found = system.holder_of(self._kept[is_now])
        except OSError:
            return -1
        return -1 if found is None else found

    def _tree(self, key: RunKey, start: StartRecord, sight: Sight) -> Mapping[int, int]:
        """Return pid and start ticks of every living process of the run."""
        table, spared, marks = sight.table, sight.spared, sight.marks
        foreign = {
            pid for pid, env in marks.items() if not self._is_mark(env, key) and b"HEADCOUNT_RUN" in env
        }
        roots = {pid for pid, env in marks.items() if self._is_mark(env, key)}
        roots |= system.session(table, start.process.pid, start.process.ticks) | self._cgroup(start)
        roots -= spared | foreign
        tree = roots | set(system.below(table, roots, spared | foreign))
        return {pid: table[pid].ticks for pid in tree if pid in table and not table[pid].dead}

    def _is_mark(self, env: Mapping[bytes, bytes], key: RunKey) -> bool:
        return (
            env.get(b"HEADCOUNT_AGENT_ID") == os.fsencode(key.agent_id)
            and env.get(b"HEADCOUNT_RUN") == b"%d" % key.n
            and env.get(b"HEADCOUNT_HOME") == self._home
        )

    @staticmethod
    def _cgroup(start: StartRecord) -> AbstractSet[int]:
        return set(system.cgroup_members(os.fsencode(start.cgroup))) if start.cgroup else frozenset()

    def _own(self, table: Mapping[int, system.Proc]) -> dict[int, system.Proc]:
        """Return the processes of this user; without /proc, `ps` shows us no others' environments anyway."""
        if not self._table.proc:
            return dict(table)
        uid = os.getuid()
        found = {}
        for pid, each in table.items():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}").st_uid == uid:
                    found[pid] = each
        return found

    def _strike(self, left: Mapping[int, int], start: StartRecord, sight: Sight, *, by_group: bool) -> None:
        if start.cgroup and not self._cgroup(start) & sight.spared:
            system.write_small(os.fsencode(start.cgroup) + b"/cgroup.kill", b"1")
        if by_group:
            for group in _own_groups(left, sight.table):
                with contextlib.suppress(OSError):
                    os.killpg(group, signal.SIGKILL)  # those forked since the look included
        for pid, ticks in left.items():
            with contextlib.suppress(OSError):
                self._kill(pid, ticks)

    def _kill(self, pid: int, ticks: int) -> None:
        """Kill the process that has this pid and start time, and no other."""
        if not self._table.proc:
            os.kill(pid, signal.SIGKILL)  # seen a moment ago; asking `ps` again for each would take longer
            return
        fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        try:
            found = self._table.find(pid)
            if found is None or not system.same(found.ticks, ticks):
                return
            if fd is None:
                os.kill(pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            if fd is not None:
                os.close(fd)


def _own_groups(left: Mapping[int, int], table: Mapping[int, system.Proc]) -> AbstractSet[int]:
    """Return the process groups of which every member is to be killed."""
    groups = {table[pid].pgid for pid in left}
    return groups - {each.pgid for pid, each in table.items() if pid not in left and not each.dead} - {0, 1}
