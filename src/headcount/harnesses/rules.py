"""A rule about a tool in our words: `shell`, `shell(PREFIX)`, `edit`, `read`, `search` or `web`."""

from __future__ import annotations

from typing import Final

from headcount.domain.errors import InvalidInput

WORDS: Final = ("shell", "edit", "read", "search", "web")


def split_rule(rule: str) -> tuple[str, str | None]:
    """Return a rule's word and its prefix; a program's own name for a tool comes back whole, without one.

    Raises:
        InvalidInput: it begins as one of ours, and is none.
    """
    word, bracket, rest = rule.partition("(")
    if word not in WORDS or not bracket:
        return rule, None
    if word != "shell" or not rest.endswith(")") or not rest[:-1].strip():
        raise InvalidInput(
            f"{rule[:60]!r} is no rule about a tool",
            hint="give shell(PREFIX), such as 'shell(git log)'; only shell takes one",
        )
    return word, rest[:-1].strip()
