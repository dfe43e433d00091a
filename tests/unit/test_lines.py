"""Lines forward and backward, over any bytes, any block size and a lost middle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.domain import lines
from headcount.domain.lines import backward, count_lines, forward
from tests.support.examples import few
from tests.support.written import Stream

texts = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\n\n", b"\xff\xc3", b"x" * 40]), max_size=30).map(
    b"".join
)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    written = draw(texts)
    first = draw(st.integers(0, len(written)))
    return Stream(written, (first, draw(st.integers(first, len(written)))))


@pytest.fixture(params=[1, 7, 256 * 1024], autouse=True, ids="block-{}".format)
def block(request: pytest.FixtureRequest) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", request.param)
        patch.setattr(lines.spans, "__kwdefaults__", {"block": request.param})
        yield request.param


@few
@given(streams())
def test_forward_yields_each_line_once_in_order(stream: Stream) -> None:
    assert [line.data for line in forward(stream.read, 0, len(stream.written))] == stream.kept()


@few
@given(streams())
def test_backward_is_forward_turned_round(stream: Stream) -> None:
    there = list(forward(stream.read, 0, len(stream.written)))
    assert list(backward(stream.read, len(stream.written)))[::-1] == there


@few
@given(streams())
def test_a_line_says_where_it_stands(stream: Stream) -> None:
    for line in forward(stream.read, 0, len(stream.written)):
        assert stream.written[line.start : line.end] == line.data + b"\n" * line.terminated


@few
@given(streams())
def test_counting_agrees_with_reading(stream: Stream) -> None:
    there = list(forward(stream.read, 0, len(stream.written)))
    size = sum(line.end - line.start for line in there)
    assert count_lines(stream.read, 0, len(stream.written)) == (len(there), size)


@few
@given(streams(), st.integers(1, 20))
def test_of_a_line_that_is_too_long_the_beginning_is_held(stream: Stream, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "LINE_MAX", most)
        there = list(forward(stream.read, 0, len(stream.written)))
        assert [line.data for line in there] == [line[:most] for line in stream.kept()]
        assert list(backward(stream.read, len(stream.written)))[::-1] == there
