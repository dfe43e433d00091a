"""What a runner keeps of an agent's output, and how it is read: byte for byte, with what was cut counted."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.domain.model import LockState
from headcount.runtimes import output
from headcount.runtimes.local import LocalPlacement
from headcount.runtimes.stream import MAX_SEGMENTS, Stream
from tests.support import needs, placements, waiting
from tests.support.placements import await_exit, await_free, begin


@pytest.fixture
def placement(home: Path) -> Iterator[LocalPlacement]:
    with placements.placed(home) as opened:
        yield opened


def written(count: int, start: int = 0) -> bytes:
    """Return bytes that tell where they belong: a number every eight bytes."""
    first = start // 8
    text = b"".join(b"%07d\n" % n for n in range(first, (start + count) // 8 + 1))
    return text[start - first * 8 : start - first * 8 + count]


def numbers(count: int) -> str:
    """Return a program that writes `written(count)`."""
    return (
        "import os\n"
        f"for i in range(0, {count}, 8000):\n"
        "    os.write(1, b''.join(b'%07d\\n' % n for n in range(i // 8, i // 8 + 1000)))\n"
    )


def read_all(path: str, *, step: int, total: int | None = None) -> tuple[dict[int, bytes], int]:
    """Page through a stream from its beginning; return what was there by offset, and what was cut."""
    found: dict[int, bytes] = {}
    cut = at = 0
    while True:
        part = output.read(path, offset=at, limit=step, stream="output", written=total)
        cut += part.cut
        if not part.data:
            assert part.offset == part.end
            return found, cut
        assert part.offset == at + part.cut
        found[part.offset] = part.data
        at = part.offset + len(part.data)


@settings(deadline=None, max_examples=150)
@given(
    cap=st.integers(1, 4000),
    sizes=st.lists(st.integers(1, 900), max_size=30),
    step=st.integers(1, 700),
    back=st.integers(1, 9000),
)
def test_within_the_cap_nothing_is_lost_and_beyond_it_all_is_counted(
    cap: int, sizes: list[int], step: int, back: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    total = 0
    with contextlib.chdir(folder):
        stream = Stream(-1, "output", ".jsonl", cap)
        for size in sizes:
            stream.keep(written(size, total))
            total += size
        stream.close()
    assert stream.total == total
    kept = sum(file.stat().st_size for file in folder.iterdir())
    assert kept + stream.cut == total
    assert kept <= max(cap, 3)
    assert stream.cut == 0 or kept >= cap // 2
    if total <= cap:
        assert stream.cut == 0
    found, cut = read_all(str(folder), step=step, total=total)
    assert cut == stream.cut
    for offset, data in found.items():
        assert data == written(len(data), offset)
    last = output.read(str(folder), offset=-back, limit=back, stream="output", written=total)
    assert last.offset - last.cut == max(total - back, 0)
    assert last.data == written(len(last.data), last.offset)
    assert last.end == total


def test_an_unwritable_disk_leaves_a_gap_that_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segments behind a gap carry their true offsets."""
    monkeypatch.chdir(tmp_path)
    stream = Stream(-1, "output", ".jsonl", 100_000)
    stream.keep(written(5000))
    stream.close()
    stream.out = os.open("/dev/full", os.O_WRONLY)
    stream.keep(written(3000, 5000))
    stream.keep(written(2000, 8000))
    assert (stream.total, stream.cut) == (10_000, 3000)
    found, cut = read_all(str(tmp_path), step=100_000)
    assert cut == 3000
    assert found == {0: written(5000), 8000: written(2000, 8000)}


def test_the_number_of_segments_is_bounded_even_on_a_disk_that_is_full_on_and_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stream = Stream(-1, "output", ".jsonl", 1_000_000)
    for _ in range(5 * MAX_SEGMENTS):
        stream.keep(b"kept")
        stream.close()
        stream.out = os.open("/dev/full", os.O_WRONLY)
        stream.keep(b"lost")
    assert len(list(tmp_path.iterdir())) <= MAX_SEGMENTS + 1
    kept = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert kept + stream.cut == stream.total == 5 * MAX_SEGMENTS * 8


def test_an_agents_bytes_arrive_as_they_were_written(placement: LocalPlacement, home: Path) -> None:
    code = "import os,sys\nfor i in range(256): os.write(1, bytes([i]) * i); os.write(2, bytes([255 - i]))"
    seen, _ = begin(placement, home, (sys.executable, "-I", "-S", "-c", code))
    record = await_exit(placement, seen)
    out = b"".join(bytes([i]) * i for i in range(256))
    assert placement.read_output(seen.path, offset=0, limit=1 << 20).data == out
    assert placement.read_output(seen.path, offset=0, limit=1 << 20, stream="stderr").data == bytes(
        range(255, -1, -1)
    )
    assert (record.output_bytes, record.output_cut) == (len(out), 0)
    assert (record.stderr_bytes, record.stderr_cut) == (256, 0)


def test_the_last_words_of_an_agent_that_ends_at_once_are_kept(placement: LocalPlacement, home: Path) -> None:
    """More than a pipe holds is written while it runs, the rest lies in the pipe when it ends."""
    code = "import os; os.write(1, b'x' * 60000); os.write(2, b'end'); os._exit(0)"
    seen, _ = begin(placement, home, (sys.executable, "-I", "-S", "-c", code))
    assert await_exit(placement, seen).output_bytes == 60000


def test_a_flood_is_kept_to_head_and_tail(placement: LocalPlacement, home: Path) -> None:
    code = numbers(40_000_000)
    seen, _ = begin(placement, home, (sys.executable, "-I", "-S", "-c", code), output_cap=1_000_000)
    record = await_exit(placement, seen)
    assert record.output_bytes == 40_000_000
    kept = record.output_bytes - record.output_cut
    assert 750_000 <= kept <= 1_000_000
    head = placement.read_output(seen.path, offset=0, limit=1 << 20)
    assert head.data == written(500_000)
    rest = placement.read_output(seen.path, offset=500_000, limit=1 << 20)
    assert rest.cut == record.output_cut
    assert rest.data == written(len(rest.data), rest.offset)
    assert rest.offset + len(rest.data) == rest.end == 40_000_000


def test_output_can_be_followed_while_it_is_written_and_rotated(
    placement: LocalPlacement, home: Path
) -> None:
    code = numbers(8_000_000)
    seen, _ = begin(placement, home, (sys.executable, "-I", "-S", "-c", code), output_cap=200_000)
    at = got = cut = 0
    while True:
        ended = placement.look_at(seen.key, seen.path).lock is LockState.FREE
        part = placement.read_output(seen.path, offset=at, limit=30_000)
        assert part.offset == at + part.cut
        assert part.data == written(len(part.data), part.offset)
        at = part.offset + len(part.data)
        got, cut = got + len(part.data), cut + part.cut
        if ended and not part.data:
            break
    assert at == got + cut == 8_000_000


def test_a_closed_stream_does_not_keep_the_runner_busy(placement: LocalPlacement, home: Path) -> None:
    _, started = begin(placement, home, ("/bin/sh", "-c", "exec >&- 2>&-; exec sleep 600"))

    def used() -> int:
        fields = Path(f"/proc/{started.runner.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    waiting.until(
        lambda: len(os.listdir(f"/proc/{started.process.pid}/fd")) == 1, what="the streams are closed"
    )
    before = used()
    waited = threading.Event()
    waited.wait(1.0)
    assert used() - before <= 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    needs.root()
    place = tmp_path / "disk"
    place.mkdir()
    if os.spawnlp(os.P_WAIT, "mount", "mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(place)):
        needs.lacking("a tmpfs cannot be mounted")
    yield place
    waiting.until(
        lambda: not os.spawnlp(os.P_WAIT, "umount", "umount", "-q", str(place)), what="the disk is not in use"
    )


def fill(disk: Path) -> None:
    """Take all the space that is left."""
    try:
        with open(disk / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def test_on_a_full_disk_the_agent_lives_and_its_end_is_known(small_disk: Path) -> None:
    with placements.placed(small_disk) as placement:
        code = (
            "import os,sys\n"
            "for _ in range(500): os.write(1, b'x' * 8000)\n"
            "os.write(2, b'done'); sys.stdin.read()\n"
            "os.close(1); os._exit(7)"
        )
        seen, _ = begin(
            placement, small_disk, (sys.executable, "-I", "-S", "-c", code), output_cap=10_000_000
        )
        record = await_exit(placement, seen)
        assert os.statvfs(small_disk).f_bavail == 0
        assert (record.code, record.error) == (7, None)
        assert record.output_bytes == 4_000_000
        assert record.output_cut > 1_000_000
        part = placement.read_output(seen.path, offset=0, limit=10_000_000)
        assert len(part.data) == record.output_bytes - record.output_cut
        assert part.end == record.output_bytes


def test_on_a_full_disk_a_stop_still_arrives(small_disk: Path) -> None:
    with placements.placed(small_disk) as placement:
        seen, _ = begin(placement, small_disk)
        fill(small_disk)
        assert placement.signal_stop(seen.key, seen.path, grace=1)
        assert await_exit(placement, seen).stopped


def test_on_a_full_disk_nothing_is_prepared_or_left(small_disk: Path) -> None:
    from headcount.domain.errors import PlacementFailed

    with placements.placed(small_disk) as placement:
        made = placements.order(placement, placements.SLEEP, stdin=bytes(3_000_000))
        with pytest.raises(PlacementFailed, match="space"):
            placement.prepare(made)
        assert list(placement.look()) == []
        assert not os.path.exists(placement.run_path(made.key, reserved_at=made.reserved_at))


def test_on_a_full_disk_a_start_fails_with_the_reason(small_disk: Path) -> None:
    from headcount.domain.errors import PlacementFailed

    with placements.placed(small_disk) as placement:
        begin(placement, small_disk, ("/bin/true",))  # the compiled runner is there
        made = placements.order(placement, placements.SLEEP, n=2)
        path = placement.prepare(made)
        fill(small_disk)
        with pytest.raises(PlacementFailed, match="space"):
            placement.start(made.key, path, env={}, timeout=20)
        seen = await_free(placement, placement.look_at(made.key, path))
        assert seen.start is None
