"""A run directory of every released format is read by this release. The stored ones are never changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.model import (
    ExitRecord,
    LockState,
    Order,
    Process,
    RunKey,
    StartRecord,
    VoidRecord,
)
from headcount.runtimes import records, runner
from headcount.runtimes.local import LocalPlacement
from tests.support import placements

STORED = Path(__file__).parents[1] / "data" / "run-directory-1"
BOOT = "0b0e6c5e-0a3e-4e7d-9d0c-6a1a5a5f7d11"
KEY = RunKey("builder-01jx5e2k9pab12cd", 2)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "stored"))


def test_an_ended_run_of_format_1(home: Path, stored: Path) -> None:
    seen = LocalPlacement(Home(home)).look_at(KEY, str(stored / "ended"))
    assert seen.lock is LockState.FREE
    assert seen.error is None
    assert seen.start == StartRecord(
        runner=Process(4242, 81234, BOOT),
        process=Process(4243, 81236, BOOT),
        pidns="pid:[4026531836]",
        started_at=1750000000.5,
        layers=("subreaper", "apart", "pdeathsig", "cgroup"),
        cgroup="/sys/fs/cgroup/headcount/builder-01jx5e2k9pab12cd.2-0123456789ab",
    )
    assert seen.exit == ExitRecord(
        code=None,
        signal=15,
        error=None,
        stopped=True,
        started_at=1750000000.5,
        ended_at=1750000060.75,
        max_rss_kb=204800,
        cpu_ms=1234,
        output_bytes=5500,
        output_cut=2500,
        stderr_bytes=5,
        stderr_cut=0,
        survivors=(4300,),
    )


def test_a_void_run_of_format_1(home: Path, stored: Path) -> None:
    seen = LocalPlacement(Home(home)).look_at(KEY, str(stored / "void"))
    assert (seen.start, seen.exit) == (None, None)
    assert seen.void == VoidRecord("its deployer died", 1750000001.0)


def test_an_order_of_format_1(stored: Path) -> None:
    assert records.read_order(str(stored / "ended")) == Order(
        key=KEY,
        task_id="task-01jx5e2k9pzz0001",
        role="builder",
        parent="investigator-01jx5e2k8qcd34ef",
        depth=2,
        harness="claude",
        model="opus",
        effort=None,
        argv=("claude", "-p", "--output-format", "stream-json"),
        cwd="/home/someone/project",
        prompt="Mend the roof. — Dächer",
        stdin=None,
        files={},
        grace=10.0,
        output_cap=4000,
        deployer=Process(4100, 81000, BOOT),
        reserved_at=1750000000.25,
        renders=True,
        rows=json.loads((STORED / "ended" / "order.json").read_text())["rows"],
    )


def test_output_of_format_1_is_read_over_its_gap(home: Path, stored: Path) -> None:
    placement = LocalPlacement(Home(home))
    path = str(stored / "ended")
    head = placement.read_output(path, offset=1990, limit=100)
    assert (head.data, head.offset, head.cut, head.end) == (b"000000199\n", 1990, 0, 5500)
    tail = placement.read_output(path, offset=2000, limit=20)
    assert (tail.data, tail.offset, tail.cut) == (b"000000450\n000000451\n", 4500, 2500)
    last = placement.read_output(path, offset=-10, limit=100)
    assert (last.data, last.offset, last.cut) == (b"000000549\n", 5490, 0)
    assert placement.read_output(path, offset=9999, limit=10).data == b""
    assert placement.read_output(path, offset=0, limit=100, stream="stderr").data == b"oops\n"


def test_what_is_written_today_has_the_keys_of_the_stored_format(home: Path) -> None:
    """A key may be added in a later format; none is ever taken away or renamed."""
    with placements.placed(home) as placement:
        seen, _ = placements.begin(placement, home, ("/bin/true",))
        placements.await_free(placement, seen)
        for name in ("order.json", "start.json", "exit.json"):
            now = json.loads(Path(seen.path, name).read_text())
            then = json.loads((STORED / "ended" / name).read_text())
            assert set(now) >= set(then), name
            assert now["format"] == then["format"] == records.FORMAT == runner.FORMAT
        made = placements.order(placement, placements.SLEEP, n=2)
        path = placement.prepare(made)
        placement.void(made.key, path, reason="x")
        assert set(json.loads(Path(path, "void.json").read_text())) == {"format", "reason", "at"}


def test_an_order_comes_back_as_it_was_written(home: Path) -> None:
    with placements.placed(home) as placement:
        made = placements.order(
            placement, ("a", "\udcff"), prompt="é\0\n", parent="x-0000000000000001", renders=True
        )
        path = placement.prepare(made)
        assert records.read_order(path) == made
