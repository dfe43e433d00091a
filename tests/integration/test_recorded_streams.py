"""The recordings of real agents are whole, and say nothing of the machine that made them."""

import json
import re

import pytest

from tests.support import agent_clis, streams
from tests.support.streams import Stream

MACHINE = re.compile(rb"/root|/home/(?!user)|/tmp/(?!cc-socks/4711)\w|/work/\w*/|hcr-|127\.0\.0\.1:(?!8000)")
NOW = re.compile(rb"\b202\d-\d\d-\d\dT| 202\d \d\d:")


@pytest.mark.parametrize("stream", streams.every(), ids=str)
def test_a_recording_can_be_read_and_is_neutral(stream: Stream) -> None:
    assert [type(json.loads(line)) for line in stream.lines] == [dict] * len(stream.lines)
    said = stream.output + stream.stderr.encode()
    assert not MACHINE.findall(said)
    assert not NOW.findall(said)
    assert (stream.code is None) != (stream.signal is None)


def test_there_are_the_same_recordings_of_each_cli() -> None:
    cases = {cli: {stream.case for stream in streams.every(cli)} for cli in agent_clis.NAMES}
    assert cases["claude"]
    assert all(cases[cli] == cases["claude"] for cli in cases), cases
    files = {path.stem for path in streams.FOLDER.glob("*.jsonl")}
    assert files == {stream.name for stream in streams.every()}
