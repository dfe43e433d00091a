"""Who is told of what happens: the notification hooks of the settings, and what they are told. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from headcount.domain.errors import InvalidInput
from headcount.domain.model import Event

DEFAULT_KINDS: Final = ("run_ended", "run_lost", "halted", "restart_given_up")
ALL: Final = "*"
TRIES: Final = 8
TRIES_MAX: Final = 100
FIRST_PAUSE: Final = 2.0
FACTOR: Final = 4.0
LONGEST_PAUSE: Final = 3600.0
"""Seconds after a try that failed: 2, 8, 32, ..., an hour. Eight tries take nearly five hours."""
HOOKS_MAX: Final = 50
TEST_KIND: Final = "test"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_KIND: Final = re.compile(r"[a-z_]{1,60}|\*", re.ASCII)
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class NoticeState(StrEnum):
    """What has become of a notice."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"  # after so many tries


class How(StrEnum):
    """How a hook is told."""

    COMMAND = "command"  # a program that gets the notice as JSON on its stdin
    WEBHOOK = "webhook"  # an HTTP POST of it
    DESKTOP = "desktop"  # a line of text, by notify-send


@dataclass(frozen=True, slots=True)
class Hook:
    """Somebody outside who is told of events. One of `command`, `url` and `desktop` is given."""

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    desktop: bool = False
    secret_file: str = ""  # whose content signs what a webhook gets
    on: tuple[str, ...] = DEFAULT_KINDS
    tasks: tuple[str, ...] = ()  # none: of any
    tries: int = TRIES
    pause: float = FIRST_PAUSE  # seconds after the first try; then four times as long each

    @property
    def how(self) -> How:
        return How.COMMAND if self.command else How.WEBHOOK if self.url else How.DESKTOP

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """Return the kinds of events that it is told of, None for all."""
        return None if ALL in self.on else self.on

    def wants(self, event: Event) -> bool:
        """Say whether an event of its kinds is for it."""
        return not self.tasks or event.task_id in self.tasks

    def pause_after(self, tries: int) -> float:
        """Return the seconds until the next try, after so many that failed."""
        return float(min(LONGEST_PAUSE, self.pause * FACTOR ** min(tries - 1, 20)))


@dataclass(frozen=True, slots=True)
class Notice:
    """One event that one hook is to be told of."""

    id: int
    event_id: int
    hook: str
    state: NoticeState
    tries: int
    next_at: float
    reason: str | None


def content(hook: Hook, event: Event, notice: int, at: str | None) -> dict[str, object]:
    """Return what is told: `notice` is the same however often it is told; `at` is the event's time."""
    return {
        "notice": notice,
        "hook": hook.name,
        "text": in_words(event),
        "event": {
            "seq": event.seq,
            "at": at,
            "kind": event.kind,
            "task_id": event.task_id,
            "agent_id": event.agent_id,
            "run": event.run,
            "reason": event.reason,
            "data": dict(event.data),
        },
    }


def in_words(event: Event) -> str:
    """Return an event in one line."""
    subject = event.agent_id or event.task_id or "headcount"
    run = f" run {event.run}" if event.run else ""
    outcome = event.data.get("outcome")
    what = event.kind.replace("_", " ") + (f": {outcome}" if outcome else "")
    return f"{subject}{run}: {what}" + (f" ({event.reason[:300]})" if event.reason else "")


# ---------------------------------------------------------------- as they are written in the settings


def parse_hooks(found: object, *, source: str) -> tuple[Hook, ...]:
    """Return the hooks of a list of tables.

    Raises:
        InvalidInput: a name or a value is wrong, or two hooks have one name.
    """
    if not isinstance(found, list | tuple) or len(found) > HOOKS_MAX:
        raise InvalidInput(f"notify in {source} is not a list of tables, at most {HOOKS_MAX}", hint=_HINT)
    hooks = tuple(each if isinstance(each, Hook) else _parse(each, source) for each in found)
    names = [each.name for each in hooks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"notify in {source} names {', '.join(sorted(twice))} twice", hint=_HINT)
    return hooks


_HINT: Final = "see docs/notifications.md"
_KEYS: Final = tuple(each.name for each in fields(Hook))


def _parse(found: object, source: str) -> Hook:
    if not isinstance(found, Mapping):
        raise InvalidInput(f"a notify in {source} is not a table", hint=_HINT)
    name = found.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"a notify in {source} has the name {str(name)[:40]!r}", hint="a-z, 0-9, _ and -, at most 40"
        )
    where = f"notify {name!r} in {source}"
    if unknown := [str(key) for key in found if key not in _KEYS]:
        raise InvalidInput(f"{where} has {unknown[0][:40]!r}", hint=f"known: {', '.join(_KEYS)}")
    for key, value in found.items():
        if not _CHECKS[key](value):
            shown = "" if key == "url" else f": {str(value)[:80]!r}"  # a URL may have a secret in it
            raise InvalidInput(f"{where} has a {key} that cannot be{shown}", hint=_HINT)
    lists: dict[str, Any] = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
    hook = Hook(**{**found, **lists})
    if sum(map(bool, (hook.command, hook.url, hook.desktop))) != 1:
        raise InvalidInput(f"{where} needs one of command, url and desktop", hint=_HINT)
    if hook.secret_file and not hook.url:
        raise InvalidInput(f"{where} has a secret_file and no url", hint=_HINT)
    return hook


def _words(value: object, most: int = 100) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and 0 < len(value) <= most
        and all(isinstance(each, str) and each and "\0" not in each for each in value)
    )


def _is_url(value: object) -> bool:
    """Say whether something may be told over it: encrypted, or to this machine; no password in it."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  # it raises for one that is none
    except ValueError:
        return False
    return (
        bool(parts.hostname)
        and parts.username is None
        and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL))
    )


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "name": lambda value: isinstance(value, str),
    "command": _words,
    "url": _is_url,
    "desktop": lambda value: isinstance(value, bool),
    "secret_file": lambda value: isinstance(value, str) and value.startswith(("/", "~/")),
    "on": lambda value: _words(value) and all(_KIND.fullmatch(each) for each in value),
    "tasks": _words,
    "tries": lambda value: isinstance(value, int) and _is_number(value, 1, TRIES_MAX),
    "pause": lambda value: _is_number(value, 0.01, LONGEST_PAUSE),
}
