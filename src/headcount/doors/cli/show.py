"""How an answer leaves: the facts as JSON, or as text for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def json_option(command: _F) -> _F:
    """Give a command `--json`; it arrives as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")(
        command
    )


def show(answer: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Print `answer` (a dataclass or a mapping) as JSON, or what `text` makes of it; nothing for no text."""
    if as_json:
        print(to_json(answer))
    elif said := text():
        print(said)


def to_json(answer: Any) -> str:
    """Return the answer on one line, answers within it too; what JSON lacks is a string."""
    return json.dumps(answer, default=_plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
