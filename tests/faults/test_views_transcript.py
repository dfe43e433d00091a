"""A transcript has every line once, whatever dies in between, and is never larger than it may be."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import Infrastructure
from headcount.runtimes.local import LocalPlacement
from headcount.runtimes.transcript import Transcript


def read(line: bytes) -> Sequence[Entry]:
    return (Entry(EntryKind.TEXT, f"said {line.decode()}"),) if line != b"quiet" else ()


@pytest.fixture
def run(home: Path) -> Path:
    path = home / "run"
    path.mkdir()
    return path


def transcript(run: Path, *, size_max: int = 1_000_000, line_max: int = 1000) -> Transcript:
    placement = LocalPlacement(Home(run.parent))
    return Transcript(str(run), placement, read, size_max=size_max, line_max=line_max)


def write(run: Path, data: bytes, part: str = "output.jsonl") -> None:
    with (run / part).open("ab") as file:
        file.write(data)


def text(run: Path) -> str:
    return (run / "transcript").read_text() if (run / "transcript").exists() else ""


def exhaust(run: Path, *, over: bool = False, **settings: int) -> str:
    made = transcript(run, **settings)
    while made.advance(over=over):
        pass
    return text(run)


def test_complete_lines_are_rendered_and_torn_ones_wait(run: Path) -> None:
    made = transcript(run)
    write(run, b"one\nquiet\ntw")
    assert not made.advance()
    assert text(run) == "said one\n"
    write(run, b"o\n")
    made.advance()
    assert text(run) == "said one\nsaid two\n"


def test_nothing_written_is_nothing_to_do(run: Path) -> None:
    assert not transcript(run).advance()
    assert text(run) == ""


def test_the_last_line_of_a_run_that_is_over_needs_no_line_feed(run: Path) -> None:
    write(run, b"one\ntwo")
    assert exhaust(run, over=True) == "said one\nsaid two\n"
    assert exhaust(run, over=True) == "said one\nsaid two\n"


def test_a_later_daemon_goes_on_where_the_former_was(run: Path) -> None:
    write(run, b"one\ntwo")
    assert exhaust(run) == "said one\n"
    write(run, b" and a half\n")
    assert exhaust(run) == "said one\nsaid two and a half\n"


def test_control_characters_reach_no_terminal(run: Path) -> None:
    write(run, "\x1b]0;owned\x07 \u009b31m\n".encode())
    assert exhaust(run) == "said ^[]0;owned^G <U+009B>31m\n"


def test_a_line_that_is_too_long_is_left_out_and_said_so(run: Path) -> None:
    write(run, b"one\n" + b"x" * 5000 + b"\ntwo\n")
    assert exhaust(run) == "said one\n[a line of more than 1000 bytes left out]\nsaid two\n"


def test_what_the_cap_cut_is_said(run: Path) -> None:
    write(run, b"one\n")
    write(run, b"rest of a line\nlast\n", part="output.1000.jsonl")
    assert exhaust(run) == "said one\n[996 bytes left out]\nsaid last\n"


def test_a_transcript_begins_anew_when_it_is_full(run: Path) -> None:
    write(run, b"".join(b"%03d\n" % number for number in range(1000)))
    exhaust(run, size_max=4000)
    assert (run / "transcript").stat().st_size <= 4000
    kept = (run / "transcript.1").read_text() + text(run)
    assert kept.endswith("".join(f"said {number:03}\n" for number in range(700, 1000)))


def test_a_place_that_cannot_be_read_begins_anew(run: Path) -> None:
    write(run, b"one\n")
    exhaust(run)
    (run / "transcript.place").write_text("{")
    assert exhaust(run) == "said one\n"


def test_text_that_was_written_in_part_is_completed(run: Path) -> None:
    write(run, b"one\n")
    made = transcript(run)
    made.advance()
    write(run, b"two\nthree\n")
    write(run, b"said two\nsa", part="transcript")
    assert exhaust(run) == "said one\nsaid two\nsaid three\n"


def go_on_until(step: int, run: Path, size_max: int) -> None:
    """Go on with the transcript, and be killed before its `step`-th change to a file."""
    left = [step]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "os.remove") and str(run / "transcript") in str(args[0]):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    made = transcript(run, size_max=size_max, line_max=300)
    while made.advance():
        pass


def die_at(step: int, run: Path, size_max: int) -> bool:
    """Do so in a child; return whether it was killed before it was done."""
    pid = os.fork()
    if pid == 0:
        try:
            go_on_until(step, run, size_max)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("size_max", [10_000, 700])
def test_killed_anywhere_nothing_is_lost_or_written_twice(run: Path, size_max: int) -> None:
    lines = [f"{number:03}" for number in range(150)]
    write(run, "".join(f"{line}\n" for line in lines).encode())
    seen: list[str] = []
    step = 0
    while die_at(step, run, size_max):
        step = step + 1
        parts = [part for part in (run / "transcript.1", run / "transcript") if part.exists()]
        seen += [
            line for part in parts for line in part.read_text().split("said ")[1:] if line.endswith("\n")
        ]
    assert step > 5
    whole = "".join(part.read_text() for part in (run / "transcript.1", run / "transcript") if part.exists())
    assert whole.endswith("said 149\n")
    shown = [line.removeprefix("said ") for line in whole.splitlines()]
    assert shown == lines[-len(shown) :]
    if size_max == 10_000:
        assert len(shown) == len(lines)
    else:
        assert {line.strip() for line in seen} | set(shown) == set(lines)


def test_a_run_directory_that_is_gone_is_an_error(run: Path) -> None:
    write(run, b"one\n")
    made = transcript(run)
    made.advance()
    write(run, b"two\n")
    place = json.loads((run / "transcript.place").read_text())
    assert place["offset"] == 4
    (run / "transcript").unlink()
    (run / "transcript").mkdir()
    with pytest.raises(Infrastructure):
        made.advance()
    (run / "transcript").rmdir()
    made.advance()
    assert text(run) == "said two\n"
