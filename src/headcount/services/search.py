"""Search with patterns that anybody may send: linear in the text, and bounded whatever the pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headcount.domain.errors import InvalidInput

PATTERN_MAX: Final = 1_000
"""Characters; RE2 bounds the memory of a compiled pattern, this bounds what we echo in an error."""

PROGRAM_MAX: Final = 1_500
"""Instructions of a compiled pattern. RE2 takes at worst some 15 ns for each and each byte (measured:
`(a?){1000}b`, 4,005 instructions, 100 kB, 6 s); a long alternation of words has some hundred."""

LINE_MAX: Final = 128 * 1024
"""Bytes of a line that are searched: with the limit above at most 3 s for one line."""

TIME_MAX: Final = 5.0
"""Seconds that all searches of one call may take together."""


def matcher(pattern: str, *, monotonic: Callable[[], float]) -> Callable[[bytes], object]:
    """Return a search for `pattern` in a line of bytes, by RE2: it does not backtrack.

    The search raises InvalidInput when `TIME_MAX` is over.

    Raises:
        InvalidInput: it is empty, too long, too large, or not in RE2's syntax (which has no look-around
            and no back-references).
    """
    search = searcher(pattern, what="a filter")
    deadline = monotonic() + TIME_MAX

    def matches(line: bytes) -> object:
        if monotonic() > deadline:
            raise InvalidInput(
                f"the filter took more than {TIME_MAX:.0f} s",
                hint="use a simpler expression, or read on from a cursor",
            )
        return search(line[:LINE_MAX])

    return matches


def searcher(pattern: str, *, what: str) -> Callable[[bytes], object]:
    """Return a search for `pattern`, which stands for `what` in an error.

    Raises:
        InvalidInput: it is empty, too long, too large, or not in RE2's syntax.
    """
    if not pattern or len(pattern) > PATTERN_MAX:
        raise InvalidInput(f"{what} has 1 to {PATTERN_MAX} characters", hint="use a shorter expression")
    import re2  # type: ignore[import-untyped]  # it has no types; only here: it takes 30 ms to import

    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern.encode("utf-8", "surrogateescape"), options)
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidInput(
            f"{what} is not a valid expression: {_words(error)}",
            hint="it is RE2 syntax: no look-around, no back-references",
        ) from None
    if compiled.programsize > PROGRAM_MAX:
        raise InvalidInput(f"{what} is too large when its repetitions are written out", hint="repeat less")
    search: Callable[[bytes], object] = compiled.search
    return search


def _words(error: Exception) -> str:
    return error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
