"""The runner: one process beside each agent, which starts it, keeps its output, ends its tree and says how it ended.

It must outlive everything else of ours, start in a few milliseconds and stay small, so it is one file that
imports nothing but built-in modules: no json, re, socket, signal, subprocess, ctypes or struct. It is run as
`python -I -S <compiled copy> <run directory>` in a session of its own, with the order on stdin and the answer
("started ...", "failed <why>" or "refused <why>", one line) on stdout. docs/run-directory.md has the format.

What a SIGKILL leaves, in order: before the start record, no agent (the child waits for the record and ends
with us); after it, a free lock beside a start record and no exit record, which every headcount takes for a
dead runner and cleans up by identity.

`runtimes/process.py` and `runtimes/reaper.py` share the functions here that read the process table.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without its enums
import fcntl
import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import NoReturn

    Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]

FORMAT = 1
LEFTOVER_GRACE = 2.0  # seconds that descendants get when their leader has ended on its own
KILL_BOUND = 5.0  # seconds after which what SIGKILL does not end (a sick disk, another user's) is a survivor
DRAIN_BOUND = 1.0  # seconds of reading what a spared process still writes
ORDER_BOUND = 30  # seconds for the whole order to arrive
STOP_POLL = 5.0  # seconds between looks for a stop file whose writer died before it told us
SWEEP_POLL = 0.05  # seconds between sweeps where orphans are not handed to us
CHUNK = 1 << 16
EXIT_SPACE = 4096  # bytes kept free for the exit record, so that a full disk cannot lose it
MAX_SEGMENTS = 16

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
NOT_THERE = (2, 3, 20)  # ENOENT, ESRCH, ENOTDIR


# --- small JSON ------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """Return `text` as a JSON string."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char < " ":
            out.append("\\u%04x" % ord(char))
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def to_json(value: Json) -> str:
    """Return `value` as JSON; for the few shapes that a record has."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if hasattr(value, "items"):
        return "{" + ", ".join(quoted(name) + ": " + to_json(each) for name, each in value.items()) + "}"
    return "[" + ", ".join(to_json(each) for each in value) + "]"


def text_of(raw: bytes) -> str:
    """Return bytes of a path or a message as text that JSON can carry."""
    return raw.decode("utf-8", "replace")


# --- the order --------------------------------------------------------------------------------------


class Order:
    """What the deployer sent by pipe; see `read_order` for the form."""

    def __init__(self) -> None:
        self.args: list[bytes] = []
        self.env: dict[bytes, bytes] = {}
        self.cgroups: list[bytes] = []
        self.without: set[str] = set()
        self.one: dict[bytes, bytes] = {}

    def number(self, tag: bytes, default: int) -> int:
        return int(self.one.get(tag, b"%d" % default))


def read_order(fd: int) -> Order | None:
    """Read `tag NUL value NUL` pairs up to the tag `end`; None if they stop before it."""
    parts = []
    while chunk := posix.read(fd, CHUNK):
        parts.append(chunk)
        if chunk.endswith(b"\0") and b"".join(parts[-2:]).endswith(b"end\0\0"):
            break
    fields = b"".join(parts).split(b"\0")
    if fields[-3:] != [b"end", b"", b""] or len(fields) % 2 == 0:
        return None
    order = Order()
    for tag, value in zip(fields[:-3:2], fields[1:-3:2], strict=True):
        _take(order, tag, value)
    return order


def _take(order: Order, tag: bytes, value: bytes) -> None:
    if tag == b"arg":
        order.args.append(value)
    elif tag == b"env":
        name, _, content = value.partition(b"=")
        order.env[name] = content
    elif tag == b"cgroup":
        order.cgroups.append(value)
    elif tag == b"without":
        order.without.add(text_of(value))
    else:
        order.one[tag] = value  # a tag of a newer deployer is kept and not used


# --- the process table ------------------------------------------------------------------------------


class Proc:
    """A line of the process table. `ticks` tells it from a later process with the same pid."""

    __slots__ = ("pgid", "pid", "ppid", "sid", "state", "ticks")

    def __init__(self, pid: int, state: str, ppid: int, pgid: int, sid: int, ticks: int) -> None:
        self.pid = pid
        self.state = state
        self.ppid = ppid
        self.pgid = pgid
        self.sid = sid
        self.ticks = ticks

    @property
    def dead(self) -> bool:
        return self.state in ("Z", "X")


def read_file(path: bytes) -> bytes:
    fd = posix.open(path, posix.O_RDONLY)
    try:
        parts = []
        while chunk := posix.read(fd, CHUNK):
            parts.append(chunk)
        return b"".join(parts)
    finally:
        posix.close(fd)


def proc_stat(pid: int) -> Proc | None:
    """Return what /proc says of a process, None if it is not there."""
    try:
        raw = read_file(b"/proc/%d/stat" % pid)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
    rest = raw[raw.rindex(b")") + 2 :].split()  # a process may have any name, spaces and ) included
    return Proc(pid, rest[0].decode(), int(rest[1]), int(rest[2]), int(rest[3]), int(rest[19]))


def proc_table() -> dict[int, Proc]:
    """Return the process table from /proc."""
    table = {}
    for name in posix.listdir("/proc"):
        if name.isdigit() and (found := proc_stat(int(name))) is not None:
            table[found.pid] = found
    return table


PS_COLUMNS = b"pid=,ppid=,pgid=,stat=,lstart="
PS_ENV = {b"LC_ALL": b"C", b"TZ": b"UTC"}
MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


def parse_ps(raw: bytes) -> dict[int, Proc]:
    """Return the process table from `ps -o` with PS_COLUMNS under PS_ENV; ticks are epoch seconds."""
    table = {}
    for line in raw.splitlines():
        words = line.split()
        if len(words) == 9:
            pid, ppid, pgid = (int(word) for word in words[:3])
            table[pid] = Proc(pid, words[3][:1].decode(), ppid, pgid, 0, _epoch(words[5:]))
    return table


def _epoch(words: Sequence[bytes]) -> int:
    """Return the epoch seconds of [b"Jan", b"2", b"15:04:05", b"2026"] in UTC."""
    month, day, year = MONTHS.index(words[0]) // 3 + 1, int(words[1]), int(words[3])
    hour, minute, second = (int(part) for part in words[2].split(b":"))
    years = year - (month <= 2)  # the year begins in March here, so that a leap day is its last
    days = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days += years * 365 + years // 4 - years // 100 + years // 400 - 719468
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def run_ps(*args: bytes) -> tuple[int, bytes]:
    """Return the pid of a `ps` and what it prints. For the runner only: it forks, which threads would not like."""
    read_end, write_end = posix.pipe()
    pid = posix.fork()
    if pid == 0:
        try:
            posix.dup2(write_end, 1)
            posix.execve("/bin/ps", [b"ps", *args], PS_ENV)
        finally:
            posix._exit(127)
    posix.close(write_end)
    parts = []
    while chunk := posix.read(read_end, CHUNK):
        parts.append(chunk)
    posix.close(read_end)
    posix.waitpid(pid, 0)
    return pid, b"".join(parts)


def proc_children(pid: int) -> list[int]:
    """Return the children of a process, those of all its threads.

    Raises:
        FileNotFoundError: the kernel does not list children, or the process is gone.
    """
    found = []
    for thread in posix.listdir("/proc/%d/task" % pid):
        try:
            found += [
                int(word) for word in read_file(b"/proc/%d/task/%d/children" % (pid, int(thread))).split()
            ]
        except ProcessLookupError:
            continue
    return found


def below(table: Mapping[int, Proc], roots: Iterable[int], spared: Iterable[int]) -> list[int]:
    """Return the living descendants of `roots` (not the roots), not looking behind a spared one."""
    children: dict[int, list[int]] = {}
    for each in table.values():
        children.setdefault(each.ppid, []).append(each.pid)
    found: list[int] = []
    seen = set(spared) | set(roots)
    queue = list(roots)
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in seen:
                seen.add(pid)
                queue.append(pid)
                if not table[pid].dead:
                    found.append(pid)
    return found


# --- locks ------------------------------------------------------------------------------------------


def lock_query(darwin: bool) -> tuple[bytes, slice, slice]:
    """Return a `struct flock` that asks who would stop a write lock on a whole file, and where type and pid are.

    Linux: short type, short whence, 4 unused, long start, long len, int pid, 4 unused.
    macOS: long start, long len, int pid, short type, short whence.
    """
    if darwin:
        return bytes(20) + fcntl.F_WRLCK.to_bytes(2, sys.byteorder) + bytes(2), slice(20, 22), slice(16, 20)
    return fcntl.F_WRLCK.to_bytes(2, sys.byteorder) + bytes(30), slice(0, 2), slice(24, 28)


QUERY, TYPE_AT, PID_AT = lock_query(sys.platform == "darwin")


def lock_holder(path: bytes | str, own: tuple[int, int] | None = None) -> int | None:
    """Return the pid that holds the write lock of a file (0 or -1 if it cannot be named), None if it is free.

    `own` is the (device, inode) of the file that this process has itself locked by F_SETLK: for that one the
    answer would be "free", and looking would drop the lock.

    Raises:
        OSError: it cannot be told; a file that is not there is free.
    """
    try:
        if own and identity(posix.stat(path)) == own:
            return posix.getpid()
        fd = posix.open(path, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
    try:
        found = fcntl.fcntl(fd, fcntl.F_GETLK, QUERY)
    finally:
        posix.close(fd)
    if int.from_bytes(found[TYPE_AT], sys.byteorder) == fcntl.F_UNLCK:
        return None
    return int.from_bytes(found[PID_AT], sys.byteorder, signed=True)


def identity(found: posix.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def lock_holders(home: bytes, own: tuple[int, int] | None = None) -> set[int]:
    """Return who else holds the daemon's lock or the lock of a live run."""
    paths = [home + b"/daemon.lock"]
    try:
        paths += [home + b"/live/" + name + b"/lock" for name in posix.listdir(home + b"/live")]
    except OSError:
        pass  # no home any more: nobody of it can be told from a leftover
    holders = set()
    for path in paths:
        try:
            holders.add(lock_holder(path, own) or 0)
        except OSError:
            continue
    return holders - {0, -1, posix.getpid()}


def is_runner(pid: int, own: tuple[int, int] | None = None) -> bool:
    """Say whether a process is a runner, of this home or another, that holds the lock of its run."""
    try:
        argv = read_file(b"/proc/%d/cmdline" % pid).split(b"\0")[:-1]
        return len(argv) > 2 and b"/runner-" in argv[-2] and lock_holder(argv[-1] + b"/lock", own) == pid
    except OSError:
        return False


# --- cgroups ----------------------------------------------------------------------------------------


def write_small(path: bytes, content: bytes) -> bool:
    """Write to a file of the kernel; return whether it took it."""
    try:
        fd = posix.open(path, posix.O_WRONLY)
    except OSError:
        return False
    try:
        return posix.write(fd, content) > 0
    except OSError:
        return False
    finally:
        posix.close(fd)


def make_dir(path: bytes) -> bool:
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def cgroup_members(leaf: bytes) -> list[int]:
    try:
        return [int(word) for word in read_file(leaf + b"/cgroup.procs").split()]
    except OSError:
        return []


def remove_cgroup(leaf: bytes) -> bool:
    """Remove an empty cgroup; the kernel may need a moment after the last process of it."""
    for _ in range(20):
        try:
            posix.rmdir(leaf)
        except FileNotFoundError:
            return True
        except OSError:
            time.sleep(0.002)
        else:
            return True
    return False


# --- output -----------------------------------------------------------------------------------------


class Stream:
    """Keeps one stream of the agent: all of it up to `cap` bytes, beyond that the head and a moving tail.

    The head is half of the cap. What follows goes to segments of a quarter each, named by the absolute
    offset of their first byte; when the last one is full the oldest is removed. Bytes that a full disk
    does not take are counted as cut, and the next segment begins behind them.
    """

    def __init__(self, fd: int, base: str, suffix: str, cap: int) -> None:
        self.fd = fd
        self.base = base
        self.suffix = suffix
        self.segment = max(cap // 4, 1)
        self.room = max(cap - 2 * self.segment, 1)
        self.total = 0
        self.cut = 0
        self.tail: list[list[int]] = []  # [offset, bytes] of the segments behind the head
        self.out = self._open(base + suffix)
        self.reading = True

    @staticmethod
    def _open(name: str) -> int:
        return posix.open(name, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)

    def _name(self, offset: int) -> str:
        return "%s.%d%s" % (self.base, offset, self.suffix)

    def pump(self) -> bool:
        """Move one chunk; return whether there was one."""
        try:
            chunk = posix.read(self.fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self.reading = False
            return False
        self.keep(chunk)
        return True

    def keep(self, data: bytes) -> None:
        """Write `data`, or count what cannot be written."""
        while data:
            try:
                if not self.room:
                    self._rotate()
                written = posix.write(self.out, data if len(data) <= self.room else data[: self.room])
            except OSError:
                self._skip(len(data))
                return
            self.total += written
            self.room -= written
            data = data[written:]
            if self.tail:
                self.tail[-1][1] += written
                self._trim()

    def _rotate(self) -> None:
        """Go on in a new segment."""
        self.close()
        self.out = self._open(self._name(self.total))
        self.room = self.segment
        self.tail.append([self.total, 0])

    def _trim(self) -> None:
        """Remove the oldest segments that the cap has no room for beside the one being written."""
        while len(self.tail) > MAX_SEGMENTS or sum(size for _, size in self.tail[:-1]) > self.segment:
            offset, size = self.tail.pop(0)
            self.cut += size
            self._unlink(offset)

    def _skip(self, count: int) -> None:
        """Count bytes that could not be written; what follows needs a segment with its own offset."""
        self.close()
        if self.tail and not self.tail[-1][1]:
            self._unlink(self.tail.pop()[0])
        self.room = 0
        self.total += count
        self.cut += count

    def _unlink(self, offset: int) -> None:
        try:
            posix.unlink(self._name(offset))
        except OSError:
            pass  # the run directory was moved or removed: nothing is left to trim

    def close(self) -> None:
        if self.out >= 0:
            posix.close(self.out)
            self.out = -1


# --- the agent --------------------------------------------------------------------------------------


def load_prctl() -> Callable[[int, int], int] | None:
    """Return prctl(2), which no built-in module has, or None."""
    try:
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None: this program
    except (ImportError, OSError):
        return None
    return lambda option, value: _ctypes.call_cdeclfunction(address, (option, value, 0, 0, 0))


def exec_agent(args: list[bytes], env: Mapping[bytes, bytes]) -> NoReturn:
    """Become the agent; a name without a slash is looked for in the PATH of the order.

    Raises:
        OSError: the most telling of the errors.
    """
    name = args[0]
    if b"/" in name:
        posix.execve(name, args, env)
    worst: OSError = FileNotFoundError(2, "No such file or directory")
    for folder in env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":"):
        try:
            posix.execve((folder or b".") + b"/" + name, args, env)
        except OSError as error:
            if error.errno not in NOT_THERE:
                worst = error
    raise worst


def reset_signals() -> None:
    """Undo what Python and we ignore: an ignored signal stays ignored over exec."""
    _signal.set_wakeup_fd(-1)
    for number in range(1, _signal.NSIG):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


class Pipes:
    """The pipes between the runner and its child."""

    def __init__(self) -> None:
        self.out = posix.pipe()
        self.err = posix.pipe()
        self.go = posix.pipe()  # one byte: the start record is written
        self.trouble = posix.pipe()  # closed by a successful exec


def child(order: Order, pipes: Pipes, runner: int, prctl: Callable[[int, int], int] | None) -> NoReturn:
    """Wait for the start record, then become the agent. Runs after the fork and never returns."""
    step = b"the harness cannot be started"
    try:
        posix.close(pipes.go[1])
        posix.setsid()
        if prctl:
            prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
        if posix.getppid() != runner:
            posix._exit(127)
        reset_signals()
        stdin = posix.open("prompt" if b"prompt" in order.one else "/dev/null", posix.O_RDONLY)
        for source, target in ((stdin, 0), (pipes.out[1], 1), (pipes.err[1], 2)):
            posix.dup2(source, target)
        if not posix.read(pipes.go[0], 1):
            posix._exit(127)
        cwd = order.one[b"cwd"]
        step = b"the working directory " + cwd + b" cannot be entered"
        posix.chdir(cwd)
        step = b"the harness " + order.args[0] + b" cannot be started"
        exec_agent(order.args, order.env)
    except BaseException as error:
        why = getattr(error, "strerror", None) or repr(error)
        posix.write(pipes.trouble[1], step + b": " + why.encode("utf-8", "replace"))
    finally:
        posix._exit(127)


# --- one run ----------------------------------------------------------------------------------------

RUNNING, ENDING, KILLING, OVER = "running", "ending", "killing", "over"


class Run:
    """The life of one run, from its order to its exit record. The working directory is the run's."""

    def __init__(self, order: Order, exit_fd: int, lock: tuple[int, int]) -> None:
        self.order = order
        self.exit_fd = exit_fd
        self.lock = lock
        self.me = posix.getpid()
        self.home = order.one.get(b"home", b"")
        self.proc = "proc" not in order.without and _has_proc()
        self.prctl = None if "prctl" in order.without else load_prctl()
        self.adopts = (
            bool(self.prctl) and self.prctl is not None and self.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
        )
        self.layers = ["subreaper"] if self.adopts else ["sweep"]
        self.leaf: bytes | None = None
        self.known: set[int] = set()  # processes of ours seen by sweeps
        self.agent = 0
        self.status: int | None = None
        self.error: str | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.max_rss = 0
        self.cpu = 0.0
        self.phase = RUNNING
        self.deadline = 0.0
        self.grace: float | None = None  # of a stop that was asked for
        self.stopped = False
        self.strikes = 0
        self.childless = False
        self.next_look = 0.0  # for a stop file
        self.survivors: list[int] = []

    # starting

    def start(self) -> str | None:
        """Start the agent; return None, or why it could not be. Either way a record says so."""
        self._leave_cgroup()
        pipes = Pipes()
        cap = self.order.number(b"cap", 200_000_000)
        self.out = Stream(pipes.out[0], "output", ".jsonl", cap)
        self.err = Stream(pipes.err[0], "stderr", ".log", cap)
        self._watch_signals()
        self.agent = posix.fork()
        if self.agent == 0:
            child(self.order, pipes, self.me, self.prctl)
        for fd in (pipes.out[1], pipes.err[1], pipes.go[0], pipes.trouble[1]):
            posix.close(fd)
        for fd in (pipes.out[0], pipes.err[0]):
            posix.set_blocking(fd, False)
        if self.prctl:
            self.layers.append("pdeathsig")
        self._enter_cgroup()
        self._write_start()
        posix.write(pipes.go[1], b"g")
        trouble = posix.read(pipes.trouble[0], CHUNK)
        posix.close(pipes.go[1])
        posix.close(pipes.trouble[0])
        return text_of(trouble) or None

    def _watch_signals(self) -> None:
        """Have SIGCHLD and SIGTERM arrive as bytes, so that one poll sees everything."""
        self.wake, wake_end = posix.pipe()
        posix.set_blocking(self.wake, False)
        posix.set_blocking(wake_end, False)
        _signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in (_signal.SIGCHLD, _signal.SIGTERM):
            _signal.signal(number, lambda number, frame: None)

    def _leave_cgroup(self) -> None:
        """Leave the starter's cgroup: its end must not be ours."""
        if "cgroup" in self.order.without:
            return
        for base in self.order.cgroups:
            place = base + b"/runners"
            if write_small(place + b"/cgroup.procs", b"0") or (
                make_dir(base) and make_dir(place) and write_small(place + b"/cgroup.procs", b"0")
            ):
                self.layers.append("apart")
                return

    def _enter_cgroup(self) -> None:
        """Put the agent, which is still waiting, into a cgroup of its own."""
        if "cgroup" in self.order.without:
            return
        for base in self.order.cgroups:
            leaf = base + b"/" + self.order.one[b"leaf"]
            if make_dir(leaf):
                if write_small(leaf + b"/cgroup.procs", b"%d" % self.agent):
                    self.leaf = leaf
                    self.layers.append("cgroup")
                    return
                remove_cgroup(leaf)

    def ticks(self, pid: int) -> int:
        if self.proc:
            found = proc_stat(pid)
        else:
            found = parse_ps(run_ps(b"-o", PS_COLUMNS, b"-p", b"%d" % pid)[1]).get(pid)
        if found is None:
            raise ProcessLookupError(3, "No such process")
        return found.ticks

    def _write_start(self) -> None:
        self.started_at = time.time()
        self.my_ticks, self.agent_ticks = self.ticks(self.me), self.ticks(self.agent)
        boot = text_of(self.order.one.get(b"boot", b""))
        record: Json = {
            "format": FORMAT,
            "runner": {"pid": self.me, "ticks": self.my_ticks, "boot_id": boot},
            "process": {"pid": self.agent, "ticks": self.agent_ticks, "boot_id": boot},
            "pidns": _pid_namespace(),
            "started_at": self.started_at,
            "layers": self.layers,
            "cgroup": text_of(self.leaf) if self.leaf else None,
        }
        fd = posix.open("start.tmp", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
        try:
            write_all(fd, to_json(record).encode())
        finally:
            posix.close(fd)
        posix.replace("start.tmp", "start.json")

    # supervising

    def supervise(self, control: int) -> None:
        """Keep the output and wait until nothing of the run is left."""
        # here, because the deployer does not wait for this part; resource, because wait4 needs it at the end,
        # when this Python may have been removed
        import resource  # noqa: F401
        import select

        self.control = control
        self.poll = select.poll()
        self.pollin = select.POLLIN
        self.watched = {self.out.fd: self.out, self.err.fd: self.err}
        for fd in (self.wake, control, *self.watched):
            self.poll.register(fd, self.pollin)
        self._ask_stop_file()
        while self.phase != OVER:
            self._reap()
            self._step()
            if self.phase != OVER:
                self._wait()
        self._drain()

    def _wait(self) -> None:
        """Wait for the next thing to happen and take it in."""
        for fd, _ in self.poll.poll(self._timeout() * 1000):
            if fd == self.control:
                self.next_look = 0.0
            if fd in self.watched:
                stream = self.watched[fd]
                stream.pump()
                if not stream.reading:  # closed, perhaps long before the agent ends
                    self.poll.unregister(fd)
            elif fd == self.wake:
                if _signal.SIGTERM in read_ready(fd):
                    self._ask(None)
            else:
                self._ask_control(read_ready(fd))
        self._ask_stop_file()

    def _timeout(self) -> float:
        if self.phase == RUNNING:
            return STOP_POLL
        left = max(self.deadline - time.monotonic(), 0.0) + 0.001
        if self.phase == KILLING:
            return min(left, 0.005 if self.strikes < 100 else 0.05)
        return left if self.adopts else min(left, SWEEP_POLL)

    def _reap(self) -> None:
        """Collect everything that has ended, orphans included."""
        while True:
            try:
                pid, status, usage = posix.wait4(-1, posix.WNOHANG)
            except ChildProcessError:
                self.childless = self.adopts  # nothing is left: every orphan would have come to us
                return
            if pid == 0:
                return
            self.max_rss = max(self.max_rss, usage.ru_maxrss)
            self.cpu += usage.ru_utime + usage.ru_stime
            self.known.discard(pid)
            if pid == self.agent:
                self.status = status
                self.ended_at = time.time()

    def _step(self) -> None:
        now = time.monotonic()
        if self.phase == RUNNING:
            self._step_running(now)
        if self.phase == ENDING:
            self._step_ending(now)
        if self.phase == KILLING:
            self._step_killing(now)

    def _step_running(self, now: float) -> None:
        if self.status is not None:
            grace = LEFTOVER_GRACE
        elif self.grace is not None:
            grace = self.grace
            self.stopped = True
        else:
            return
        self.leader_seen = self.status is not None
        self.phase, self.deadline = ENDING, now + grace
        if grace > 0:
            self._terminate()

    def _step_ending(self, now: float) -> None:
        if self.grace is not None:
            self.deadline = min(self.deadline, now + self.grace)  # a second, shorter request
            self.grace = None
        if self.status is not None and not self.leader_seen:
            self.leader_seen = True
            self.deadline = min(self.deadline, now + LEFTOVER_GRACE)
            self._terminate()  # what was started since the first round
        if self.status is not None and not self._tree():
            self.phase = OVER
        elif now >= self.deadline:
            self.phase, self.deadline = KILLING, now + KILL_BOUND

    def _step_killing(self, now: float) -> None:
        left = self._tree()
        if not left and self.status is not None:
            self.phase = OVER
        elif now >= self.deadline:
            self.survivors = left
            self.phase = OVER
        else:
            self._strike(left)

    def _terminate(self) -> None:
        for pid in self._tree():
            send(pid, _signal.SIGTERM)
            send(pid, _signal.SIGCONT)  # one that is stopped could not act on the first

    def _strike(self, left: Sequence[int]) -> None:
        """Kill what is there; where that did not do, it forks: stop all of it first."""
        self.strikes += 1
        if self.leaf and not self._spared_in(self.leaf):
            write_small(self.leaf + b"/cgroup.kill", b"1")
        if self.strikes > 2:
            for pid in left:
                send(pid, _signal.SIGSTOP)
            left = self._tree()
        for pid in left:
            send(pid, _signal.SIGKILL)

    # who belongs to the run

    def _tree(self) -> list[int]:
        """Return the living processes of the run, but for those of others that were started inside it."""
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

    def _others(self) -> set[int]:
        return lock_holders(self.home, self.lock) if self.home else set()

    def _walk(self, spared: set[int]) -> list[int]:
        found: list[int] = []
        queue = proc_children(self.me)
        while queue:
            pid = queue.pop()
            if pid in spared or is_runner(pid, self.lock):
                continue
            state = proc_stat(pid)
            if state is None:
                continue
            if not state.dead:
                found.append(pid)
            try:
                queue += proc_children(pid)
            except FileNotFoundError:
                continue  # it ended meanwhile; its children come to us
        return found

    def _sweep(self, spared: set[int]) -> list[int]:
        """Find the tree in the whole process table: below us, below all that was seen before, and in the
        agent's process group. One that was away between two sweeps is missed; that is why there are other layers."""
        table = proc_table() if self.proc else _ps_table()
        self.known &= set(table)
        group = [each.pid for each in table.values() if each.pgid == self.agent or each.sid == self.agent]
        roots = {self.me, self.agent, *self.known, *group} - spared
        found = set(below(table, roots, spared)) | {
            pid for pid in roots if pid in table and not table[pid].dead
        }
        self.known |= found - {self.me}
        return sorted(found - {self.me} - spared)

    def _spared_in(self, leaf: bytes) -> bool:
        members = cgroup_members(leaf)
        spared = self._others()
        return any(pid in spared or is_runner(pid, self.lock) for pid in members)

    # being asked to stop

    def _ask(self, grace: float | None) -> None:
        asked = self.order.number(b"grace_ms", 10_000) / 1000 if grace is None else grace
        self.grace = asked if self.grace is None else min(self.grace, asked)

    def _ask_control(self, raw: bytes) -> None:
        for line in raw.splitlines():
            if (grace := stop_grace(line)) is not None:
                self._ask(grace)

    def _ask_stop_file(self) -> None:
        now = time.monotonic()
        if self.phase == RUNNING and self.grace is None and now >= self.next_look:
            self.next_look = now + STOP_POLL
            if (raw := stop_file()) is not None:
                self._ask(stop_grace(raw))

    # ending

    def _drain(self) -> None:
        """Read what the agent's processes wrote before they ended; do not wait for a spared one."""
        until = time.monotonic() + DRAIN_BOUND
        for stream in (self.out, self.err):
            while stream.reading and stream.pump() and time.monotonic() < until:
                pass
            stream.close()

    def write_exit(self) -> None:
        code = signal = None
        if self.error is None and self.status is not None:
            if posix.WIFSIGNALED(self.status):
                signal = posix.WTERMSIG(self.status)
            else:
                code = posix.WEXITSTATUS(self.status)
        record: Json = {
            "format": FORMAT,
            "code": code,
            "signal": signal,
            "error": self.error,
            "stopped": self.stopped,
            "started_at": self.started_at,
            "ended_at": self.ended_at or time.time(),
            "max_rss_kb": self.max_rss // 1024 if sys.platform == "darwin" else self.max_rss,
            "cpu_ms": int(self.cpu * 1000),
            "output_bytes": self.out.total,
            "output_cut": self.out.cut,
            "stderr_bytes": self.err.total,
            "stderr_cut": self.err.cut,
            "survivors": self.survivors,
        }
        write_final(self.exit_fd, record, "exit.json")
        if self.leaf:
            remove_cgroup(self.leaf)


def _ps_table() -> dict[int, Proc]:
    ps, raw = run_ps(b"axo", PS_COLUMNS)
    table = parse_ps(raw)
    table.pop(ps, None)
    return table


def _has_proc() -> bool:
    try:
        return proc_stat(posix.getpid()) is not None
    except (OSError, ValueError):
        return False


def _pid_namespace() -> str:
    try:
        return posix.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def send(pid: int, signal: int) -> None:
    try:
        posix.kill(pid, signal)
    except OSError:
        pass  # gone, or another user's: the next look at the tree tells


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[posix.write(fd, data) :]


def read_ready(fd: int) -> bytes:
    """Return what can be read at once, at most one chunk."""
    try:
        return posix.read(fd, CHUNK)
    except OSError:
        return b""


def stop_grace(line: bytes) -> float | None:
    """Return the seconds of a line `stop <grace_ms>`, None for anything else."""
    words = line.split()
    if len(words) == 2 and words[0] == b"stop" and words[1].isdigit():
        return int(words[1]) / 1000
    return None


def stop_file() -> bytes | None:
    try:
        return read_file(b"stop")
    except OSError:
        return None


def exists(name: str) -> bool:
    try:
        posix.lstat(name)
    except OSError as error:
        return error.errno not in NOT_THERE
    return True


def write_final(fd: int, record: Json, name: str) -> None:
    """Make the record that ends the run durable, in the space that was kept for it."""
    data = to_json(record).encode()
    posix.pwrite(fd, data, 0)
    posix.ftruncate(fd, len(data))
    posix.fsync(fd)
    posix.replace("exit.tmp", name)
    folder = posix.open(".", posix.O_RDONLY)
    posix.fsync(folder)
    posix.close(folder)


def reserve_exit(without: bool = False) -> int:
    """Return the file of the exit record, with its space taken."""
    fd = posix.open("exit.tmp", posix.O_RDWR | posix.O_CREAT | posix.O_TRUNC, 0o600)
    if hasattr(posix, "posix_fallocate") and not without:
        posix.posix_fallocate(fd, 0, EXIT_SPACE)
    else:
        write_all(fd, b" " * EXIT_SPACE)
    return fd


def answer(line: str) -> None:
    """Tell the deployer, who may be dead, and let go of its pipes."""
    try:
        write_all(1, line.replace("\n", " ").encode("utf-8", "replace") + b"\n")
    except OSError:
        pass
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    posix.close(null)


def take_lock() -> tuple[tuple[int, int], str]:
    """Take the run's lock for life; return the lock's identity, and why this run must not be started by us if so."""
    lock = posix.open(
        "lock", posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW, 0o600
    )  # kept open till the end
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (11, 13, 35):  # EAGAIN, EACCES, and EAGAIN of macOS
            return (0, 0), "another runner holds the lock"
        return (0, 0), "the lock cannot be taken: %s" % error.strerror
    for name in ("start.json", "exit.json", "void.json"):
        if exists(name):
            return (0, 0), "this run was already started, ended or given up (%s)" % name
    return identity(posix.fstat(lock)), ""


def void(exit_fd: int, reason: str) -> None:
    write_final(exit_fd, {"format": FORMAT, "reason": reason, "at": time.time()}, "void.json")


def begin() -> tuple[Run | None, int, str]:
    """Take in lock and order; return the run, its control pipe and, without a run, what to answer."""
    lock, refusal = take_lock()
    if refusal:
        return None, -1, "refused " + refusal
    exit_fd = reserve_exit()
    control = posix.open("control", posix.O_RDWR | posix.O_NONBLOCK)
    _signal.alarm(ORDER_BOUND)  # its default action: end. Nothing is started then, and the deployer sees it
    order = read_order(0)
    _signal.alarm(0)
    if order is None:
        reason = "the order was cut short: the deployer died"
    elif stop_file() is not None:
        reason = "stopped before the start"
    else:
        return Run(order, exit_fd, lock), control, ""
    void(exit_fd, reason)
    return None, -1, "failed " + reason


def run() -> None:
    """Do the whole work of a runner in the working directory."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)
    this, control, refusal = begin()
    if this is None:
        answer(refusal)
        return
    try:
        this.error = this.start()
    except OSError as error:
        _give_up(this, "the run cannot be started: %s" % error.strerror)
        return
    if this.error is not None:
        posix.waitpid(this.agent, 0)
        this.write_exit()
        answer("failed " + this.error)
        return
    answer("started %d %d %d %d %r" % (this.me, this.my_ticks, this.agent, this.agent_ticks, this.started_at))
    this.supervise(control)
    this.write_exit()


def _give_up(this: Run, reason: str) -> None:
    """Undo a start that failed before the agent was let go."""
    if this.agent:
        send(this.agent, _signal.SIGKILL)
        posix.waitpid(this.agent, 0)
    if this.leaf:
        remove_cgroup(this.leaf)
    try:
        void(this.exit_fd, reason)
    finally:
        answer("failed " + reason)


def main(argv: Sequence[str]) -> int:
    """Run in the directory that is the last argument; a defect of ours is written to `runner.log` there."""
    try:
        posix.chdir(argv[-1])
        run()
    except BaseException:
        log = posix.open("runner.log", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600)
        posix.dup2(log, 2)
        raise
    return 0


if __name__ == "__main__":
    posix._exit(main(sys.argv))
