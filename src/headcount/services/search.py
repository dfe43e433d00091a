"""Search with patterns that anybody may send: linear in the text, whatever the pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headcount.domain.errors import InvalidInput

PATTERN_MAX: Final = 1000
"""Characters; RE2 bounds the memory of a compiled pattern, this bounds what we echo in an error."""


def matcher(pattern: str) -> Callable[[bytes], object]:
    """Return a search for `pattern` in bytes, by RE2: no backtracking, so no pattern can hang us.

    Raises:
        InvalidInput: it is empty, too long, or not in RE2's syntax (which has no look-around and no
            back-references).
    """
    if not pattern or len(pattern) > PATTERN_MAX:
        raise InvalidInput(f"a filter has 1 to {PATTERN_MAX} characters", hint="use a shorter expression")
    import re2  # type: ignore[import-untyped]  # it has no types; only here: it takes 30 ms to import

    options = re2.Options()
    options.log_errors = False
    try:
        search: Callable[[bytes], object] = re2.compile(pattern.encode(), options).search
    except re2.error as error:
        raise InvalidInput(
            f"the filter is not a valid expression: {_words(error)}",
            hint="it is RE2 syntax: no look-around, no back-references",
        ) from None
    return search


def _words(error: Exception) -> str:
    return error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
