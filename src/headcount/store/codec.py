"""JSON columns. What is stored was written here, so reading it back needs no doubt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dump(value: object) -> str:
    """Return compact JSON, in ASCII: it holds any string, also half a surrogate pair of a file name."""
    return json.dumps(value, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


def load(text: str) -> Any:
    """Return what `dump` was given, tuples as lists."""
    return json.loads(text)


def load_object(text: str | None) -> Mapping[str, object] | None:
    """Return the object of a column that may be null."""
    if text == "{}":  # what most rows have, read a thousand at a time
        return {}
    return None if text is None else json.loads(text)
