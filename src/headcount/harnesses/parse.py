"""Reading lines that a foreign program wrote: nothing in them may raise or poison what comes after."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headcount.domain.entries import Entry, EntryKind


def decode(line: bytes) -> str:
    """Return the text of a line; bytes that are not UTF-8 become U+FFFD."""
    return line.decode("utf-8", "replace")


def load_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a line is, or None. What comes out can be written as JSON again:
    NaN, infinities and lone surrogates are replaced."""
    if line[:1] != b"{":
        return None
    try:
        value = _DECODER.decode(decode(line))
        if b"\\u" in line and b"\\ud" in line.lower():  # perhaps half of a pair, which no encoder takes
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):  # too deep, or a number of over 4,300 digits, is not our JSON either
        return None
    return value if isinstance(value, dict) else None


def clean(text: object) -> str:
    """Return any JSON value as text that can be encoded."""
    if text is None:
        return ""
    found = text if isinstance(text, str) else dump(text)
    return found.encode("utf-8", "replace").decode("utf-8")


def dump(value: object) -> str:
    """Return compact JSON, or a mark for what is too deep to be written."""
    try:
        return json.dumps(value, separators=(",", ":"))
    except (ValueError, RecursionError, TypeError):
        return "(not shown)"


def mapping(value: object) -> Mapping[str, Any]:
    """Return `value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list; of anything else nothing."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def unknown(line: bytes) -> Entry:
    """Return a line that was not understood as it is."""
    return Entry(_UNKNOWN, decode(line))


def last_object(tail: bytes, *, kind: str) -> dict[str, Any] | None:
    """Return the last JSON line of `tail` whose "type" is `kind`; the first line may be a fragment."""
    mark = kind.encode()
    for line in reversed(tail.splitlines()):
        if mark not in line:
            continue
        found = load_object(line)
        if found is not None and found.get("type") == kind:
            return found
    return None


def _no_number(_name: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_UNKNOWN: Final = EntryKind.UNKNOWN
_DECODER: Final = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
"""Made once: `json.loads` would make one for each line."""
