"""Local placement: runs live on this machine, each under a runner of its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from headcount.config import Home
from headcount.domain.errors import PlacementFailed
from headcount.domain.model import (
    ExitRecord,
    LockState,
    Order,
    Presence,
    Process,
    Run,
    RunKey,
    Seen,
    Started,
    StartRecord,
    VoidRecord,
)
from headcount.domain.watchdog import Vitals
from headcount.runtimes import asks, cgroup, inbox, output, program, records, system
from headcount.runtimes.base import OutputSlice
from headcount.runtimes.gate import gate
from headcount.runtimes.process import ProcessTable
from headcount.runtimes.reaper import Reaper

_MARK: Final = re.compile(r"(?P<agent>[A-Za-z][A-Za-z0-9_-]*)\.(?P<n>[0-9]+)", re.ASCII)
_KEEP_STARTS: Final = 4096
_NEVER: Final = 1 << 62
"""Ticks after the boot at which no process has begun."""


class LocalPlacement:
    """Starts runners on this machine and says what became of them.

    `without` turns capabilities of the system off, as on a system that lacks them: proc, prctl, cgroup.
    `runner_env` is what the runner's own Python needs to start, usually nothing.
    """

    # of the process, not of one placement: who starts a runner is its parent until one of both ends
    _guard: ClassVar = threading.Lock()
    _children: ClassVar[set[int]] = set()

    # without open file description locks, looking at a file drops a lock that this process has on it
    _own_locks: ClassVar[contextlib.AbstractContextManager[object]] = (
        contextlib.nullcontext() if hasattr(fcntl, "F_OFD_SETLK") else threading.Lock()
    )

    def __init__(
        self,
        home: Home,
        *,
        without: frozenset[str] = frozenset(),
        runner_env: Mapping[str, str] | None = None,
    ) -> None:
        self._root = str(home.root)
        self._live = str(home.live)
        self._runs = str(home.runs)
        self._cache = str(home.cache)
        self._gates = str(home.gates)
        self._without = without
        self._runner_env = dict(runner_env or {})
        self._table = ProcessTable(without)
        self._reaper = Reaper(self._root, self._table, self._own_locks)
        self._tag = hashlib.sha256(os.fsencode(os.path.realpath(self._root))).hexdigest()[:12]
        self._starts: dict[str, StartRecord] = {}
        self._width = max(2, os.cpu_count() or 1)
        self._cgroups = () if "cgroup" in without else cgroup.places()

    # processes

    def self_process(self) -> Process:
        found = self._table.identify(os.getpid())
        if found is None:
            raise PlacementFailed("this process cannot be found in the process table")
        return found

    def pid_namespace(self) -> str:
        return self._table.pid_namespace

    def presence(self, process: Process) -> Presence:
        return self._table.presence(process)

    def marked(self) -> Mapping[int, RunKey]:
        """Return the processes that carry the mark of a run of this home in their environment."""
        return self._reaper.marked()

    # deploying

    def run_path(self, key: RunKey, *, reserved_at: float) -> str:
        month = datetime.fromtimestamp(reserved_at, UTC).strftime("%Y-%m")
        return f"{self._runs}/{month}/{key.agent_id}/{key.n}"

    def prepare(self, order: Order) -> str:
        path = self.run_path(order.key, reserved_at=order.reserved_at)
        made = False
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.mkdir(path, 0o700)
            made = True
            self._fill(path, order)
            self._mark(order.key, path)
        except (OSError, ValueError) as error:
            if made:
                self._undo(order.key, path)
            raise PlacementFailed(
                f"the run directory {path} cannot be made: {error}", hint="see `headcount doctor`"
            ) from error
        return path

    def _fill(self, path: str, order: Order) -> None:
        if order.stdin is not None:
            _write(f"{path}/prompt", order.stdin)
        for name, content in order.files.items():
            _check_inside(name)
            os.makedirs(os.path.dirname(f"{path}/{name}"), mode=0o700, exist_ok=True)
            _write(f"{path}/{name}", content)
        os.mkfifo(f"{path}/control", 0o600)
        text = json.dumps(records.order_object(order))  # ASCII: an argument may be any bytes
        # in place, because nobody reads it before the mark is made
        _write(f"{path}/{records.ORDER}", text.encode("ascii"), durably=True)
        _sync_dir(path)

    def _mark(self, key: RunKey, path: str) -> None:
        os.makedirs(self._live, mode=0o700, exist_ok=True)
        os.symlink(os.path.relpath(path, self._live), f"{self._live}/{key}")

    def _undo(self, key: RunKey, path: str) -> None:
        """Take away what `prepare` made; the directory is ours alone, nobody was told of it."""
        self.unmark(key)
        with contextlib.suppress(OSError):
            for folder, _folders, names in os.walk(path, topdown=False):
                for name in names:
                    os.unlink(f"{folder}/{name}")
                os.rmdir(folder)
            os.rmdir(os.path.dirname(path))

    def start(self, key: RunKey, path: str, *, env: Mapping[str, str], timeout: float) -> Started:
        self._collect()
        until = time.monotonic() + timeout
        try:
            message = self._message(path, env)
            argv = (program.interpreter(), "-I", "-S", program.compiled_runner(self._cache), path)
            with gate(self._gates, self._width, timeout / 2):
                said = self._ask(argv, message, until)
        except (OSError, ValueError, records.Unreadable) as error:
            raise PlacementFailed(f"{key} cannot be started: {error}") from error
        word, _, rest = said.rpartition("\n")[2].partition(" ")
        if word == "started":
            runner_pid, runner_ticks, pid, ticks, started_at = rest.split()
            boot = self._table.boot_id
            return Started(
                Process(int(runner_pid), int(runner_ticks), boot),
                Process(int(pid), int(ticks), boot),
                float(started_at),
            )
        if word in ("failed", "refused"):
            raise PlacementFailed(f"{key} was not started: {rest}")
        self._clear_up(key, path)
        raise PlacementFailed(
            f"{key} was not started: its runner ended or hung without an answer {said[-500:]}".strip()
        )

    def _message(self, path: str, env: Mapping[str, str]) -> bytes:
        """Return the order of a run directory as the runner reads it from its pipe."""
        order = records.read_order(path)
        if order is None:
            raise ValueError(f"{path} has no order")
        fields: list[tuple[bytes, bytes]] = [(b"arg", os.fsencode(arg)) for arg in order.argv]
        fields += [(b"env", os.fsencode(f"{name}={value}")) for name, value in env.items()]
        fields += [(b"without", name.encode()) for name in sorted(self._without)]
        fields += [(b"cgroup", os.fsencode(base)) for base in self._cgroups]
        if os.path.exists(f"{path}/prompt"):
            fields.append((b"prompt", b""))
        if order.interrupts:
            fields.append((b"interrupt", b""))
        fields += [
            (b"cwd", os.fsencode(order.cwd)),
            (b"grace_ms", b"%d" % round(order.grace * 1000)),
            (b"cap", b"%d" % order.output_cap),
            (b"boot", self._table.boot_id.encode()),
            (b"home", os.fsencode(self._root)),
            (b"leaf", os.fsencode(self._leaf(order.key))),
            (b"end", b""),
        ]
        parts = [part for pair in fields for part in pair]
        if any(b"\0" in part for part in parts):
            raise ValueError("an argument or variable contains a NUL character")
        return b"\0".join(parts) + b"\0"

    def _ask(self, argv: Sequence[str], message: bytes, until: float) -> str:
        """Start a runner, hand it the order and return what it says; without an answer it is killed."""
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=argv[-1],
            env=self._runner_env,
            start_new_session=True,
        )
        process.returncode = 0  # we wait for it ourselves; Popen would warn that it still runs
        assert process.stdin is not None
        assert process.stdout is not None
        said = ""
        try:
            with process.stdin, process.stdout:
                # both here and now, because they take the kernel milliseconds (the cgroup a grace period of
                # its own) in which the runner's Python starts
                _sync_dir(self._live)
                if system.set_apart(map(os.fsencode, self._cgroups), process.pid):
                    message = b"apart\0\0" + message
                said = _converse(process.stdin.fileno(), process.stdout.fileno(), message, until)
        finally:
            if said.endswith("\n"):
                with self._guard:
                    self._children.add(process.pid)
            else:
                _end(process.pid)
        return said.removesuffix("\n")

    def _clear_up(self, key: RunKey, path: str) -> None:
        """End what a runner that hung may have begun."""
        seen = self.look_at(key, path)
        if seen.lock is LockState.FREE and seen.start and not seen.exit:
            self.reap(seen)

    def _collect(self) -> None:
        """Wait for runners that this process started and that have ended, so that none stays a zombie."""
        with self._guard:
            for pid in tuple(self._children):
                try:
                    ended, _ = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    ended = pid  # somebody else in this process has waited for it
                if ended:
                    self._children.discard(pid)

    # looking

    def look(self) -> Sequence[Seen]:
        self._collect()
        try:
            names = os.listdir(self._live)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise PlacementFailed(
                f"{self._live} cannot be read: {error.strerror}", code="look_failed"
            ) from error
        seen = [
            self._see(RunKey(match["agent"], int(match["n"])), path, marked=True)
            for name in names
            if (match := _MARK.fullmatch(name)) and (path := self._target(name))
        ]
        self._forget({each.path for each in seen})
        return seen

    def look_at(self, key: RunKey, path: str) -> Seen:
        return self._see(key, path, marked=os.path.lexists(f"{self._live}/{key}"))

    def _target(self, name: str) -> str | None:
        try:
            return os.path.normpath(os.path.join(self._live, os.readlink(f"{self._live}/{name}")))
        except OSError:
            return None  # unmarked meanwhile, or not one of our links

    def _see(self, key: RunKey, path: str, *, marked: bool) -> Seen:
        """Look at one run. A lock that is free beside a record is probed again: when it was probed first,
        the runner may not have begun."""
        try:
            lock, pid = self._probe(path)
        except OSError as error:
            return Seen(
                key, path, LockState.UNKNOWN, marked=marked, error=f"the lock cannot be probed: {error}"
            )
        try:
            start, exited, void = self._records(path)
            if lock is LockState.FREE and (start or exited):
                lock, pid = self._probe(path)
                exited = records.read_exit(path)
        except (OSError, records.Unreadable) as error:
            # what is there and cannot be understood is not nothing
            unsure = LockState.HELD if lock is LockState.HELD else LockState.UNKNOWN
            return Seen(key, path, unsure, pid, marked=marked, error=str(error))
        deployer = Presence.UNKNOWN
        if not (start or exited or void):
            deployer = self._deployer(path)
        return Seen(key, path, lock, pid, start, exited, void, deployer, marked)

    def _probe(self, path: str) -> tuple[LockState, int | None]:
        with self._own_locks:
            holder = system.lock_holder(f"{path}/lock")
        if holder is None:
            return LockState.FREE, None
        return LockState.HELD, holder if holder > 0 else None

    def _records(self, path: str) -> tuple[StartRecord | None, ExitRecord | None, VoidRecord | None]:
        start = self._starts.get(path)
        if start is None:
            try:
                start = records.read_start(path)
            except records.Unreadable:
                start = self._start_before_a_power_cut(path)
            if start is not None and len(self._starts) < _KEEP_STARTS:
                self._starts[path] = start  # it never changes
        return start, records.read_exit(path), None if start else records.read_void(path)

    def _start_before_a_power_cut(self, path: str) -> StartRecord:
        """A start record is not synced, so after a power cut it may be empty; the order then tells that it
        is of an earlier boot, of which nothing can be left."""
        deployer = records.read_deployer(path)
        if deployer is None or deployer.boot_id == self._table.boot_id:
            raise records.Unreadable(f"{path}/{records.START} is damaged")
        nobody = Process(0, 0, deployer.boot_id)
        return StartRecord(nobody, nobody, "", 0.0, (), None)

    def _forget(self, live: AbstractSet[str]) -> None:
        for path in [path for path in self._starts if path not in live]:
            self._starts.pop(path, None)

    def _deployer(self, path: str) -> Presence:
        try:
            deployer = records.read_deployer(path)
        except records.Unreadable:
            return Presence.UNKNOWN
        return Presence.UNKNOWN if deployer is None else self.presence(deployer)

    # ending

    def signal_stop(self, key: RunKey, path: str, *, grace: float) -> bool:
        line = b"stop %d\n" % round(max(grace, 0.0) * 1000)
        with contextlib.suppress(OSError):  # a full disk must not keep us from the pipe, which needs no space
            _write_durably(path, "stop", line)
        try:
            fd = os.open(f"{path}/control", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return False  # ENXIO: nobody reads
        try:
            os.write(fd, line)
        except BlockingIOError:
            pass  # full of requests: the runner has enough to read, and the stop file
        except OSError:
            return False
        finally:
            os.close(fd)
        self._wake(path)
        return True

    def _wake(self, path: str) -> None:
        """Let a runner that somebody has stopped (SIGSTOP) go on, or it could not act on a request."""
        with contextlib.suppress(OSError):
            _, pid = self._probe(path)
            if pid is not None:
                os.kill(pid, signal.SIGCONT)

    def reap(self, seen: Seen) -> Sequence[int] | None:
        again = self.look_at(seen.key, seen.path)
        if again.lock is not LockState.FREE or again.exit or again.start is None:
            return None
        return self._reaper.reap(seen.key, again.start)

    def remains(self, dead: Iterable[Seen]) -> Mapping[RunKey, Sequence[int]]:
        started = [(seen.key, seen.start) for seen in dead if seen.start]
        return self._reaper.remains(started) if started else {}

    def void(self, key: RunKey, path: str, *, reason: str) -> Seen:
        if not os.path.isdir(path):
            gone = VoidRecord("the run directory is gone", time.time())
            return replace(self.look_at(key, path), void=gone)
        with contextlib.suppress(OSError), self._own_locks, _locked(f"{path}/lock") as taken:
            if taken and not any(
                os.path.lexists(f"{path}/{name}") for name in (records.START, records.EXIT, records.VOID)
            ):
                record = {"format": records.FORMAT, "reason": reason, "at": time.time()}
                _write_durably(path, records.VOID, json.dumps(record).encode())
        return self.look_at(key, path)

    def clear(self, key: RunKey) -> Sequence[int]:
        nobody = Process(-1, _NEVER, self._table.boot_id)
        return self._reaper.reap(key, StartRecord(nobody, nobody, self._table.pid_namespace, 0.0, (), None))

    def unmark(self, key: RunKey) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._live}/{key}")
        for base in self._cgroups:
            with contextlib.suppress(OSError):
                os.rmdir(f"{base}/{self._leaf(key)}")  # of a runner that was killed before it could say so

    def _leaf(self, key: RunKey) -> str:
        """Return the name of a run's cgroup, which no run of another home has."""
        return f"{key}-{self._tag}"

    # reading

    def read_output(self, path: str, *, offset: int, limit: int, stream: str = "output") -> OutputSlice:
        try:
            ended = records.read_exit(path)
        except records.Unreadable:
            ended = None
        written = None
        if ended is not None:
            written = ended.output_bytes if stream == "output" else ended.stderr_bytes
        return output.read(path, offset=offset, limit=limit, stream=stream, written=written)

    def directories(self) -> Iterator[tuple[RunKey, str]]:
        for path in glob.iglob(f"{glob.escape(self._runs)}/*/*/*"):
            agent_id, name = path.rsplit("/", 2)[1:]
            if name.isdecimal():
                yield RunKey(agent_id, int(name)), path

    def orders(self) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
        for path in sorted(glob.glob(f"{glob.escape(self._runs)}/*/*/*/")):
            try:
                with open(f"{path}{records.ORDER}", encoding="utf-8", errors="surrogateescape") as file:
                    found = json.load(file)
            except (OSError, ValueError):
                found = None
            yield path.rstrip("/"), found if isinstance(found, dict) else None

    def put_note(self, path: str, name: str, facts: Mapping[str, object]) -> None:
        inbox.put(path, name, facts)

    def note_answer(self, path: str, name: str) -> Mapping[str, Any] | None:
        return inbox.answer(path, name)

    def asks(self, path: str) -> Iterator[Mapping[str, Any]]:
        return asks.pending(path)

    def answer_ask(self, path: str, name: str, facts: Mapping[str, object]) -> bool:
        return asks.answer(path, name, facts)

    def ask_outcome(self, path: str, name: str) -> Mapping[str, Any] | None:
        return asks.outcome(path, name)

    def environment(self, process: Process) -> Mapping[str, str] | None:
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                raw = file.read()
        except OSError:
            return None
        if self.presence(process) is not Presence.ALIVE:  # asked behind: it may have been a stranger's
            return None
        pairs = (os.fsdecode(each).partition("=") for each in raw.split(b"\0") if each)
        return {name: value for name, _, value in pairs}

    def vitals(self, runs: Sequence[Run], *, weigh: Collection[RunKey]) -> Mapping[RunKey, Vitals]:
        from headcount.runtimes import vitals  # only here: nobody but the daemon looks often

        return vitals.measure(runs, weigh=weigh, proc=self._table.proc)

    def free_disk_mb(self) -> int:
        found = os.statvfs(self._runs if os.path.isdir(self._runs) else self._root)
        return found.f_bavail * found.f_frsize >> 20

    def free_memory_mb(self) -> int:
        if self._table.proc and (found := _available_mb()) is not None:
            return found
        import psutil  # type: ignore[import-untyped]  # only where there is no /proc: it is slow to import

        return int(psutil.virtual_memory().available) >> 20


def _available_mb() -> int | None:
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) >> 10
    except OSError:
        pass  # hidden from us
    return None


_OFD: Final = hasattr(fcntl, "F_OFD_SETLK")


@contextlib.contextmanager
def _locked(path: str) -> Iterator[bool]:
    """Hold a run's lock while the body runs, and say whether it was free.

    By an open file description lock where there is one: it excludes a runner's F_SETLK, and looking at the
    file in another thread does not drop it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            if _OFD:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, system.QUERY)
            else:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _end(runner_pid: int) -> None:
    """Kill a runner that does not answer. Nobody has waited for it, so the pid is still its own."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(runner_pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(runner_pid, 0)


def _converse(to: int, back: int, message: bytes, until: float) -> str:
    """Send the order and return what comes back, up to the end of its last line or `until`."""
    os.set_blocking(to, False)
    poll = select.poll()
    poll.register(to, select.POLLOUT)
    poll.register(back, select.POLLIN)
    said = b""
    while (left := until - time.monotonic()) > 0:
        ready = dict(poll.poll(left * 1000))
        if to in ready:
            try:
                message = message[os.write(to, message) :]
            except OSError:
                message = b""  # it does not want the order: it has an answer
            if not message:
                poll.unregister(to)
        if back in ready:
            chunk = os.read(back, 1 << 16)
            said += chunk
            if not chunk or _answered(said):
                break
    return said.decode("utf-8", "replace")


def _answered(said: bytes) -> bool:
    return said.endswith(b"\n") and said[:-1].rpartition(b"\n")[2].split(b" ")[0] in (
        b"started",
        b"failed",
        b"refused",
    )


def _check_inside(name: str) -> None:
    if os.path.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        raise ValueError(f"{name!r} does not name a file inside the run directory")


def _write(path: str, data: bytes, *, durably: bool = False) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        if durably:
            file.flush()
            os.fsync(fd)


def _write_durably(folder: str, name: str, data: bytes) -> None:
    """Write a file so that after any crash it is there as a whole or not at all."""
    temporary = f"{folder}/{name}.{os.getpid()}.{threading.get_ident()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, f"{folder}/{name}")
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_dir(folder)


def _sync_dir(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
