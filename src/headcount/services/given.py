"""What a caller of the library hands over is of the type that it says; other doors see to it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from headcount.domain.errors import InvalidInput

LABEL_MAX: Final = 256
"""Characters of a key, a model's name and the like."""
INTEGER_MAX: Final = 2**63 - 1
"""What the registry can hold."""
SPAN_MAX: Final = 86_400.0
"""Seconds of the longest grace or wait: a day."""


def text(name: str, value: object, *, most: int | None = None) -> str:
    """Return `value` if it is a text, of at most `most` characters.

    Raises:
        InvalidInput: it is something else, or longer.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {_kind(value)}, not a text", hint=f"give {name} as a string")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{name} has half of a surrogate pair", hint=f"give {name} as whole text"
        ) from None
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


def flag(name: str, value: object) -> bool:
    """Return a truth value; a word is none, not even "no".

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is {_kind(value)}, not True or False")
    return value


def number(name: str, value: object, *, least: float = 0.0, most: float) -> float:
    """Return a finite number of that range.

    Raises:
        InvalidInput: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{name} is {_kind(value)}, not a number")
    if not least <= value <= most:  # nor is any "not a number"
        raise InvalidInput(f"{name} is {value:g}, not {least:g} to {most:g}")
    return float(value)


def whole(name: str, value: object, *, least: int = 0, most: int = INTEGER_MAX) -> int:
    """Return a whole number of that range.

    Raises:
        InvalidInput: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} is {_kind(value)}, not a whole number")
    if not least <= value <= most:
        raise InvalidInput(f"{name} is {value}, not {least} to {most}"[:200])
    return value


def maybe_whole(name: str, value: object, *, least: int = 0, most: int = INTEGER_MAX) -> int | None:
    return None if value is None else whole(name, value, least=least, most=most)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
