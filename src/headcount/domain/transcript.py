"""An agent's stream as a person reads it, with nothing in it that could steer their terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from headcount.domain.entries import Entry

CALL_CHARS: Final = 400
RESULT_LINES: Final = 8
LINE_CHARS: Final = 400
"""What a transcript shows of a call, of an answer, and of one line of it; the output itself has all."""


def _caret(code: int) -> str:
    return f"^{chr(code ^ 0x40)}"


_BIDI: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SEPARATORS: Final = (0x2028, 0x2029)
_VISIBLE: Final[Mapping[int, str]] = {
    **{code: _caret(code) for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"},
    **{code: f"<U+{code:04X}>" for code in (*range(0x80, 0xA0), *_BIDI, *_SEPARATORS)},
}


def escape_controls(text: str) -> str:
    """Return `text` with what steers a terminal made visible: C0 and DEL as ^X, C1 controls, bidirectional
    overrides and odd line ends as <U+XXXX>. Line feeds and tabs stay; a CR before a line feed goes."""
    if text.isascii() and text.isprintable():
        return text
    shown = text.replace("\r\n", "\n").translate(_VISIBLE)
    return shown if shown.isascii() else shown.encode("utf-8", "replace").decode()


_LABELS: Final = {
    "session": "SYS",
    "text": "ASST",
    "reasoning": "THINK",
    "tool_call": "TOOL",
    "tool_result": "RESULT",
    "file_change": "FILE",
    "usage": "USAGE",
    "rate_limited": "LIMIT",
    "permission_denied": "DENIED",
    "error": "ERROR",
    "result": "END",
}


def one_line(entry: Entry, *, most: int = 200) -> str:
    """Return an entry as `[TOOL] Bash {"command":"ls"}`, in at most `most` characters of its text."""
    kind = str(entry.kind)
    label = _LABELS.get(kind, "OTHER")
    if kind == "tool_result" and entry.data.get("is_error") is True:
        label = "ERROR"
    text = " ".join(escape_controls(entry.text[: 4 * most]).split())
    return f"[{label}] {shorten(text, most)}" if text else f"[{label}]"


def shorten(text: str, most: int) -> str:
    """Return at most `most` characters; an ellipsis says that there were more."""
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"


_MARKS: Final = {
    "session": "* ",
    "text": "",
    "reasoning": "~ ",
    "tool_call": "> ",
    "tool_result": "< ",
    "file_change": "± ",
    "usage": "$ ",
    "rate_limited": "! rate limited: ",
    "permission_denied": "! denied: ",
    "error": "! ",
    "result": "= ",
}


def render(entries: Iterable[Entry]) -> Sequence[str]:
    """Return entries as lines for a person who watches; each is safe for a terminal and has no line feed."""
    lines: list[str] = []
    for entry in entries:
        kind = str(entry.kind)
        mark = _MARKS.get(kind, "? ")
        lines += [f"{mark}{line}" for line in _body(kind, entry.text)]
    return lines


def _body(kind: str, text: str) -> Sequence[str]:
    if kind == "tool_call":
        return [shorten(escape_controls(" ".join(text[: 2 * CALL_CHARS].split())), CALL_CHARS)]
    lines = escape_controls(text).split("\n")
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    if kind in ("text", "result"):
        return lines
    shown = [shorten(line, LINE_CHARS) for line in lines[:RESULT_LINES]]
    if len(lines) > RESULT_LINES:
        shown.append(f"({len(lines) - RESULT_LINES} more lines)")
    return shown
