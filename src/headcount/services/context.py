"""What every service works with. Only `bootstrap` knows which concretes stand behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from headcount.config import Home, Settings
from headcount.domain.model import Caller, RunKey
from headcount.harnesses.base import Harness, Launch, Probe
from headcount.runtimes.base import Placement, Repositories, Views
from headcount.store.registry import Registry

if TYPE_CHECKING:
    from headcount.domain.notices import Hook


class Clock(Protocol):
    """Time and chance, so that both can be simulated."""

    def now(self) -> float:
        """Return the seconds since the epoch: for people to read, never for a rule."""
        ...

    def boottime(self) -> float:
        """Return the seconds since boot, sleep included: for spans that must not jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that stop while the machine sleeps: for time-outs."""
        ...

    def pause(self, seconds: float) -> None:
        """Wait."""
        ...

    def chance(self) -> int:
        """Return at least 64 random bits."""
        ...

    def token(self) -> str:
        """Return a new secret."""
        ...


class Remote(Protocol):
    """The daemon, as seen by a program in an agent's tree."""

    def call(self, tool: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """Call a tool and return its structured answer; raises the domain's own errors."""
        ...


class Daemon(Protocol):
    """The daemon of this home, as whoever wants it or wants it gone sees it. Not for the daemon itself."""

    def start(self) -> bool:
        """Start it if none runs, without waiting; return whether one was started."""
        ...

    def ready(self) -> bool:
        """Wait until it answers; return whether it does."""
        ...

    def stop(self) -> bool:
        """End it, agents untouched; return whether none runs any more."""
        ...


class ServiceManager(Protocol):
    """What keeps services of the user alive: systemd. `unit` is the file, in `directory`, of this home's
    daemon; `command` starts a daemon whose home is still to be named."""

    @property
    def unit(self) -> str: ...
    @property
    def directory(self) -> str: ...
    @property
    def command(self) -> tuple[str, ...]: ...

    def why_not(self) -> str:
        """Return why there is none to be asked, or nothing."""
        ...

    def state(self) -> str:
        """Return what it calls our unit: active, inactive, failed or the like."""
        ...

    def lingers(self) -> bool:
        """Say whether the user's services outlive his last session."""
        ...

    def install(self, text: str) -> None:
        """Write our unit, and have it started now and at each login; raises Infrastructure."""
        ...

    def remove(self) -> bool:
        """End our unit and take it away; return whether there was one. Raises Infrastructure."""
        ...


@dataclass(frozen=True, slots=True)
class Offered:
    """A harness as it stands in the catalogue: our own, or another package's. Without `harness` it cannot be
    used, and `why` says why."""

    name: str
    package: str
    harness: Harness | None
    why: str = ""


class Programs(Protocol):
    """The agent programs of this machine."""

    def path(self, probe: Probe, *, env: Mapping[str, str], cwd: str) -> str:
        """Return where the program is in the PATH of `env`.

        Raises:
            PlacementFailed: it is not there or cannot be run.
        """
        ...

    def version(self, path: str, probe: Probe, *, env: Mapping[str, str], asks: bool) -> str | None:
        """Return its version if its package says it; with `asks`, also if it says it itself in time."""
        ...

    def is_old(self, version: str, probe: Probe) -> bool:
        """Say whether a version is older than those that are known to work."""
        ...

    def logged_in(self, probe: Probe, *, env: Mapping[str, str]) -> bool | None:
        """Say whether somebody is logged in, None if that cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """One fleet, and who asks."""

    home: Home
    settings: Settings
    registry: Registry
    placement: Placement
    repositories: Repositories
    views: Views
    clock: Clock
    harness: Callable[[str], Harness]  # of a run that there is: never raises
    known_harness: Callable[[str], Harness]  # to start it; raises InvalidInput on an unknown name
    offered: Callable[[], Sequence[Offered]]  # all harnesses; loads those of other packages
    programs: Programs
    on_terminal: Callable[[Launch, str], Launch]  # the same on a terminal of its own, kept in a run directory
    headcount: tuple[str, ...]  # argv prefix of our own command
    caller: Caller
    token: str | None  # of the run in whose tree we are
    remote: Remote | None  # the daemon, when we are in an agent's tree: nothing is started here
    ensure_daemon: Callable[[], None]  # starts it if it is needed and absent; never waits
    daemon_pid: Callable[[], int | None]
    daemon: Daemon
    service_manager: ServiceManager
    tell: Callable[[Hook, Mapping[str, object]], None]  # a hook, once; raises Infrastructure
    hook_wrong: Callable[[Hook], str]  # what can be seen to be wrong with it, or nothing
    memory_kill: Callable[[Collection[int], float], str | None]
    """What the kernel says of the death of one of these pids for want of memory, in the last so many seconds;
    nothing, or None if that cannot be known."""
    harness_names: tuple[str, ...] = ()
    call: str | None = None
    """The key of the call that we are in, the same however often it is sent: it changes things once."""
    given_up: set[RunKey] = field(default_factory=set)
    """Deploys of this process that could not be undone or confirmed: it lives, but as their deployer it is
    dead. Shared by all contexts made from one; lost with the process, which is then dead indeed."""

    def acting_as(self, caller: Caller, *, call: str | None = None) -> Context:
        """Return the same fleet for another caller, outside of any agent's tree."""
        return replace(self, caller=caller, call=call, token=None, remote=None)
