"""Filters from anybody: linear in the text, bounded in time, and refused when they are no expression."""

import time
from itertools import count

import pytest

from headcount.domain.errors import InvalidInput
from headcount.services.search import LINE_MAX, TIME_MAX, matcher


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*$", "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a?){200}b"]
)
def test_a_pattern_that_hangs_other_engines_runs_through_a_long_line(pattern: str) -> None:
    find = matcher(pattern, monotonic=time.monotonic)
    began = time.process_time()
    find(b"a" * 3_000_000 + b"!")
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "[",
        "(?=a)b",
        r"(a)\1",
        "((a{1000}){1000}){1000}",
        "(a?){1000}b",
        "(.*){1,300}[bc]",
        "x" * 1001,
        "\ud800",
    ],
)
def test_what_cannot_run_in_linear_time_is_too_large_or_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        matcher(pattern, monotonic=time.monotonic)
    assert caught.value.hint
    assert "b'" not in caught.value.message


def test_a_filter_finds_in_bytes_whatever_they_are() -> None:
    def find(pattern: str, line: bytes) -> bool:
        return bool(matcher(pattern, monotonic=time.monotonic)(line))

    assert find("(?i)ERROR|é", "é is".encode())
    assert find("error", b"\xff\xfe error \x00")
    assert find("error|warning|traceback|failed", b"a warning")
    assert not find("^a$", b"ab")
    assert not find("b", b"a" * LINE_MAX + b"b")


def test_a_search_that_takes_too_long_ends_with_a_hint() -> None:
    seconds = count()
    find = matcher("a", monotonic=lambda: float(next(seconds)))
    for _ in range(int(TIME_MAX)):
        find(b"a")
    with pytest.raises(InvalidInput, match="5 s") as caught:
        find(b"a")
    assert "cursor" in caught.value.hint
