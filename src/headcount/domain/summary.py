"""What an agent did, counted, from the entries of its output."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from headcount.domain.entries import Entry
from headcount.domain.transcript import escape_controls, one_line, shorten

ERRORS_SHOWN: Final = 5
WORDS: Final = 1_000
"""Characters shown of the last text and of the result."""


def summarize(entries: Iterable[Entry]) -> str:
    """Return a summary in a few lines, each with a name and a colon."""
    kinds: Counter[str] = Counter()
    tools: Counter[str] = Counter()
    errors: deque[str] = deque(maxlen=ERRORS_SHOWN)
    last: dict[str, Entry] = {}
    for entry in entries:
        kind = str(entry.kind)
        kinds[kind] += 1
        last[kind] = entry
        if kind == "tool_call":
            tools[str(entry.data.get("tool") or entry.text.partition(" ")[0])[:64]] += 1
        if kind in ("error", "permission_denied") or entry.data.get("is_error") is True:
            errors.append(one_line(entry))
    return "\n".join(_lines(kinds, tools, errors, last))


def _lines(
    kinds: Counter[str], tools: Counter[str], errors: deque[str], last: dict[str, Entry]
) -> Iterable[str]:
    if "session" in last:
        yield f"session: {_words(last['session'])}"
    yield f"entries: {_counts(kinds) or 'none'}"
    if tools:
        yield f"tools: {_counts(tools)}"
    if errors:
        yield f"last errors ({len(errors)}):"
        yield from (f"  {each}" for each in errors)
    if "text" in last:
        yield f"last text: {_words(last['text'])}"
    if "usage" in last:
        yield f"usage: {_words(last['usage'])}"
    if "result" in last:
        yield f"result: {_words(last['result'])}"


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{escape_controls(name)} {count}" for name, count in counted.most_common(20))


def _words(entry: Entry) -> str:
    return shorten(" ".join(escape_controls(entry.text[: 4 * WORDS]).split()), WORDS)
