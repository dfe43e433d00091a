"""What the services ask of a placement and of a view. Each has one contract suite for all of its kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from headcount.domain.model import Order, Presence, Process, Run, RunKey, Seen, Started, Worktree
from headcount.domain.postmortem import Changes
from headcount.domain.watchdog import Vitals
from headcount.domain.worktrees import Checkout, Inspection


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """Bytes of a run's output from `offset` (absolute, as the agent wrote them).

    `cut` counts the bytes before `data` that the cap took away since `offset`; `end` is the absolute
    offset behind the last byte that was ever written.
    """

    data: bytes
    offset: int
    cut: int
    end: int


class Placement(Protocol):
    """Starts runners somewhere and says what became of them. Nothing here reads the registry."""

    def self_process(self) -> Process:
        """Return the identity of the calling process, to be stored as the deployer's."""
        ...

    def pid_namespace(self) -> str:
        """Return what tells the pids seen here from those of another container."""
        ...

    def presence(self, process: Process) -> Presence:
        """Say whether exactly this process is alive; another boot or pid namespace is `DEAD` or `UNKNOWN`."""
        ...

    def run_path(self, key: RunKey, *, reserved_at: float) -> str:
        """Return the run directory of a run, existing or not: `runs/<yyyy-mm>/<agent>/<n>` under the home."""
        ...

    def prepare(self, order: Order) -> str:
        """Write the order into a new run directory and mark it in `live/`; return the directory.

        Killed in the middle, a directory without records is left, which `void` settles.

        Raises:
            PlacementFailed: disk full, read-only and the like; what was made is gone again.
        """
        ...

    def start(self, key: RunKey, path: str, *, env: Mapping[str, str], timeout: float) -> Started:
        """Start the runner of a prepared run, detached, and wait until its harness runs.

        Raises:
            PlacementFailed: it did not start, with the reason (no such file, not executable, no such
                directory, lock held); an exit or void record says so too where one could be written.
        """
        ...

    def look(self) -> Sequence[Seen]:
        """Look once at every run that is marked live. Costs what is live, never history."""
        ...

    def look_at(self, key: RunKey, path: str) -> Seen:
        """Look at one run directory, marked or not. A directory that is gone is lock FREE, no records."""
        ...

    def signal_stop(self, key: RunKey, path: str, *, grace: float) -> bool:
        """Ask the runner to end its tree: TERM, `grace` seconds, KILL (0: KILL at once). An agent whose order
        says so gets a SIGINT first, and the TERM after half of the grace, at most 2 s.

        The request is durable before it is sent. Returns whether a runner took it.
        """
        ...

    def reap(self, seen: Seen) -> Sequence[int] | None:
        """Kill, by identity, what a dead runner left of its tree; return the pids that survived.

        None: a second look does not show a dead runner without an exit record, so nothing was done.
        """
        ...

    def remains(self, dead: Iterable[Seen]) -> Mapping[RunKey, Sequence[int]]:
        """Return for each of these runs, whose runners are dead, the pids that are left; kill nothing."""
        ...

    def void(self, key: RunKey, path: str, *, reason: str) -> Seen:
        """Make sure that a run which has not started never will: take its lock, write the void record.

        Returns what is true afterwards: with `void` set, or, when a runner was faster, with its lock
        held or its records. Never waits.
        """
        ...

    def clear(self, key: RunKey) -> Sequence[int]:
        """Kill what carries the mark of a run that has no runner and never will; return what survived."""
        ...

    def unmark(self, key: RunKey) -> None:
        """Take a run out of `live/`; of no effect if it is not there."""
        ...

    def read_output(self, path: str, *, offset: int, limit: int, stream: str = "output") -> OutputSlice:
        """Read output from an absolute byte offset; a negative offset counts from the end.

        `stream` is "output" or "stderr". Works during and after the run.
        """
        ...

    def directories(self) -> Iterator[tuple[RunKey, str]]:
        """Return every run directory there is, by its name alone, with its path. Costs history."""
        ...

    def orders(self) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
        """Return every run directory there is with its `order.json`, None where that cannot be read."""
        ...

    def put_note(self, path: str, name: str, facts: Mapping[str, object]) -> None:
        """Write a note for the driver of a run, durably, unless it or its answer is there.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def note_answer(self, path: str, name: str) -> Mapping[str, Any] | None:
        """Return what the driver says of a note, None as long as it says nothing."""
        ...

    def asks(self, path: str) -> Iterator[Mapping[str, Any]]:
        """Yield what a run asks and is not settled; `answered` says whether somebody has answered it."""
        ...

    def answer_ask(self, path: str, name: str, facts: Mapping[str, object]) -> bool:
        """Answer a question of a run, durably; return False if somebody has done so before.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def ask_outcome(self, path: str, name: str) -> Mapping[str, Any] | None:
        """Return what became of a question of a run, None as long as it stands."""
        ...

    def environment(self, process: Process) -> Mapping[str, str] | None:
        """Return the environment that a process of ours was started with, None if it cannot be had."""
        ...

    def vitals(self, runs: Sequence[Run], *, weigh: Collection[RunKey]) -> Mapping[RunKey, Vitals]:
        """Look once at what these live runs use and write; measure the memory of those in `weigh`, which
        costs more. What cannot be told here is None."""
        ...

    def free_disk_mb(self) -> int:
        """Return the free megabytes where the run directories are."""
        ...

    def free_memory_mb(self) -> int:
        """Return the megabytes that can be had without swapping."""
        ...


class Repositories(Protocol):
    """The git repositories of this machine, and the worktrees that are made in them.

    What changes a worktree takes the `hold` on it that `holding` gave, and has every process that it starts
    inherit that: a hold is free only when nobody works on the worktree any more, dead makers' git included.
    Whatever git refuses, or does not do in time, is raised as `WorktreeFailed`, with git's words.
    """

    def checkout(self, directory: str) -> Checkout:
        """Say where a directory stands in a checkout from which a worktree can be made.

        Raises:
            InvalidInput: no worktree can be made there, with the reason.
        """
        ...

    def holding(self, path: str, *, wait: float) -> AbstractContextManager[int]:
        """Hold the worktree at `path` while the body runs.

        Raises:
            WorktreeFailed: somebody else held it for `wait` seconds (code `worktree_busy`).
        """
        ...

    def make(self, tree: Worktree, hold: int, *, inside: str = "") -> None:
        """Make a worktree with its branch at its base, under the lock of its repository, and in it the
        directory `inside`, if git has nothing there."""
        ...

    def copy(self, tree: Worktree, top: str, names: Iterable[str]) -> None:
        """Copy files that are not in git from a checkout's top; one that is not there is left out.

        Raises:
            InvalidInput: a name leads out of the checkout, or is not that of a file.
        """
        ...

    def set_up(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout: float,
        goes_on: Callable[[], bool],
    ) -> None:
        """Run a command in a new worktree to its end, as long as `goes_on` says so.

        Raises:
            WorktreeFailed: it did not end well; the message has its last lines.
        """
        ...

    def inspect(self, tree: Worktree) -> Inspection:
        """Look at a worktree, or at what is left of it; change nothing.

        Raises:
            WorktreeFailed: it cannot be inspected.
        """
        ...

    def users(self, path: str) -> Sequence[int] | None:
        """Return the processes that have their working directory in there; None: it cannot be told."""
        ...

    def snapshot(self, tree: Worktree, ref: str, hold: int) -> str:
        """Keep all that a worktree has under a new ref, durably: files, staged state, commits.

        Raises:
            WorktreeFailed: something of it cannot be kept.
        """
        ...

    def discard(self, tree: Worktree, *, to: str, tip: str | None, hold: int) -> None:
        """Move a worktree's directory to `to`, have git forget it, and delete its branch if that is at
        `tip` and checked out nowhere. Killed in between, the same call does the rest."""
        ...

    def restore(self, tree: Worktree, hold: int) -> None:
        """Make a worktree that was discarded again, with what its `trash_ref` or `tip` kept."""
        ...

    def diff(self, tree: Worktree, limit: int) -> tuple[bytes, bool]:
        """Return how a worktree differs from its base, new files included, at most `limit` bytes of it, and
        whether that is all."""
        ...

    def changed(self, directory: str, *, since: float, until: float) -> Changes | None:
        """Say which files of a directory's checkout were changed between two moments, committed or not, by
        whomever; None if it is in no checkout."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """One session that the view server has; `agent_id` is None for one that is not a view of ours."""

    name: str
    agent_id: str | None
    created_at: float


class Views(Protocol):
    """Windows onto live runs. Losing one, or all, harms no agent."""

    def available(self) -> str | None:
        """Return None if views can be made, else why not and how to get them."""
        ...

    def list(self) -> Sequence[Session] | None:
        """Return all sessions in one call; an absent server is the empty answer, None means unknown."""
        ...

    def show(
        self, key: RunKey, path: str, *, runner_pid: int, renders: bool, interactive: bool = False
    ) -> None:
        """Make the session of a live run, beside the caller's path: it does not wait for it. In that of an
        `interactive` one, keys are the agent's."""
        ...

    def held_back(self) -> AbstractContextManager[None]:
        """Have the views of other deploys wait while the body runs, a second at most."""
        ...

    def hide(self, name: str) -> None:
        """Close exactly this session, beside the caller's path. One that stays is the next headcount's."""
        ...

    def close(self, name: str) -> bool:
        """Close exactly this session; return whether it is gone."""
        ...

    def shut(self) -> None:
        """End the server with all its sessions. Agents do not notice; the next `show` starts another."""
        ...

    def attach_argv(self, name: str, *, interactive: bool = False) -> Sequence[str]:
        """Return the command that shows the session in the user's terminal."""
        ...
