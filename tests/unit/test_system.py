"""What the runner knows of the system, on text and bytes as systems give them."""

from __future__ import annotations

import fcntl
import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.runtimes import records, runner, system
from headcount.runtimes.launch import read_order
from headcount.runtimes.system import Proc

PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_small_json_is_json(value: Any) -> None:
    assert json.loads(system.to_json(value)) == value


def test_text_that_is_not_utf8_does_not_spoil_a_record() -> None:
    assert json.loads(system.to_json({"error": system.text_of(b"bad \xff name")})) == {"error": "bad � name"}


PS_LINUX = b"""\
      1       0       1 Ss   Thu Jan  1 00:00:00 1970
   4242       1    4242 S<l  Thu Feb 29 23:59:59 2024
   4243    4242    4242 Z+   Sat Nov 22 10:11:12 2026
"""
PS_DARWIN = b"""\
    1     0     1 Ss   Thu Jan  1 00:00:00 1970
 4242     1  4242 S+   Thu Feb 29 23:59:59 2024
"""


@pytest.mark.parametrize("raw", [PS_LINUX, PS_DARWIN])
def test_the_table_of_ps_is_understood(raw: bytes) -> None:
    table = system.parse_ps(raw)
    assert table[1].ticks == 0
    assert (table[4242].ppid, table[4242].pgid, table[4242].ticks) == (1, 4242, 1709251199)
    assert all(each.dead == (pid == 4243) for pid, each in table.items())


@given(st.integers(0, 2**32))
def test_the_start_time_of_ps_is_read_as_utc(epoch: int) -> None:
    words = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(epoch)).encode()
    assert system.parse_ps(b"9 1 9 S " + words)[9].ticks == epoch


def test_our_variables_are_found_between_arguments() -> None:
    raw = b"  77 /bin/sh -c x HEADCOUNT_RUN=3 HOME=/root HEADCOUNT_AGENT_ID=a-1\n 8 [kthreadd]\n"
    assert system.parse_environments(raw) == {
        77: {b"HEADCOUNT_RUN": b"3", b"HEADCOUNT_AGENT_ID": b"a-1"},
        8: {},
    }


@pytest.mark.parametrize(("platform", "size"), [("linux", 32), ("darwin", 24)])
def test_a_lock_query_has_the_layout_of_its_system(platform: str, size: int) -> None:
    query, type_at, pid_at = system.lock_query(platform)
    assert len(query) == size
    assert int.from_bytes(query[type_at], "little") == fcntl.F_WRLCK
    assert (type_at.stop - type_at.start, pid_at.stop - pid_at.start) == (2, 4)


def processes(*pairs: tuple[int, int]) -> dict[int, Proc]:
    return {pid: Proc(pid, "S", ppid, pgid=pid, sid=pid, ticks=100) for pid, ppid in pairs}


def test_descent_stops_at_a_spared_process() -> None:
    table = processes((2, 1), (3, 2), (4, 3), (5, 2), (6, 5))
    assert sorted(system.below(table, [2], [])) == [3, 4, 5, 6]
    assert sorted(system.below(table, [2], [3])) == [5, 6]


def test_descent_ends_where_pids_go_in_a_circle() -> None:
    assert sorted(system.below(processes((2, 3), (3, 2)), [2], [])) == [3]


def test_a_session_ends_where_its_number_was_given_to_another() -> None:
    table = processes((10, 1)) | {11: Proc(11, "S", 1, pgid=10, sid=10, ticks=120)}
    assert system.session(table, 10, 100) == {10, 11}
    assert system.session(table, 10, 50) == set()


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"stop 1500\n", 1.5),
        (b"stop 0", 0.0),
        (b"stop", None),
        (b"", None),
        (b"stop -5", None),
        (b"stop 1 2", None),
        (b"STOP 1", None),
        (b"stop \xb2", None),
    ],
)
def test_only_a_whole_request_is_a_stop(line: bytes, seconds: float | None) -> None:
    assert runner.stop_grace(line) == seconds


class Pipe:
    """Hands out an order in the pieces in which a pipe may."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def read(self, _fd: int, _size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


VALUES = st.binary(max_size=12).filter(lambda value: b"\0" not in value)


@given(
    arguments=st.lists(VALUES, max_size=5),
    cuts=st.lists(st.integers(0, 200), max_size=5),
    lost=st.integers(0, 60),
)
def test_an_order_is_taken_whole_or_not_at_all(arguments: list[bytes], cuts: list[int], lost: int) -> None:
    fields = [part for value in arguments for part in (b"arg", value)]
    raw = b"\0".join([*fields, b"new-tag", b"end", b"cwd", b"/", b"end", b""]) + b"\0"
    kept = raw[: max(len(raw) - lost, 0)]
    edges = sorted({0, len(kept), *(cut for cut in cuts if cut < len(kept))})
    pipe = Pipe([kept[a:b] for a, b in pairwise(edges)])
    order = read_order(0, pipe.read)
    if lost:
        assert order is None
    else:
        assert order is not None
        assert order.args == arguments
        assert order.one == {b"new-tag": b"end", b"cwd": b"/"}


def test_the_formats_of_writer_and_reader_are_one() -> None:
    assert runner.FORMAT == records.FORMAT
