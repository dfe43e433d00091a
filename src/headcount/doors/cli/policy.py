"""The options that say what the watchdog holds agents to."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from headcount.domain.errors import InvalidInput
from headcount.doors.cli.arguments import Span, text_of

_F = TypeVar("_F", bound=Callable[..., Any])
_ACTS: Final = ("flag", "tell_agent", "tell_parent", "stop", "restart")

_LIMITS: Final = (
    ("stall_after_s", "--stall-after", Span(), "SPAN", "Flag it after so long without output and report."),
    ("wall_limit_s", "--wall-limit", Span(), "SPAN", "Longest that a run may last."),
    ("memory_limit_mb", "--memory-limit-mb", float, "N", "Most memory of all its processes."),
    ("output_limit_mb", "--output-limit-mb", float, "N", "Most that it may write."),
    ("linger_after_s", "--linger-after", Span(), "SPAN", "Flag it so long after it said that it is done."),
)
_ON: Final = (
    ("on_stall", "--on-stall", "What to do when it is stalled"),
    ("on_wall", "--on-wall", "What to do when it has run too long"),
    ("on_memory", "--on-memory", "What to do when it uses too much memory"),
    ("on_output", "--on-output", "What to do when it has written too much"),
    ("on_linger", "--on-linger", "What to do when it lives on"),
)


def policy_options(command: _F) -> _F:
    """Give a command the options of a policy; they arrive as one `policy`."""

    @functools.wraps(command)
    def gathered(*, policy_file: str | None, **asked: Any) -> Any:
        given = {} if policy_file is None else _read(policy_file)
        own = {name: asked.pop(name) for name, *_ in (*_LIMITS, *_ON)}
        return command(
            policy={**given, **{name: each for name, each in own.items() if each is not None}}, **asked
        )

    options = [
        click.option(
            "--policy",
            "policy_file",
            metavar="FILE",
            help="What the watchdog does: TOML or JSON; - is stdin.",
        )
    ]
    options += [
        click.option(flag, name, type=kind, metavar=metavar, help=said)
        for name, flag, kind, metavar, said in _LIMITS
    ]
    options += [
        click.option(flag, name, type=click.Choice(_ACTS), help=f"{said} [default: flag].")
        for name, flag, said in _ON
    ]
    made: Any = gathered
    for option in reversed(options):
        made = option(made)
    return made  # type: ignore[no-any-return]  # the same command, with options


def _read(path: str) -> Mapping[str, Any]:
    text = text_of(path, what="policy")
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else _toml(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path} is neither TOML nor JSON: {error}", hint="see docs/supervision.md"
        ) from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} is not an object of names and values", hint="see docs/supervision.md")
    return found


def _toml(text: str) -> object:
    import tomllib  # only here: most commands have no policy

    return tomllib.loads(text)
