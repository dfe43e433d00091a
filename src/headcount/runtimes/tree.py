"""Finds and ends the processes of one run, from inside its runner.

Part of the runner's compiled copy (see `program`), so it imports nothing but built-in modules.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without its enums
import posix

from headcount.runtimes import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PATIENCE = 2  # rounds of killing after which whatever is left must be forking


class Tree:
    """The processes of a run.

    Where orphans come to us (`adopts`) the walk from us downwards misses nothing. Elsewhere the whole
    process table is swept: for what is below us or below what was seen before, in the agent's session or
    group, or marked as of this run in its environment. What has left all of these is missed.

    Who holds the daemon's lock or that of another run was started inside the tree but is not of it.
    """

    def __init__(
        self, agent: int, ticks: int, home: bytes, *, lock: tuple[int, int], adopts: bool, proc: bool
    ) -> None:
        self.agent = agent
        self.ticks = ticks
        self.home = home
        self.lock = lock
        self.adopts = adopts
        self.proc = proc
        self.mark: Mapping[bytes, bytes] = {}
        self.me = posix.getpid()
        self.known: dict[int, int] = {}  # pid and ticks of what sweeps found
        self.childless = False  # nothing is left: every orphan would have come to us
        self.strikes = 0

    def living(self) -> list[int]:
        """Return the living processes of the run."""
        if self.childless:
            return []
        spared = self._others()
        if self.adopts and self.proc:
            try:
                # twice: an orphan that came to us during the first walk was not where we looked
                return self._walk(spared) or self._walk(spared)
            except FileNotFoundError:
                pass  # a kernel without /proc/PID/task/TID/children
        return self._sweep(spared)

    def interrupt(self) -> None:
        """Ask the agent itself, which nobody has waited for yet, to break off as its user would."""
        send(self.agent, _signal.SIGINT)
        send(self.agent, _signal.SIGCONT)

    def terminate(self) -> None:
        """Ask all of it to end; one that is stopped cannot act on it before it goes on."""
        for pid in self.living():
            send(pid, _signal.SIGTERM)
            send(pid, _signal.SIGCONT)

    def kill(self, left: Collection[int], leaf: bytes | None) -> None:
        """Kill what is there; where that has not done, stop all of it first, so that it cannot fork."""
        self.strikes += 1
        if leaf and not self._spared_in(leaf):
            system.write_small(leaf + b"/cgroup.kill", b"1")
        if self.strikes > PATIENCE:
            for pid in left:
                send(pid, _signal.SIGSTOP)
            left = self.living()
        for pid in left:
            send(pid, _signal.SIGKILL)

    def _others(self) -> set[int]:
        """Return whom to spare."""
        if not self.home:
            return set()
        holders = system.lock_holders(self.home, self.lock)
        try:
            holders.add(system.lock_holder(self.home + b"/daemon.lock") or 0)
        except OSError:
            pass  # it cannot be told; whoever it is will be started again
        return holders - {0, -1}

    def _spared_in(self, leaf: bytes) -> bool:
        spared = self._others()
        return any(pid in spared or system.is_runner(pid, self.lock) for pid in system.cgroup_members(leaf))

    def _walk(self, spared: Collection[int]) -> list[int]:
        found: list[int] = []
        queue = system.proc_children(self.me)
        while queue:
            pid = queue.pop()
            if pid in spared or system.is_runner(pid, self.lock):
                continue
            try:
                state = system.proc_stat(pid)
                if state is not None and not state.dead:
                    found.append(pid)
                queue += system.proc_children(pid)
            except OSError:
                continue  # it ended meanwhile, and its children come to us; or it is another user's
        return found

    def _sweep(self, spared: set[int]) -> list[int]:
        try:
            table = system.proc_table() if self.proc else system.ps_table()
        except OSError:  # no process is left for `ps`, perhaps because of ours
            return list(self.known) or [self.agent]
        spared |= {pid for pid in table if self.proc and system.is_runner(pid, self.lock)}
        known = {
            pid for pid, ticks in self.known.items() if pid in table and system.same(table[pid].ticks, ticks)
        }
        roots = known | system.session(table, self.agent, self.ticks) | {self.agent, self.me}
        if not self.adopts and self.mark:
            marks = system.proc_environments(table) if self.proc else system.ps_environments()
            roots |= {pid for pid, env in marks.items() if self.mark.items() <= env.items()}
        roots -= spared
        found = set(system.below(table, roots, spared)) | roots
        living = [pid for pid in found if pid != self.me and pid in table and not table[pid].dead]
        self.known = {pid: table[pid].ticks for pid in living}
        return living


def send(pid: int, signal: int) -> None:
    """Signal a process of the tree, if it is still there and ours."""
    try:
        posix.kill(pid, signal)
    except OSError:
        pass  # gone, or another user's: the next look at the tree tells
