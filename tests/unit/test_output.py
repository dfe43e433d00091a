"""Pages of an agent's output: exact, bounded, and honest about what they leave out."""

import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput
from headcount.domain.output import OutputFormat, OutputPage, OutputWish, check_wish, shape
from headcount.domain.transcript import escape_controls, one_line, render
from headcount.harnesses.catalogue import find
from tests.support.examples import few
from tests.support.written import Stream

TEXT, JSONL, PARSED, SUMMARY, RECENT = OutputFormat


def parse(line: bytes) -> Sequence[Entry]:
    return find("script").read(line)


def page(stream: Stream | bytes, **wish: object) -> OutputPage:
    stream = Stream(stream) if isinstance(stream, bytes) else stream
    return shape(stream.read, OutputWish(**wish), parse)  # type: ignore[arg-type]  # a test names what differs


def numbered(count: int, width: int = 0) -> bytes:
    return b"".join(b"%d%s\n" % (n, b"x" * width) for n in range(count))


# ---------------------------------------------------------------- the end of it


def test_a_tail_returns_exactly_the_lines_asked_for() -> None:
    shown = page(numbered(100), tail=3)
    assert shown.text == "97\n98\n99\n"
    assert (shown.lines, shown.lines_before, shown.bytes_before) == (3, 97, len(numbered(97)))
    assert (shown.more, shown.next_cursor, shown.total_bytes) == (
        False,
        len(numbered(100)),
        len(numbered(100)),
    )


@pytest.mark.parametrize("width", [5_000, 100_000, 3_000_000])
def test_a_tail_of_long_lines_returns_exactly_as_many_shortened(width: int) -> None:
    shown = page(numbered(22, width), tail=20)
    found = shown.text.splitlines()
    assert [line.partition("x")[0] for line in found] == [str(n) for n in range(2, 22)]
    assert len(shown.text.encode()) <= 8_000
    assert (shown.lines, shown.lines_before, shown.lines_shortened) == (20, 2, 20)
    missing = [int(line.partition("(+")[2].partition(" ")[0]) for line in found]
    kept = [len(line.partition(" …")[0]) for line in found]
    assert [a + b for a, b in zip(missing, kept, strict=True)] == [len(str(n)) + width for n in range(2, 22)]


def test_a_tail_reads_no_more_than_it_needs() -> None:
    stream = Stream(numbered(20_000, 4_000))
    page(stream, tail=5)
    assert stream.bytes_read < 2_000_000


def test_short_lines_stay_whole_beside_a_long_one() -> None:
    shown = page(b"first\n" + b"y" * 1_000_000 + b"\nlast\n", tail=3)
    assert shown.text.startswith("first\ny")
    assert shown.text.endswith("\nlast\n")
    assert shown.lines_shortened == 1
    assert len(shown.text) > 7_900


def test_when_not_even_short_forms_fit_the_oldest_are_left_out_and_counted() -> None:
    shown = page(numbered(1000, 200), tail=1000)
    assert len(shown.text.encode()) <= 8_000
    assert shown.lines + shown.lines_left_out == 1000
    assert shown.lines > 90
    assert "999xxx" in shown.text.splitlines()[-1]


def test_nothing_asked_is_the_end_as_far_as_it_fits() -> None:
    shown = page(numbered(10_000))
    assert 7_900 < len(shown.text) <= 8_000
    assert shown.text.endswith("9998\n9999\n")
    assert shown.lines_before == 10_000 - shown.lines
    assert "cursor=0" in shown.note


def test_one_huge_line_is_survived() -> None:
    shown = page(b"z" * 30_000_000)
    assert len(shown.text.encode()) <= 8_000
    assert shown.bytes_shortened == 30_000_000 - len(shown.text.encode())


@few
@given(
    st.lists(st.binary(max_size=300).map(lambda line: line.replace(b"\n", b"")), max_size=40),
    st.integers(1, 50) | st.none(),
    st.integers(1, 3000),
    st.sampled_from([TEXT, JSONL]),
    st.integers(0, 3000),
    st.integers(0, 3000),
)
def test_every_line_is_shown_or_counted_and_no_page_is_too_long(
    lines: list[bytes], tail: int | None, most: int, form: OutputFormat, first: int, lost: int
) -> None:
    written = b"".join(line + b"\n" for line in lines)
    stream = Stream(written, (min(first, len(written)), min(first + lost, len(written))))
    for cursor in (None, 0):
        shown = page(
            stream, tail=tail if cursor is None else None, max_bytes=most, format=form, cursor=cursor
        )
        if not (cursor == 0 and form is TEXT):
            assert len(shown.text.encode()) <= most
            total = shown.lines + shown.lines_filtered + shown.lines_left_out
            assert total + (shown.lines_before or 0) + (shown.lines_after or 0) == len(stream.kept())
        assert shown.bytes_lost == min(first + lost, len(written)) - min(first, len(written))


# ---------------------------------------------------------------- forward


@few
@given(st.text(max_size=2_000).map(str.encode), st.integers(4, 300))
def test_plain_pages_from_cursor_to_cursor_are_the_whole_output(written: bytes, most: int) -> None:
    text, cursor = "", 0
    for _ in range(len(written) + 2):
        shown = page(written, cursor=cursor, max_bytes=most)
        assert len(shown.text.encode()) <= most
        text, cursor = text + shown.text, shown.next_cursor
        if not shown.more:
            break
    assert text == written.decode()


@few
@given(
    st.binary(max_size=2_000),
    st.integers(1, 300),
    st.booleans(),
    st.sampled_from([TEXT, JSONL, PARSED, RECENT]),
)
def test_paging_ends_whatever_was_written(written: bytes, most: int, final: bool, form: OutputFormat) -> None:
    cursor = 0
    for _ in range(len(written) + 2):
        shown = page(written, cursor=cursor, max_bytes=most, final=final, format=form)
        assert shown.next_cursor >= cursor
        cursor = shown.next_cursor
        if not shown.more:
            return
    pytest.fail("it goes on for ever")


def test_a_page_ends_with_a_line_and_a_later_one_goes_on() -> None:
    first = page(b"aaaa\nbbbb\ncccc\n", cursor=0, max_bytes=12)
    assert (first.text, first.next_cursor, first.more) == ("aaaa\nbbbb\n", 10, True)
    assert (first.lines_after, first.bytes_after) == (1, 5)
    second = page(b"aaaa\nbbbb\ncccc\n", cursor=10)
    assert (second.text, second.more) == ("cccc\n", False)


def test_a_character_that_is_half_written_waits_for_its_rest() -> None:
    whole = "aé".encode()
    early = page(whole[:2], cursor=0, final=False)
    assert (early.text, early.next_cursor, early.more) == ("a", 1, False)
    assert page(whole, cursor=early.next_cursor, final=False).text == "é"
    assert page(whole[:2], cursor=0, final=True).text == "a\ufffd"


def test_a_line_that_is_half_written_waits_for_its_rest_where_lines_count() -> None:
    early = page(b'{"a":1}\n{"b":', cursor=0, final=False, format=JSONL)
    assert (early.text, early.next_cursor) == ('{"a":1}\n', 8)
    assert not early.more
    late = page(b'{"a":1}\n{"b":2}', cursor=8, final=True, format=JSONL)
    assert late.text == '{"b":2}\n'


def test_a_cursor_beyond_the_end_waits_there() -> None:
    shown = page(b"abc", cursor=10)
    assert (shown.text, shown.more) == ("", False)


def test_what_the_output_cap_took_is_stepped_over_and_counted() -> None:
    stream = Stream(numbered(1000), (500, 2_000))
    shown = page(stream, cursor=600)
    assert (shown.start, shown.bytes_lost) == (2_000, 1_500)
    assert shown.text == numbered(1000)[2_000:].decode()
    assert page(stream, tail=2).bytes_lost == 1_500


# ---------------------------------------------------------------- filters and formats


def test_a_filter_comes_before_the_tail() -> None:
    shown = page(numbered(1000), tail=2, matches=lambda line: line.endswith(b"7"))
    assert shown.text == "987\n997\n"
    assert (shown.lines, shown.lines_filtered, shown.lines_before) == (2, 11, 987)


def test_a_filter_goes_forward_too() -> None:
    shown = page(numbered(100), cursor=0, matches=lambda line: line.startswith(b"9"), max_bytes=12)
    assert shown.text == "9\n90\n91\n92\n"
    rest = page(numbered(100), cursor=shown.next_cursor, matches=lambda line: line.startswith(b"9"))
    assert rest.text.startswith("93\n")


SCRIPT = (
    b'{"type":"session","agent_id":"a","steps":3}\n'
    b"not json\n"
    b'{"type":"text","text":"hello\\u001b[31m"}\n'
    b'{"type":"tool_call","id":1,"tool":"run","arguments":"ls"}\n'
    b'{"type":"tool_result","id":1,"is_error":true,"text":"exit code 2"}\n'
    b'{"type":"result","exit_code":1,"failed":1}\n'
)


def test_jsonl_shows_the_lines_that_are_objects_and_counts_the_others() -> None:
    shown = page(SCRIPT, format=JSONL)
    assert [json.loads(line)["type"] for line in shown.text.splitlines()] == [
        "session", "text", "tool_call", "tool_result", "result",
    ]  # fmt: skip
    assert shown.lines_filtered == 1


def test_parsed_shows_one_vocabulary() -> None:
    shown = [json.loads(line) for line in page(SCRIPT, format=PARSED).text.splitlines()]
    assert [each["kind"] for each in shown] == [
        "session",
        "unknown",
        "text",
        "tool_call",
        "tool_result",
        "result",
    ]
    assert shown[3] == {"kind": "tool_call", "text": 'run "ls"', "data": json.loads(SCRIPT.splitlines()[3])}


@pytest.mark.parametrize("form", [JSONL, PARSED])
def test_what_is_shortened_is_still_json(form: OutputFormat) -> None:
    long = json.dumps({"type": "text", "text": "é\n" * 100_000}).encode() + b"\n"
    shown = page(long * 3, format=form, tail=3, max_bytes=2_000)
    assert len(shown.text.encode()) <= 2_000
    assert [json.loads(line)["bytes_shortened"] > 190_000 for line in shown.text.splitlines()] == [True] * 3


def test_recent_shows_one_safe_line_for_each_entry() -> None:
    assert page(SCRIPT, format=RECENT).text.splitlines() == [
        "[SYS] script agent with 3 steps",
        "[OTHER] not json",
        "[ASST] hello^[[31m",
        '[TOOL] run "ls"',
        "[ERROR] exit code 2",
        "[END] exit code 1, 1 failed",
    ]
    assert page(SCRIPT * 10, format=RECENT).lines == 20
    assert page(SCRIPT * 10, format=RECENT, tail=2).text.startswith("[ERROR] exit code 2\n[END]")


def test_the_summary_counts_all() -> None:
    text = page(SCRIPT * 1000, format=SUMMARY).text
    assert "tool_call 1000" in text
    assert "tools: run 1000" in text
    assert "last text: hello^[[31m" in text
    assert "result: exit code 1, 1 failed" in text
    assert page(b"", format=SUMMARY).text == "entries: none\n"


@pytest.mark.parametrize(
    "wish",
    [
        {"format": "xml"},
        {"tail": 0},
        {"max_bytes": 0},
        {"max_bytes": 1_000_001},
        {"cursor": -1},
        {"tail": 1, "cursor": 0},
    ],
)
def test_what_cannot_be_shown_is_refused(wish: dict[str, object]) -> None:
    asked: dict[str, object] = {"format": "text", "tail": None, "max_bytes": 8_000, "cursor": None, **wish}
    with pytest.raises(InvalidInput):
        check_wish(**asked)  # type: ignore[arg-type]  # as above


# ---------------------------------------------------------------- what a terminal gets


@few
@given(st.text(st.characters()))
def test_nothing_that_steers_a_terminal_gets_through(text: str) -> None:
    shown = escape_controls(text)
    shown.encode()
    assert not [each for each in shown if each not in "\t\n" and (ord(each) < 32 or 127 <= ord(each) < 160)]
    assert not set(shown) & set(
        "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029"
    )


def test_controls_are_shown_as_what_they_are() -> None:
    assert escape_controls("a\x1b[2J\x00\r\nb\x9b\u202ec\td\x7f") == "a^[[2J^@\nb<U+009B><U+202E>c\td^?"
    assert escape_controls("añ日本😀") == "añ日本😀"


def test_a_transcript_is_readable() -> None:
    entries = [
        Entry(EntryKind.TEXT, "two\nlines"),
        Entry(EntryKind.TOOL_CALL, "Bash " + "x" * 1000),
        Entry(EntryKind.TOOL_RESULT, "\n".join(map(str, range(12)))),
        Entry(EntryKind.ERROR, "bad\x1b]0;x\x07"),
    ]
    lines = render(entries)
    assert lines[:2] == ["two", "lines"]
    assert lines[2].startswith("> Bash xxx")
    assert len(lines[2]) <= 402
    assert lines[3:12] == [*(f"< {n}" for n in range(8)), "< (4 more lines)"]
    assert lines[12:] == ["! bad^[]0;x^G"]


def test_a_one_liner_costs_little_however_long_the_entry_is() -> None:
    entry = Entry(EntryKind.TEXT, "y" * 50_000_000)
    began = time.process_time()
    assert len(one_line(entry)) < 220
    assert time.process_time() - began < 0.1
