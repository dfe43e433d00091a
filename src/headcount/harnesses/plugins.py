"""Harnesses of other packages: entry points of the group `headcount.harnesses`, by their names.

They are looked for only when a harness is named that is not built in, or when all are listed. What is wrong
with one is said where somebody asks for it, and touches nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import HeadcountError, PlacementFailed
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses.base import Harness, Launch, Probe, Spec, Verdict
from headcount.harnesses.parse import decode
from headcount.harnesses.verdicts import judge_exit

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "headcount.harnesses"
WHY_MAX: Final = 300
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_FLAGS: Final = ("renders", "needs_prompt", "needs_command", "wraps_prompt")
_SETS: Final = {"env_names": str, "env_prefixes": str, "efforts": Effort}
_WORDS: Final = {"abilities": Ability, "permissions": Permissions}
_METHODS: Final = ("check", "command", "interactive", "read", "verdict")

_LOADED: Final[dict[str, Harness]] = {}
"""Those that were loaded, as `sys.modules` keeps what they were loaded from."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One harness of another package; without `harness`, `why` says what is wrong with it."""

    name: str
    package: str
    harness: Harness | None
    why: str = ""


def every(taken: Collection[str]) -> tuple[Plugin, ...]:
    """Load and return all that are installed, by name. None may bear a name that is `taken`."""
    return tuple(_plugins(_entry_points(), taken))


def find(name: str, taken: Collection[str]) -> Plugin | None:
    """Return the one of that name, if there is one; one that was loaded before without looking for it."""
    if name in _LOADED:
        return Plugin(name, "", _LOADED[name])
    named = [each for each in _entry_points() if each.name == name]
    return next(_plugins(named, taken), None)


def _entry_points() -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points  # 20 ms, which no built-in harness is to pay

    return sorted(entry_points(group=GROUP), key=lambda each: (each.name, _package(each)))


def _plugins(points: Sequence[EntryPoint], taken: Collection[str]) -> Iterator[Plugin]:
    for point in points:
        others = {_package(each) for each in points if each.name == point.name} - {_package(point)}
        if point.name in taken:
            yield _broken(point, "a harness of Headcount's own has this name")
        elif others:
            yield _broken(point, f"{', '.join(sorted(others))} has one of this name too")
        else:
            yield _plugin(point)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else ""


def _broken(point: EntryPoint, why: str) -> Plugin:
    return Plugin(point.name, _package(point), None, why[:WHY_MAX])


def _plugin(point: EntryPoint) -> Plugin:
    """Load one; whatever its package raises at its import is an error of this one harness."""
    try:
        loaded = point.load()
        made = Guarded(loaded() if isinstance(loaded, type) else loaded, _package(point))
    except (Exception, SystemExit) as error:  # noqa: BLE001  # somebody else's code: it is told, with its words
        return _broken(point, f"{type(error).__name__}: {error}")
    if made.name != point.name:
        return _broken(point, f"it is registered as {point.name!r} and calls itself {made.name[:64]!r}")
    _LOADED[made.name] = made
    return Plugin(made.name, _package(point), made)


class Guarded:
    """A harness of another package, held to what a harness promises: what it raises beyond that is told as
    its own failure to whoever uses it, and a run of it can always be read and judged."""

    name: str
    renders: bool
    needs_prompt: bool
    needs_command: bool
    wraps_prompt: bool
    env_names: tuple[str, ...]
    env_prefixes: tuple[str, ...]
    abilities: frozenset[Ability]
    permissions: frozenset[Permissions]
    efforts: tuple[Effort, ...]
    probe: Probe | None

    def __init__(self, inner: Any, package: str) -> None:
        """Take over what it says of itself.

        Raises:
            TypeError, ValueError: it is no harness, and in what.
        """
        _check_methods(inner)
        self.name = _of(inner, "name", str)
        for name in _FLAGS:
            setattr(self, name, _of(inner, name, bool))
        for name, kind in _SETS.items():
            setattr(self, name, tuple(_each(inner, name, kind)))
        for name, words in _WORDS.items():
            setattr(self, name, frozenset(words(each) for each in _each(inner, name, str)))
        self.probe = None if getattr(inner, "probe", None) is None else _of(inner, "probe", Probe)
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name[:64]!r} cannot be the name of a harness")
        self._inner: Harness = inner
        self._package = package

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        with self._held("check"):
            self._inner.check(prompt=prompt, command=command, options=options)

    def command(self, spec: Spec) -> Launch:
        with self._held("command"):
            return _launch(self._inner.command(spec))

    def interactive(self, spec: Spec) -> Launch:
        with self._held("interactive"):
            return _launch(self._inner.interactive(spec))

    def read(self, line: bytes) -> Sequence[Entry]:
        try:
            found: Sequence[object] = self._inner.read(line)
            return tuple(each for each in found if isinstance(each, Entry))
        except Exception:  # noqa: BLE001  # a line that it cannot read is what no harness knows
            return (Entry(EntryKind.UNKNOWN, decode(line)),)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        try:
            found: object = self._inner.verdict(record, tail)
        except Exception as error:  # noqa: BLE001  # a run has to end, whatever its harness thinks of it
            plain = judge_exit(record)
            why = f"{plain.reason} (its harness could not judge it: {type(error).__name__}: {error})"
            return Verdict(plain.outcome, why[:WHY_MAX])
        return found if isinstance(found, Verdict) else judge_exit(record)

    def _held(self, what: str) -> _Held:
        return _Held(f"{what}() of harness {self.name}, of the package {self._package},")


class _Held:
    """Lets our own errors through, and tells any other as the failure of a harness."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, HeadcountError):
            raise PlacementFailed(
                f"{self._what} failed: {type(error).__name__}: {error}"[:WHY_MAX],
                hint="tell those who maintain that package",
            ) from error


def _check_methods(inner: Any) -> None:
    lacks = [name for name in _METHODS if not callable(getattr(inner, name, None))]
    if lacks:
        raise TypeError(f"it has no method {', '.join(lacks)}: it is no harness")


def _of(inner: Any, name: str, kind: type) -> Any:
    value = getattr(inner, name, None)
    if not isinstance(value, kind):
        raise TypeError(f"its {name} is no {kind.__name__}")
    return value


def _each(inner: Any, name: str, kind: type) -> Sequence[Any]:
    """Return the words of a set or tuple; one that it does not have is empty."""
    values = getattr(inner, name, ())
    if isinstance(values, str) or not all(isinstance(each, kind) for each in values):
        raise TypeError(f"its {name} are not words")
    return tuple(values)


def _launch(found: object) -> Launch:
    if not isinstance(found, Launch) or not found.argv:
        raise TypeError("it returned no launch")
    return found
