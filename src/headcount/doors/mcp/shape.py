"""What a model gets to read: the same facts as text and as data, and never more than a page.

Some clients show the model only the text, some only the data (design notes, what real clients do), so
neither may hold a fact that the other lacks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headcount.domain.errors import HeadcountError

PAGE_CHARS: Final = 8_000
"""Clients cut results between 17,000 and 50,000 characters, two of them show text and data both."""

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: `text` and `facts` say the same."""

    text: str
    facts: Facts
    failed: bool = False


def plain(value: Any, *, row: bool = False) -> Any:
    """Return `value` as JSON types. Rows of a list leave out what is None or empty, to be short."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {name: plain(item) for name, item in found.items() if not (row and item in (None, (), ""))}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, row=True) for item in value]
    return value


def page(answer: Any, *, more: str = "", limit: int = PAGE_CHARS) -> Page:
    """Return `answer` in at most `limit` characters, each in text and in data.

    Rows are left out from the end of the longest list until it fits; `left_out` counts them, and
    `more` says how to get the rest.
    """
    facts: Facts = plain(answer)
    left_out: dict[str, int] = {}
    while (over := size(facts) - limit) > 0:
        name = _longest(facts)
        if name is None:
            break  # one long string: the service has bounded it
        rows: list[Any] = facts[name]
        keep = _fitting(rows, over)
        left_out[name] = left_out.get(name, 0) + len(rows) - keep
        facts = {**facts, name: rows[:keep], "truncated": True, "left_out": dict(left_out)}
        if more:
            facts["next"] = more
    return Page(text(facts), facts)


def rows_that_fit(answer: Any, name: str, *, limit: int = PAGE_CHARS) -> int | None:
    """Return how many rows of the list `name` fit a page, or None if all do."""
    facts: Facts = plain(answer)
    over = size(facts) - limit
    return max(1, _fitting(facts[name], over)) if over > 0 else None


def size(facts: Facts) -> int:
    """Return the characters that an answer takes, in the longer of its two forms."""
    return max(len(_json(facts)), len(text(facts)))


def _longest(facts: Facts) -> str | None:
    lists = {name: len(_json(value)) for name, value in facts.items() if isinstance(value, list) and value}
    return max(lists, key=lambda name: lists[name]) if lists else None


def _fitting(rows: Sequence[Any], over: int) -> int:
    """Return how many of `rows` stay when `over` characters have to go; always fewer than all."""
    keep, gone = len(rows), 0
    while keep and gone < over + 120:  # 120: what `truncated`, `left_out` and `next` take
        keep -= 1
        gone += len(_json(rows[keep])) + 1
    return keep


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text(facts: Mapping[str, Any]) -> str:
    """Return facts as lines that a person and a model read easily; all of them, long texts last."""
    long = {name: value for name, value in facts.items() if isinstance(value, str) and "\n" in value}
    lines = [line for name, value in facts.items() if name not in long for line in _lines(name, value)]
    return "\n".join([*lines, *(f"{name}:\n{value}" for name, value in long.items())])


def _lines(name: str, value: Any) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [f"{name} ({len(value)}):", *(f"- {_line(row)}" for row in value)]
    if isinstance(value, dict) and value:
        return [f"{name}: {_line(value)}"]
    return [f"{name}: {_word(value)}"]


def _line(row: Any) -> str:
    if not isinstance(row, dict):
        return _word(row)
    return " ".join(f"{name}={_word(value, quoted=True)}" for name, value in row.items())


def _word(value: Any, *, quoted: bool = False) -> str:
    if isinstance(value, str):
        return _json(value) if quoted and (not value or not value.isprintable() or " " in value) else value
    return _json(value)


def failure(error: HeadcountError) -> Page:
    """Return a domain error as a tool error: what failed, on what, and what to do."""
    facts = {name: value for name, value in error.facts().items() if value not in (None, "", [])}
    line = f"{facts.pop('code', error.code)}: {facts.pop('message', str(error))}"
    hint = facts.pop("hint", "")
    rest = " ".join(f"{name}={_word(value, quoted=True)}" for name, value in facts.items())
    parts = (line, f"({rest})" if rest else "", f"Next: {hint}" if hint else "")
    return Page("\n".join(part for part in parts if part), {"error": plain(error.facts())}, failed=True)


def paged(read: Callable[[int], Any], name: str, *, limit: int, more: str) -> Page:
    """Return a list answer whose cursor fits what is shown: what is too long is read again, shorter."""
    answer = read(limit)
    while (fits := rows_that_fit(answer, name)) is not None and len(getattr(answer, name)) > 1:
        answer = read(fits)
    return page(answer, more=more)
