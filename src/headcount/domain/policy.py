"""What the watchdog is to look for on an agent, and what it does then. Pure.

A policy is given in layers: the settings, the task, the deploy; in the first two also by role. What a later
layer says counts, and in one layer what it says of the role.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, TypeAlias

from headcount.domain.errors import InvalidInput
from headcount.domain.ids import check_role

Given: TypeAlias = Mapping[str, Any]
"""A layer as it was given: names of `Policy` to values, and under `roles` the same for a role."""

ROLES: Final = "roles"
ROLES_MAX: Final = 100
SECONDS_MAX: Final = 366 * 86_400.0
MEGABYTES_MAX: Final = 100_000_000
RESTARTS_MAX: Final = 100
STALL_OF_STREAMS: Final = 900.0
"""Seconds of silence of a program that streams what it does; the others may be silent all their life."""


class Act(StrEnum):
    """What is done about what was seen. A flag is raised in any case."""

    FLAG = "flag"
    TELL_AGENT = "tell_agent"
    TELL_PARENT = "tell_parent"
    STOP = "stop"
    RESTART = "restart"  # a stop, and a further run that goes on with the conversation


ENDS: Final = frozenset({Act.STOP, Act.RESTART})
"""What ends a run: it needs a second witness and time."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All limits are off at 0. Seconds are such in which the machine is awake and somebody watches."""

    stall_after_s: float | None = None  # without output and report; None: by harness
    wall_limit_s: float = 0.0  # of the whole run
    memory_limit_mb: float = 0.0  # of the whole tree
    output_limit_mb: float = 0.0  # of both streams
    linger_after_s: float = 300.0  # silent after a report that it is done, or has failed
    stopped_after_s: float = 30.0  # halted by a signal
    on_stall: Act = Act.FLAG
    on_wall: Act = Act.FLAG
    on_memory: Act = Act.FLAG
    on_output: Act = Act.FLAG
    on_linger: Act = Act.FLAG
    on_stopped: Act = Act.FLAG
    on_unreported: Act = Act.FLAG  # flag or tell_parent: it is over
    act_after_s: float = 30.0  # from the first sight to what ends a run
    restarts: int = 3  # within the window; then it is given up
    restart_window_s: float = 3600.0
    restart_backoff_s: float = 10.0  # before the first restart; doubled with each in the window

    def for_harness(self, *, streams: bool) -> Policy:
        """Return the same with what depends on the harness."""
        if self.stall_after_s is not None:
            return self
        return replace(self, stall_after_s=STALL_OF_STREAMS if streams else 0.0)


NAMES: Final = tuple(field.name for field in fields(Policy))


def policy_of(role: str, *layers: Given) -> Policy:
    """Return what holds for a role under these layers, the strongest last."""
    return Policy(**_parsed(merged(role, *layers)))


def merged(role: str, *layers: Given) -> dict[str, Any]:
    """Return what these layers give for a role."""
    found: dict[str, Any] = {}
    for layer in layers:
        found |= {name: value for name, value in layer.items() if name != ROLES}
        found |= layer.get(ROLES, {}).get(role, {})
    return found


def parse_policy(given: object, *, roles: bool = True) -> dict[str, Any]:
    """Return a checked layer, as it can be written as JSON; what is None was not given.

    Raises:
        InvalidInput: an unknown name, a wrong type, or a value out of its range.
    """
    if not isinstance(given, Mapping):
        raise InvalidInput("a policy is not an object of names and values", hint=f"known: {', '.join(NAMES)}")
    told = {name: value for name, value in given.items() if value is not None and name != ROLES}
    plain: dict[str, Any] = {
        name: value.value if isinstance(value, Act) else value for name, value in _parsed(told).items()
    }
    if given.get(ROLES) is not None:
        if not roles:
            raise InvalidInput("a policy by role is for tasks and settings", hint="leave roles out")
        plain[ROLES] = _by_role(given[ROLES])
    return plain


def _by_role(given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping) or len(given) > ROLES_MAX:
        raise InvalidInput(f"roles of a policy is not an object of at most {ROLES_MAX} roles")
    return {check_role(str(role)): parse_policy(each, roles=False) for role, each in given.items()}


def _parsed(given: Given) -> dict[str, Any]:
    for name in given:
        if name not in NAMES:
            raise InvalidInput(f"a policy has no {str(name)[:40]!r}", hint=f"known: {', '.join(NAMES)}")
    return {name: _PARSERS[name](name, value) for name, value in given.items()}


def _number(most: float) -> Callable[[str, object], float]:
    def parse(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise InvalidInput(f"{name} is {str(value)[:40]}", hint=f"a number from 0 (off) to {most:.0f}")
        return float(value)

    return parse


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= RESTARTS_MAX:
        raise InvalidInput(f"{name} is {str(value)[:40]}", hint=f"a whole number from 0 to {RESTARTS_MAX}")
    return value


def _act(*allowed: Act) -> Callable[[str, object], Act]:
    def parse(name: str, value: object) -> Act:
        if not isinstance(value, str) or value not in {each.value for each in allowed}:
            raise InvalidInput(f"{name} is {str(value)[:40]!r}", hint=f"one of {', '.join(allowed)}")
        return Act(value)

    return parse


_PARSERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    **{name: _number(SECONDS_MAX) for name in NAMES if name.endswith("_s")},
    **{name: _number(MEGABYTES_MAX) for name in NAMES if name.endswith("_mb")},
    **{name: _act(*Act) for name in NAMES if name.startswith("on_")},
    "on_unreported": _act(Act.FLAG, Act.TELL_PARENT),
    "restarts": _whole,
}


def held_to(base: Given, asked: Given) -> dict[str, Any]:
    """Return what an agent may set for one that it deploys: nothing that `base` says is loosened. Of limits
    the lower counts; what is to be done, and how often, is as `base` has it."""
    kept: dict[str, Any] = {}
    for name, value in asked.items():
        if name not in base:
            kept[name] = value
        elif name in _LIMITS:
            kept[name] = min((each for each in (base[name], value) if each), default=0.0)
    return kept


_LIMITS: Final = frozenset(
    (
        "stall_after_s",
        "wall_limit_s",
        "memory_limit_mb",
        "output_limit_mb",
        "linger_after_s",
        "stopped_after_s",
    )
)
