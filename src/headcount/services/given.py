"""What a caller of the library hands over is of the type that it says; other doors see to it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from headcount.domain.errors import InvalidInput

LABEL_MAX: Final = 256
"""Characters of a key, a model's name and the like."""


def text(name: str, value: object, *, most: int | None = None) -> str:
    """Return `value` if it is a text, of at most `most` characters.

    Raises:
        InvalidInput: it is something else, or longer.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {_kind(value)}, not a text", hint=f"give {name} as a string")
    if most is not None and len(value) > most:
        raise InvalidInput(f"{name} has {len(value)} characters, the limit is {most}", hint="make it shorter")
    return value


def maybe_text(name: str, value: object, *, most: int | None = None) -> str | None:
    return None if value is None else text(name, value, most=most)


def words(name: str, values: object) -> tuple[str, ...]:
    """Return a list of texts. One text alone is not a list of its characters.

    Raises:
        InvalidInput: it is none.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidInput(f"{name} is {_kind(values)}, not a list", hint=f"give {name} as a list of strings")
    return tuple(text(f"{name}[{at}]", each) for at, each in enumerate(values))


def mapping(name: str, value: object) -> Mapping[str, object]:
    """Return a mapping whose keys are texts.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(f"{name} is {_kind(value)}, not a mapping of names", hint=f"give {name} as a dict")
    return value


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
