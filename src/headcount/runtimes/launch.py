"""Reads the order of a run and becomes its agent.

Part of the runner's compiled copy (see `program`), so it imports nothing but built-in modules.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without its enums
import posix
from posix import _exit as leave
from posix import execve

from headcount.runtimes.system import CHUNK, NOT_THERE, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    Read = Callable[[int, int], bytes]
    Prctl = Callable[[int, int], int]

PR_SET_PDEATHSIG = 1


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


def read_order(fd: int, read: Read = posix.read) -> Order | None:
    """Read `tag NUL value NUL` pairs up to the tag `end`; None if they stop before it."""
    parts = []
    while chunk := read(fd, CHUNK):
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


def load_prctl() -> Prctl | None:
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
        execve(name, args, env)
    worst: OSError = FileNotFoundError(2, "No such file or directory")
    for folder in env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").split(b":"):
        try:
            execve((folder or b".") + b"/" + name, args, env)
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


class Pipes:
    """The pipes between the runner and its child."""

    def __init__(self) -> None:
        self.out = posix.pipe()
        self.err = posix.pipe()
        self.go = posix.pipe()  # one byte: the start record is written
        self.trouble = posix.pipe()  # closed by a successful exec

    def keep_ours(self) -> None:
        """Close the child's ends, and have the streams never block."""
        for fd in (self.out[1], self.err[1], self.go[0], self.trouble[1]):
            posix.close(fd)
        for fd in (self.out[0], self.err[0]):
            posix.set_blocking(fd, False)

    def let_go(self) -> bytes:
        """Let the child become the agent; return b"", or why it could not."""
        posix.write(self.go[1], b"g")
        trouble = posix.read(self.trouble[0], CHUNK)
        posix.close(self.go[1])
        posix.close(self.trouble[0])
        return trouble


def child(order: Order, pipes: Pipes, runner: int, prctl: Prctl | None) -> NoReturn:
    """Wait for the start record, then become the agent. Runs after the fork and never returns."""
    step = b"the harness cannot be started"
    try:
        posix.close(pipes.go[1])
        posix.setsid()
        if prctl:
            prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
        if posix.getppid() != runner:
            leave(127)
        reset_signals()
        stdin = posix.open("prompt" if b"prompt" in order.one else "/dev/null", posix.O_RDONLY)
        for source, target in ((stdin, 0), (pipes.out[1], 1), (pipes.err[1], 2)):
            posix.dup2(source, target)
        if not posix.read(pipes.go[0], 1):
            leave(127)
        cwd = order.one[b"cwd"]
        step = b"the working directory " + cwd + b" cannot be entered"
        posix.chdir(cwd)
        step = b"the harness " + order.args[0] + b" cannot be started"
        exec_agent(order.args, order.env)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the runner tells it  # the runner tells it
        why = getattr(error, "strerror", None) or repr(error)
        posix.write(pipes.trouble[1], step + b": " + why.encode("utf-8", "replace"))
    finally:
        leave(127)
