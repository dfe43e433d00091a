"""The runner: one process beside each agent, which starts it, keeps its output and tells how it ended.

It must outlive everything else of ours, start in a few milliseconds and stay small. So it and the modules
that it uses import nothing but built-in modules (no json, re, socket, signal, subprocess, ctypes or struct),
and it runs as `python -I -S <compiled copy of them> <run directory>` in a session of its own, with the order
on stdin and the answer on stdout: one line "started ...", "failed <why>" or "refused <why>".
docs/run-directory.md has the format.

What a SIGKILL leaves, in order: before the start record, no agent (the child waits for the record and ends
with us); after it, a free lock beside a start record and no exit record, which every headcount takes for a
dead runner and cleans up by identity.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without its enums
import fcntl
import posix
import sys
import time
from posix import _exit as leave

from headcount.runtimes import system
from headcount.runtimes.launch import Order, Pipes, child, load_prctl, read_order
from headcount.runtimes.stream import Stream
from headcount.runtimes.system import CHUNK, text_of, to_json
from headcount.runtimes.tree import Tree, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from headcount.runtimes.system import Json

FORMAT = 1
LEFTOVER_GRACE = 2.0  # seconds that descendants get when their leader has ended on its own
KILL_BOUND = 5.0  # seconds after which what SIGKILL does not end (a sick disk, another user's) is a survivor
DRAIN_BOUND = 1.0  # seconds of reading what a spared process still writes
ORDER_BOUND = 30  # seconds for the whole order to arrive
GRACE_MAX = 86_400.0  # seconds; a wait of the system's that is much longer cannot be asked for
INTERRUPT_MAX = 2.0  # seconds, and at most half of the grace, between an interrupt and TERM
STOP_POLL = 5.0  # seconds between looks for a stop file whose writer died before it told us
SWEEP_POLL = 0.05  # seconds between sweeps where orphans are not handed to us
STRIKE_POLL = 0.005  # seconds between rounds of killing, at most
DEFAULT_CAP = 200_000_000
EXIT_SPACE = 4096  # bytes kept free for the exit record, so that a full disk cannot lose it
HELD = (11, 13, 35)  # EAGAIN, EACCES, and EAGAIN of macOS: what F_SETLK says of a lock that is held
MARKS = (b"HEADCOUNT_AGENT_ID", b"HEADCOUNT_RUN", b"HEADCOUNT_HOME")
PR_SET_CHILD_SUBREAPER = 36

RUNNING, ENDING, KILLING, OVER = "running", "ending", "killing", "over"


class Run:
    """The life of one run, from its order to its exit record. The working directory is the run's."""

    def __init__(self, order: Order, exit_fd: int, control: int, lock: tuple[int, int]) -> None:
        self.order = order
        self.exit_fd = exit_fd
        self.control = control
        self.lock = lock
        self.me = posix.getpid()
        self.proc = "proc" not in order.without and has_proc()
        self.prctl = None if "prctl" in order.without else load_prctl()
        self.adopts = self.prctl is not None and self.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
        self.layers = ["subreaper" if self.adopts else "sweep"]
        self.leaf: bytes | None = None  # the agent's cgroup
        self.agent = 0
        self.status: int | None = None
        self.error: str | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.max_rss = 0
        self.cpu = 0.0
        self.phase = RUNNING
        self.deadline = 0.0
        self.term_at: float | None = None  # when one that was interrupted is asked to end by TERM
        self.leader_seen = False  # its end has been acted on
        self.grace: float | None = None  # of a stop that was asked for and not yet acted on
        self.stopped = False
        self.next_look = 0.0  # for a stop file
        self.survivors: list[int] = []

    # starting

    def start(self) -> str | None:
        """Start the agent; return None, or why it could not become the harness.

        Raises:
            OSError: the agent was not let go, and there is no start record.
        """
        self._leave_cgroup()
        pipes = Pipes()
        cap = self.order.number(b"cap", DEFAULT_CAP)
        self.out = Stream(pipes.out[0], "output", ".jsonl", cap)
        self.err = Stream(pipes.err[0], "stderr", ".log", cap)
        self._watch_signals()
        self.agent = posix.fork()
        if self.agent == 0:
            child(self.order, pipes, self.me, self.prctl)
        pipes.keep_ours()
        if self.prctl:
            self.layers.append("pdeathsig")
        self._enter_cgroup()
        self._write_start()
        return text_of(pipes.let_go()) or None

    def _watch_signals(self) -> None:
        """Have SIGCHLD and SIGTERM arrive as bytes, so that one poll sees everything."""
        self.wake, wake_end = posix.pipe()
        posix.set_blocking(self.wake, False)
        posix.set_blocking(wake_end, False)
        _signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in (_signal.SIGCHLD, _signal.SIGTERM):
            _signal.signal(number, wake_only)

    def _leave_cgroup(self) -> None:
        """Leave the starter's cgroup, if the starter has not moved us already."""
        if b"apart" in self.order.one or system.set_apart(self.order.cgroups, 0):
            self.layers.append("apart")

    def _enter_cgroup(self) -> None:
        """Put the agent, which is still waiting, into a cgroup of its own."""
        for base in self.order.cgroups:
            leaf = base + b"/" + self.order.one[b"leaf"]
            if system.make_dir(leaf):
                if system.write_small(leaf + b"/cgroup.procs", b"%d" % self.agent):
                    self.leaf = leaf
                    self.layers.append("cgroup")
                    return
                system.remove_cgroup(leaf)

    def _ticks(self, pid: int) -> int:
        found = system.proc_stat(pid) if self.proc else system.ps_table(pid).get(pid)
        if found is None:
            raise ProcessLookupError(3, "No such process")
        return found.ticks

    def _write_start(self) -> None:
        self.my_ticks, self.agent_ticks = self._ticks(self.me), self._ticks(self.agent)
        home = self.order.one.get(b"home", b"")
        self.tree = Tree(
            self.agent, self.agent_ticks, home, lock=self.lock, adopts=self.adopts, proc=self.proc
        )
        self.tree.mark = {name: self.order.env[name] for name in MARKS if name in self.order.env}
        self.started_at = time.time()
        boot = text_of(self.order.one.get(b"boot", b""))
        record: Json = {
            "format": FORMAT,
            "runner": {"pid": self.me, "ticks": self.my_ticks, "boot_id": boot},
            "process": {"pid": self.agent, "ticks": self.agent_ticks, "boot_id": boot},
            "pidns": system.pid_namespace(),
            "started_at": self.started_at,
            "layers": self.layers,
            "cgroup": text_of(self.leaf) if self.leaf else None,
        }
        fd = posix.open("start.tmp", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW, 0o600)
        try:
            write_all(fd, to_json(record).encode())
        finally:
            posix.close(fd)
        posix.replace("start.tmp", "start.json")

    # supervising

    def supervise(self) -> None:
        """Keep the output and wait until nothing of the run is left."""
        # imported here, because the deployer does not wait for this part; resource, because wait4 needs it
        # at the end, when this Python may have been removed
        import resource  # noqa: F401
        import select

        self.poll = select.poll()
        self.watched = {self.out.fd: self.out, self.err.fd: self.err}
        for fd in (self.wake, self.control, *self.watched):
            self.poll.register(fd, select.POLLIN)
        self._ask_stop_file()
        while True:
            self._reap()
            self._step(time.monotonic())
            if self.phase == OVER:
                break
            self._wait()
        self._drain()

    def _wait(self) -> None:
        """Wait for the next thing to happen and take it in."""
        for fd, _ in self.poll.poll(self._timeout() * 1000):
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
        until = self.deadline if self.term_at is None else min(self.deadline, self.term_at)
        left = max(until - time.monotonic(), 0.0) + 0.001
        if self.phase == KILLING:
            return min(left, STRIKE_POLL if self.proc else SWEEP_POLL)
        return left if self.adopts else min(left, SWEEP_POLL)

    def _reap(self) -> None:
        """Collect everything that has ended, orphans included."""
        while True:
            try:
                pid, status, usage = posix.wait4(-1, posix.WNOHANG)
            except ChildProcessError:
                self.tree.childless = self.adopts
                return
            if pid == 0:
                return
            self.max_rss = max(self.max_rss, usage.ru_maxrss)
            self.cpu += usage.ru_utime + usage.ru_stime
            if pid == self.agent:
                self.status = status
                self.ended_at = time.time()

    def _step(self, now: float) -> None:
        """Go on to what follows from what has been taken in."""
        if self.phase == RUNNING:
            self._step_running(now)
        if self.phase == ENDING:
            self._step_ending(now)
        if self.phase == KILLING:
            self._step_killing(now)

    def _step_running(self, now: float) -> None:
        if self.status is not None:
            self.leader_seen = True
            grace = LEFTOVER_GRACE
        elif self.grace is not None:
            self.stopped = True
            grace = self.grace
        else:
            return
        self.phase, self.deadline = ENDING, now + grace
        if self.stopped and grace > 0 and b"interrupt" in self.order.one:
            self.term_at = now + interrupt_part(grace)
            self.tree.interrupt()
        elif grace > 0:
            self.tree.terminate()

    def _step_ending(self, now: float) -> None:
        if self.grace is not None:  # a second request may be shorter
            self.deadline = min(self.deadline, now + self.grace)
            if self.term_at is not None:
                self.term_at = min(self.term_at, now + interrupt_part(self.grace))
            self.grace = None
        if self.status is not None and not self.leader_seen:
            self.leader_seen = True
            self.deadline = min(self.deadline, now + LEFTOVER_GRACE)
            self._terminate()  # what was started since the first round
        elif self.term_at is not None and now >= self.term_at:
            self._terminate()
        if self.status is not None and not self.tree.living():
            self.phase = OVER
        elif now >= self.deadline:
            self.phase, self.deadline = KILLING, now + KILL_BOUND

    def _terminate(self) -> None:
        self.term_at = None
        self.tree.terminate()

    def _step_killing(self, now: float) -> None:
        left = self.tree.living()
        if not left and self.status is not None:
            self.phase = OVER
        elif now >= self.deadline:
            self.survivors = left
            self.phase = OVER
        else:
            self.tree.kill(left, self.leaf)

    # being asked to stop

    def _ask(self, grace: float | None) -> None:
        asked = self.order.number(b"grace_ms", 10_000) / 1000 if grace is None else grace
        self.grace = asked if self.grace is None else min(self.grace, asked)

    def _ask_control(self, raw: bytes) -> None:
        self.next_look = 0.0
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
        """Make it known how the agent ended, when nothing of the run is left."""
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
            "oom_kills": oom_kills(self.leaf) if self.leaf else None,
        }
        if self.leaf:
            system.remove_cgroup(self.leaf)
        write_final(self.exit_fd, record, "exit.json")


def wake_only(_number: int, _frame: FrameType | None) -> None:
    """Let the signal end a wait; which one it was is read from the wake-up pipe."""


def has_proc() -> bool:
    try:
        return system.proc_stat(posix.getpid()) is not None
    except (OSError, ValueError):
        return False


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
    """Return the seconds of a line `stop <grace_ms>`, at most GRACE_MAX; None for anything else."""
    words = line.split()
    if len(words) != 2 or words[0] != b"stop" or not words[1].isdigit():
        return None
    return GRACE_MAX if len(words[1]) > 9 else min(int(words[1]) / 1000, GRACE_MAX)


def interrupt_part(grace: float) -> float:
    """Return how much of a grace an interrupted agent has for its last words, before TERM."""
    return min(INTERRUPT_MAX, grace / 2)


def oom_kills(leaf: bytes) -> int | None:
    """Return how many processes of a cgroup the kernel killed for want of memory; None: it does not tell."""
    try:
        lines = system.read_file(leaf + b"/memory.events").splitlines()
    except OSError:
        return None  # the memory controller is not switched on there
    return next((int(line[9:]) for line in lines if line.startswith(b"oom_kill ")), None)


def stop_file() -> bytes | None:
    try:
        return system.read_file(b"stop")
    except OSError:
        return None


def exists(name: str) -> bool:
    try:
        posix.lstat(name)
    except OSError as error:
        return error.errno not in system.NOT_THERE
    return True


def take_lock(fd: int) -> str:
    """Take the run's lock; return "", or why this run must not be started by us."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return "another runner holds the lock"
        return f"the lock cannot be taken: {error.strerror}"
    for name in ("start.json", "exit.json", "void.json"):
        if exists(name):
            return f"this run was already started, ended or given up ({name})"
    return ""


def reserve_exit() -> int:
    """Return the file of the record that will end the run, with its space taken."""
    fd = posix.open("exit.tmp", posix.O_RDWR | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW, 0o600)
    if hasattr(posix, "posix_fallocate"):
        posix.posix_fallocate(fd, 0, EXIT_SPACE)
    else:
        write_all(fd, b" " * EXIT_SPACE)
    return fd


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


def void(exit_fd: int, reason: str) -> None:
    """Make it known that this run was not started and never will be."""
    write_final(exit_fd, {"format": FORMAT, "reason": reason, "at": time.time()}, "void.json")


def answer(line: str) -> None:
    """Tell the deployer, who may be dead, and let go of its pipes."""
    try:  # contextlib is not built in
        write_all(1, line.replace("\n", " ").encode("utf-8", "replace") + b"\n")
    except OSError:
        pass
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    posix.close(null)


def begin(lock: int) -> tuple[Run | None, str]:
    """Take the lock and the order; return the run, or what to answer if there is none."""
    if refusal := take_lock(lock):
        return None, "refused " + refusal
    exit_fd = reserve_exit()
    control = posix.open("control", posix.O_RDWR | posix.O_NONBLOCK)  # before the look for a stop file
    _signal.alarm(ORDER_BOUND)  # its default action: end. Nothing is started then, and the deployer sees it
    order = read_order(0)
    _signal.alarm(0)
    if order is None:
        reason = "the order was cut short: its deployer died"
    elif stop_file() is not None:
        reason = "stopped before the start"
    else:
        return Run(order, exit_fd, control, system.identity(posix.fstat(lock))), ""
    void(exit_fd, reason)
    return None, "failed " + reason


def start(lock: int) -> tuple[Run | None, str]:
    """Start the run of the working directory; return it if it lives, and the answer to the deployer."""
    try:
        this, refusal = begin(lock)
    except OSError as error:
        return None, f"failed the run directory cannot be used: {error.strerror}"
    if this is None:
        return None, refusal
    try:
        this.error = this.start()
    except OSError as error:
        reason = f"the run cannot be started: {error.strerror}"
        give_up(this, reason)
        return None, "failed " + reason
    if this.error is not None:
        posix.waitpid(this.agent, 0)
        this.write_exit()
        return None, "failed " + this.error
    return this, f"started {this.me} {this.my_ticks} {this.agent} {this.agent_ticks} {this.started_at!r}"


def give_up(this: Run, reason: str) -> None:
    """Undo a start that failed before the agent was let go."""
    if this.agent:
        send(this.agent, _signal.SIGKILL)
        posix.waitpid(this.agent, 0)
    if this.leaf:
        system.remove_cgroup(this.leaf)
    void(this.exit_fd, reason)


def run() -> None:
    """Do the whole work of a runner in the working directory."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])  # a deployer may have blocked or ignored anything
    _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)
    lock = posix.open("lock", posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW, 0o600)
    this, said = start(lock)
    if this is None:
        posix.close(lock)  # before the answer: who gets it and looks finds the run over
    answer(said)
    if this is not None:
        this.supervise()
        this.write_exit()


def main(argv: Sequence[str]) -> int:
    """Run in the directory that is the last argument; a defect of ours is written to `runner.log` there."""
    posix.chdir(argv[-1])
    try:
        run()
    except BaseException:
        log = posix.open(
            "runner.log", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_NOFOLLOW, 0o600
        )
        posix.dup2(log, 2)
        raise
    return 0


if __name__ == "__main__":
    leave(main(sys.argv))
