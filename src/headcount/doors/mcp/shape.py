"""What a model gets to read: the same facts as text and as data, and never more than a page.

Some clients show the model only the text, some only the data (design notes, what real clients do), so
neither may hold a fact that the other lacks.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headcount.domain.errors import HeadcountError

PAGE_CHARS: Final = 8_000
"""Clients cut results between 17,000 and 50,000 characters, two of them show text and data both."""

NOTE_CHARS: Final = 260
"""What `truncated`, `left_out`, `shortened` and `next` take, in the longer of both forms."""
TEXTS: Final = (4_000, 2_000, 1_000)
SHORT_TEXTS: Final = (500, 200, 80)
"""Characters that a text is shortened to, step by step: before any row goes, and when one row is left."""
NESTED: Final = 4
"""What stands below a row may take so many texts' room."""
WHOLE_TEXTS: Final = "texts are shortened: get_agent_output and the command line's --json have them whole"

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


def page(answer: Any, *, more: str = "", limit: int | None = PAGE_CHARS) -> Page:
    """Return `answer` in at most `limit` characters, each in text and in data; None: as long as it is.

    Long texts are shortened first, then rows are left out from the end of the longest list, but not the
    last one while shorter texts make room for it. `shortened` counts the characters, `left_out` the rows,
    and `more` says how to get the rest.
    """
    whole: Facts = plain(answer)
    if limit is None or size(whole) <= limit:
        return Page(text(whole), whole)
    room = limit - NOTE_CHARS - len(more)
    facts = _shortened(whole, room, TEXTS)
    facts, left_out = _without_rows(facts, room, least=1)
    facts = _shortened(facts, room, SHORT_TEXTS)
    facts, none_left = _without_rows(facts, room, least=0)
    gone = Counter(left_out) + Counter(none_left)
    cut = len(compact(whole)) - len(compact(facts)) - sum(_dropped(whole[name], gone[name]) for name in gone)
    notes: Facts = {"truncated": True}
    notes |= {"left_out": dict(gone)} if gone else {}
    notes |= {"shortened": cut} if cut > 0 else {}
    how = "; ".join(filter(None, [more, WHOLE_TEXTS if cut > 0 else ""]))
    facts = {**facts, **notes, **({"next": how} if how else {})}
    return Page(text(facts), facts)


def _shortened(facts: Facts, room: int, steps: Sequence[int]) -> Facts:
    """Return `facts` with texts of at most so many characters as leave enough room, or the fewest."""
    for most in steps:
        if size(facts) <= room:
            break
        facts = {name: _short(value, most, rows=isinstance(value, list)) for name, value in facts.items()}
    return facts


def _short(value: Any, most: int, *, rows: bool = False) -> Any:
    """Return `value` with no text longer than `most`, and below a row nothing much longer than that."""
    if isinstance(value, str) and len(value) > most:
        return f"{value[:most]}… ({len(value) - most} more characters)"
    if isinstance(value, list):
        made = [_short(each, most) for each in value]
        return made if rows else _first(made, most, [])
    if isinstance(value, dict):
        short = {name: _short(each, most) for name, each in value.items()}
        return {name: short[name] for name in _first(list(short), most, list(short.values()))}
    return value


def _first(items: list[Any], most: int, values: list[Any]) -> list[Any]:
    """Return as many `items` as take `NESTED` times `most` characters together with their `values`."""
    taken = 0
    for at, item in enumerate(items):
        taken += len(compact(item)) + (len(compact(values[at])) if values else 0)
        if taken > NESTED * most:
            return items[:at]
    return items


def _without_rows(facts: Facts, room: int, *, least: int) -> tuple[Facts, dict[str, int]]:
    """Return `facts` with rows left out from the end of the longest lists, and how many of each."""
    gone: dict[str, int] = {}
    while (over := size(facts) - room) > 0:
        name = _longest(facts, least)
        if name is None:
            break
        rows: list[Any] = facts[name]
        keep = max(least, _fitting(rows, over))
        gone[name] = gone.get(name, 0) + len(rows) - keep
        facts = {**facts, name: rows[:keep]}
    return facts, gone


def _dropped(rows: Sequence[Any], number: int) -> int:
    return sum(len(compact(each)) + 1 for each in rows[len(rows) - number :])


def rows_that_fit(answer: Any, name: str, *, limit: int = PAGE_CHARS) -> int | None:
    """Return how many rows of the list `name` fit a page, or None if all do."""
    facts: Facts = plain(answer)
    over = size(facts) - limit
    return max(1, _fitting(facts[name], over + NOTE_CHARS)) if over > 0 else None


def size(facts: Facts) -> int:
    """Return the characters that an answer takes, in the longer of its two forms."""
    return max(len(compact(facts)), len(text(facts)))


def _longest(facts: Facts, least: int) -> str | None:
    """Return the name of the longest list that has more than `least` rows."""
    lists = {
        name: len(compact(value))
        for name, value in facts.items()
        if isinstance(value, list) and len(value) > least
    }
    return max(lists, key=lambda name: lists[name]) if lists else None


def _fitting(rows: Sequence[Any], over: int) -> int:
    """Return how many of `rows` stay when `over` characters have to go; always fewer than all."""
    keep, gone = len(rows), 0
    while keep and gone < over:
        keep -= 1
        gone += len(compact(rows[keep])) + 1
    return keep


def compact(value: Any) -> str:
    """Return facts as JSON that takes no more room than it must."""
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
        return compact(value) if quoted and (not value or not value.isprintable() or " " in value) else value
    return compact(value)


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
