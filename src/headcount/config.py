"""Where state lives and what is configured: default < settings file < environment < argument."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headcount.domain.errors import Infrastructure, InvalidInput
from headcount.domain.model import Limits
from headcount.domain.policy import parse_policy

if TYPE_CHECKING:
    from headcount.domain.notices import Hook

SOCKET_PATH_MAX: Final = 100
"""A Unix socket path holds 107 bytes on Linux and 103 on macOS, its end mark included."""

ROOT_PATH_MAX: Final = 480
"""SQLite opens no file whose path, with the endings that it adds itself, has more than 512 bytes."""

_NETWORK_FS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
)


@dataclass(frozen=True, slots=True)
class Home:
    """The state directory and the name of everything in it."""

    root: Path

    @property
    def registry(self) -> Path:
        return self.root / "registry.db"

    @property
    def registry_lock(self) -> Path:
        return self.root / "registry.lock"

    @property
    def live(self) -> Path:
        return self.root / "live"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def worktrees(self) -> Path:
        """Where the git worktrees of agents are, each named after its agent."""
        return self.root / "worktrees"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def gates(self) -> Path:
        return self.root / "gates"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts"

    @property
    def prices(self) -> Path:
        """The user's own table of what tokens cost."""
        return self.root / "prices.toml"

    @property
    def halted(self) -> Path:
        """This file is there while the emergency stop is in force."""
        return self.root / "halted"

    @property
    def settings_file(self) -> Path:
        return self.root / "settings.toml"

    @property
    def daemon_lock(self) -> Path:
        return self.root / "daemon.lock"

    @property
    def daemon_facts(self) -> Path:
        return self.root / "daemon.json"

    @property
    def daemon_log(self) -> Path:
        return self.root / "daemon.log"

    @property
    def daemon_socket(self) -> Path:
        return self.sock("daemon.sock")

    @property
    def tmux_socket(self) -> Path:
        return self.sock("tmux.sock")

    def sock(self, name: str) -> Path:
        """Return a path that a Unix socket can have: in the home, or where that is too deep, in a
        private directory (0700, made by `make`) of the user's runtime directory."""
        inside = self.root / name
        if len(os.fsencode(inside)) <= SOCKET_PATH_MAX:
            return inside
        return self.runtime / name

    @property
    def runtime(self) -> Path:
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        tag = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(base) / f"headcount-{os.getuid()}" / tag

    def make(self) -> None:
        """Create what is missing, private to the user; quick when all is there.

        Raises:
            Infrastructure: it cannot be made, is not the user's own, or is on a network file system.
        """
        self._refuse_links()
        if not self.live.is_dir():
            self._make_all()
        if self.daemon_socket.parent != self.root:  # there or not: others may have made it
            _private(self.runtime.parent)
            _private(self.runtime)

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self.runs, self.quarantine, self.backups, self.trash, self.cache, self.gates, self.live)

    def _refuse_links(self) -> None:
        """Refuse a link in the place of what is ours: we would write, move and remove wherever it leads."""
        for each in (*self._folders, self.worktrees, self.registry):
            if each.is_symlink():
                raise Infrastructure(
                    f"{each} is a symbolic link", hint="remove it; HEADCOUNT_HOME moves all state at once"
                )

    def _make_all(self) -> None:
        if (size := len(os.fsencode(self.root))) > ROOT_PATH_MAX:
            raise Infrastructure(
                f"the state directory's path has {size} bytes, the limit is {ROOT_PATH_MAX}: {self.root}",
                hint="set HEADCOUNT_HOME to a directory less deep",
            )
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_network(self.root)
            for each in self._folders:
                each.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Infrastructure(
                f"the state directory {self.root} cannot be made: {error.strerror}",
                hint="set HEADCOUNT_HOME to a directory that you can write to",
            ) from error


def _private(path: Path) -> None:
    """Make `path` 0700, or refuse one that somebody else owns or can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or path.is_symlink():
        raise Infrastructure(
            f"{path} is not private to you",
            hint="remove it, or set XDG_RUNTIME_DIR or HEADCOUNT_HOME to a directory of your own",
        )


def _refuse_network(root: Path) -> None:
    """Locks and shared memory are not dependable there (SQLite's WAL needs both)."""
    kind = _file_system(root.resolve())
    if kind in _NETWORK_FS:
        raise Infrastructure(
            f"{root} is on a network file system ({kind})",
            hint="set HEADCOUNT_HOME to a directory on a local disk",
        )


def _file_system(path: Path) -> str | None:
    """Return the type of the file system of `path`, or None where the system does not tell."""
    best, kind = "", None
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, mount, fs, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        if len(mount) >= len(best) and (path == Path(mount) or Path(mount) in path.parents):
            best, kind = mount, fs
    return kind


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. `HEADCOUNT_<NAME>` in the environment sets a field of that name."""

    limits: Limits = field(default_factory=Limits)
    grace: float = 10.0  # seconds between TERM and KILL
    ask_expiry: float = 900.0  # seconds for a person to answer what an agent asks
    output_cap: int = 200_000_000  # bytes kept of each stream of a run
    start_timeout: float = 20.0  # seconds for a runner to answer
    registry_wait: float = 10.0  # seconds for the writers' lock
    views: bool = True
    autostart: bool = True  # start the daemon on first need
    port: int = 0  # of 127.0.0.1 for pages and HTTP-only clients; 0: chosen once and kept
    headcount_every: float = 15.0  # seconds between the daemon's full headcounts
    env: tuple[str, ...] = ()  # further variables that agents get
    worktree_copy: tuple[str, ...] = ()  # files that are not in git and that a new worktree gets
    worktree_setup: tuple[str, ...] = ()  # argv, run in a new worktree
    worktree_setup_timeout: float = 600.0  # seconds
    watchdog_every: float = 10.0  # seconds between the daemon's looks at live runs
    policy: Mapping[str, Any] = field(default_factory=dict)  # domain.policy: the table [policy]
    notify: tuple[Hook, ...] = ()  # who outside is told of what happens; not in the environment


def default_root(environ: Mapping[str, str]) -> Path:
    """Return the state directory: `HEADCOUNT_HOME`, or the platform's place for a user's state."""
    if given := environ.get("HEADCOUNT_HOME"):
        return Path(given).expanduser().absolute()
    import platformdirs  # only here: most processes of a fleet have HEADCOUNT_HOME

    return Path(platformdirs.user_state_dir("headcount"))


def load(home: Home, environ: Mapping[str, str], given: Mapping[str, Any]) -> Settings:
    """Return the settings in force.

    Raises:
        InvalidInput: an unknown name, a wrong type, or a file that is not TOML.
    """
    settings = Settings()
    for source, values in (
        ("settings.toml", _from_file(home)),
        ("the environment", _from_env(environ)),
        ("arguments", given),
    ):
        settings = _merge(settings, values, source)
    return settings


def _from_file(home: Home) -> Mapping[str, Any]:
    try:
        found = tomllib.loads(home.settings_file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Infrastructure(f"{home.settings_file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidInput(f"{home.settings_file} is not valid TOML: {error}") from error
    limits = found.pop("limits", {})
    if not isinstance(limits, dict):
        raise InvalidInput(f"limits in {home.settings_file} is {limits!r}, not a table")
    return {**found, **limits}


_NAMES: Final = {each.name for each in fields(Settings)} - {"limits", "notify"}
_LIMIT_NAMES: Final = {each.name for each in fields(Limits)}


def _from_env(environ: Mapping[str, str]) -> Mapping[str, Any]:
    names = _NAMES | _LIMIT_NAMES
    return {name: environ[key] for name in names if (key := f"HEADCOUNT_{name.upper()}") in environ}


def _merge(settings: Settings, values: Mapping[str, Any], source: str) -> Settings:
    for name, value in values.items():
        if name == "policy":
            settings = replace(settings, policy=_policy(value, source))
        elif name in _LIMIT_NAMES:
            typed = _typed(name, value, getattr(settings.limits, name), source)
            settings = replace(settings, limits=replace(settings.limits, **{name: typed}))
        elif name in _NAMES:
            settings = replace(settings, **{name: _typed(name, value, getattr(settings, name), source)})
        elif name == "notify":
            from headcount.domain.notices import parse_hooks  # only here: most have none

            settings = replace(settings, notify=parse_hooks(value, source=source))
        else:
            raise InvalidInput(
                f"unknown setting {name!r} in {source}",
                hint=f"known: {', '.join(sorted({*_NAMES, *_LIMIT_NAMES, 'notify'}))}",
            )
    return settings


def _policy(value: Any, source: str) -> Mapping[str, Any]:
    """Return the policy of a table, or in the environment of its JSON."""
    try:
        return parse_policy(json.loads(value) if isinstance(value, str) else value)
    except (ValueError, InvalidInput) as error:
        why = error.message if isinstance(error, InvalidInput) else "it is not JSON"
        raise InvalidInput(f"setting policy in {source}: {why}", hint=getattr(error, "hint", "")) from error


def _typed(name: str, value: Any, default: Any, source: str) -> Any:
    """Return `value` in the type of `default`."""
    result: bool | float | tuple[str, ...] | None
    if isinstance(default, bool):
        result = _WORDS.get(str(value).lower())
    elif isinstance(default, tuple):
        result = _names(value)
    else:
        result = _number(value, type(default))
    least, most = _BOUNDS.get(name, (0, SECONDS_MOST if isinstance(default, float) else INTEGER_MOST))
    if result is None or (not isinstance(result, tuple) and not least <= result <= most):
        what = "a list of names" if isinstance(default, tuple) else f"a valid {type(default).__name__}"
        bounds = "" if isinstance(default, bool | tuple) else f"from {least:g} to {most:g}"
        raise InvalidInput(
            f"setting {name} in {source} is {value!r}, not {what}", hint=bounds and f"it may be {bounds}"
        )
    return result


SECONDS_MOST: Final = 1_000_000
"""What every wait of the system can take."""
INTEGER_MOST: Final = 10**15
"""What the registry, JSON and a float can all hold."""
_BOUNDS: Final = {
    "headcount_every": (0.1, 3600),
    "watchdog_every": (0.05, 3600),
    "start_timeout": (0.1, SECONDS_MOST),
    "port": (0, 65_535),
}
_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def _names(value: Any) -> tuple[str, ...] | None:
    """Return names from a list, or from words with blanks or commas between them."""
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return None


def _number(value: Any, kind: type[int | float]) -> int | float | None:
    """Return a number without losing anything of it; no bool is one."""
    if isinstance(value, bool):
        return None
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isinstance(value, str) or number == value else None
