"""What a runner and those who look after it know of the system: processes, locks, cgroups, small JSON.

Part of the runner's compiled copy (see `program`), so it imports nothing but built-in modules.
"""

from __future__ import annotations

import fcntl
import posix
import sys
import time
from posix import _exit as leave
from posix import execve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]

CHUNK = 1 << 16
NOT_THERE = (2, 3, 20)  # ENOENT, ESRCH, ENOTDIR


# --- small JSON ------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """Return `text` as a JSON string."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char < " ":
            out.append(f"\\u{ord(char):04x}")
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


# --- the process table ------------------------------------------------------------------------------


class Proc:
    """A line of the process table. `ticks` tells it from a later process with the same pid."""

    __slots__ = ("pgid", "pid", "ppid", "sid", "state", "ticks")

    def __init__(self, pid: int, state: str, ppid: int, *, pgid: int, sid: int, ticks: int) -> None:
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
    """Read a file: not through a link in its place, and without waiting for the writer of a pipe."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK)
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
    return Proc(pid, rest[0].decode(), int(rest[1]), pgid=int(rest[2]), sid=int(rest[3]), ticks=int(rest[19]))


def proc_table() -> dict[int, Proc]:
    """Return the process table from /proc."""
    table = {}
    for name in posix.listdir("/proc"):
        if name.isdigit():
            try:
                found = proc_stat(int(name))
            except OSError:
                continue  # another user's, where /proc hides those
            if found is not None:
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
            table[pid] = Proc(pid, words[3][:1].decode(), ppid, pgid=pgid, sid=0, ticks=_epoch(words[5:]))
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
    """Return the pid of a `ps` and what it prints. For the runner only: it forks, and has no threads."""
    read_end, write_end = posix.pipe()
    pid = posix.fork()
    if pid == 0:
        try:
            posix.dup2(write_end, 1)
            execve("/bin/ps", [b"ps", *args], PS_ENV)
        finally:
            leave(127)
    posix.close(write_end)
    parts = []
    while chunk := posix.read(read_end, CHUNK):
        parts.append(chunk)
    posix.close(read_end)
    posix.waitpid(pid, 0)
    return pid, b"".join(parts)


def ps_table(pid: int | None = None) -> dict[int, Proc]:
    """Return the process table from `ps`, without that process, or only its line for `pid`."""
    which = [b"axo", PS_COLUMNS] if pid is None else [b"-o", PS_COLUMNS, b"-p", b"%d" % pid]
    ps, raw = run_ps(*which)
    table = parse_ps(raw)
    table.pop(ps, None)
    return table


PS_ENVIRONMENTS = [b"-axwwE", b"-o"] if sys.platform == "darwin" else [b"axewwo"]
PS_ENVIRONMENTS += [b"pid=,command="]


def ps_environments() -> dict[int, dict[bytes, bytes]]:
    """Return our own variables in the environments that `ps` shows us."""
    ps, raw = run_ps(*PS_ENVIRONMENTS)
    found = parse_environments(raw)
    found.pop(ps, None)
    return found


def parse_environments(raw: bytes) -> dict[int, dict[bytes, bytes]]:
    """Return our own variables of each process from `ps` with PS_ENVIRONMENTS."""
    found = {}
    for line in raw.splitlines():
        pid, _, words = line.strip().partition(b" ")
        if pid.isdigit():
            found[int(pid)] = own_variables(words.split(b" "))
    return found


def proc_environments(pids: Iterable[int]) -> dict[int, dict[bytes, bytes]]:
    """Return our own variables in the environments of those processes that let us read theirs."""
    found = {}
    for pid in pids:
        try:
            found[pid] = own_variables(read_file(b"/proc/%d/environ" % pid).split(b"\0"))
        except OSError:
            continue
    return found


def own_variables(words: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the variables of Headcount: no other is of interest, and `ps` shows them between arguments."""
    pairs = (word.partition(b"=") for word in words if word.startswith(b"HEADCOUNT_"))
    return {name: value for name, _, value in pairs}


def proc_children(pid: int) -> list[int]:
    """Return the children of a process, those of all its threads.

    Raises:
        FileNotFoundError: the kernel does not list children, or the process is gone.
    """
    found = []
    for thread in posix.listdir(f"/proc/{pid}/task"):
        try:
            found += [
                int(word) for word in read_file(b"/proc/%d/task/%d/children" % (pid, int(thread))).split()
            ]
        except ProcessLookupError:
            continue
    return found


SLACK = 1
"""Between two readings of one start time. On Linux `ps` adds ticks to the boot time and rounds differently
from call to call (a second); for /proc it is a tick of 10 ms, in which no pid comes back."""


def same(one: int, other: int) -> bool:
    """Say whether two start times of one pid mean one process."""
    return abs(one - other) <= SLACK


def session(table: Mapping[int, Proc], leader: int, ticks: int) -> set[int]:
    """Return the members of the session and process group of a leader, itself included.

    A pid is not given out again while a session or group has it as its number. So if the pid now belongs to a
    later process, no member is left.
    """
    found = table.get(leader)
    if found is not None and not same(found.ticks, ticks):
        return set()
    return {
        pid
        for pid, each in table.items()
        if leader in (pid, each.sid, each.pgid) and each.ticks >= ticks - SLACK
    }


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


def pid_namespace() -> str:
    """Return the name of our pid namespace, "" where there are none."""
    try:
        return posix.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


# --- locks ------------------------------------------------------------------------------------------


def lock_query(platform: str) -> tuple[bytes, slice, slice]:
    """Return a `struct flock` that asks who would stop a write lock on a file, and where type and pid are.

    Linux: short type, short whence, 4 unused, long start, long len, int pid, 4 unused.
    macOS: long start, long len, int pid, short type, short whence.
    """
    if platform == "darwin":
        return bytes(20) + fcntl.F_WRLCK.to_bytes(2, sys.byteorder) + bytes(2), slice(20, 22), slice(16, 20)
    return fcntl.F_WRLCK.to_bytes(2, sys.byteorder) + bytes(30), slice(0, 2), slice(24, 28)


QUERY, TYPE_AT, PID_AT = lock_query(sys.platform)


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
        return holder_of(fd)
    finally:
        posix.close(fd)


def holder_of(fd: int) -> int | None:
    """Return what `lock_holder` returns, of a file that is open."""
    found = fcntl.fcntl(fd, fcntl.F_GETLK, QUERY)
    if int.from_bytes(found[TYPE_AT], sys.byteorder) == fcntl.F_UNLCK:
        return None
    return int.from_bytes(found[PID_AT], sys.byteorder, signed=True)


def identity(found: posix.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def lock_holders(home: bytes, own: tuple[int, int] | None = None) -> set[int]:
    """Return who else holds the lock of a live run."""
    paths = []
    try:
        paths = [home + b"/live/" + name + b"/lock" for name in posix.listdir(home + b"/live")]
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


def set_apart(bases: Iterable[bytes], pid: int) -> bool:
    """Move a runner (0: the caller) out of its starter's cgroup, whose end must not be its own."""
    for base in bases:
        place = base + b"/runners"
        for folder in (None, base, place):  # they are there already, but for the first time
            if folder and not make_dir(folder):
                break
            if write_small(place + b"/cgroup.procs", b"%d" % pid):
                return True
    return False


def cgroup_members(leaf: bytes) -> list[int]:
    try:
        return [int(word) for word in read_file(leaf + b"/cgroup.procs").split()]
    except OSError:
        return []


REMOVE_TRIES = 30  # with growing pauses, 0.4 s in all


def remove_cgroup(leaf: bytes) -> bool:
    """Remove an empty cgroup; the kernel may need a moment after the last process of it."""
    for i in range(REMOVE_TRIES):
        try:
            posix.rmdir(leaf)
        except FileNotFoundError:
            return True
        except OSError:
            time.sleep(0.001 * i)
        else:
            return True
    return False
