"""Few start at once, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from headcount.runtimes.gate import gate
from tests.support import forks


def hold(folder: Path, width: int, pipe: int) -> None:
    with gate(str(folder), width, 5.0):
        os.write(pipe, b"in")
        signal.pause()


def test_as_many_as_the_gate_is_wide_get_in(tmp_path: Path) -> None:
    with (
        forks.child(lambda pipe: hold(tmp_path, 2, pipe)) as (_, first),
        forks.child(lambda pipe: hold(tmp_path, 2, pipe)) as (_, second),
    ):
        assert os.read(first, 2) + os.read(second, 2) == b"inin"
        before = time.monotonic()
        with gate(str(tmp_path), 2, 0.3):
            assert time.monotonic() - before >= 0.3
        with gate(str(tmp_path), 3, 5.0):
            assert time.monotonic() - before < 5.0


def test_a_dead_holder_frees_its_place(tmp_path: Path) -> None:
    with forks.child(lambda pipe: hold(tmp_path, 1, pipe)) as (pid, pipe):
        assert os.read(pipe, 2) == b"in"
        os.kill(pid, signal.SIGKILL)
        before = time.monotonic()
        with gate(str(tmp_path), 1, 30.0):
            assert time.monotonic() - before < 10.0


def test_a_stopped_holder_delays_but_does_not_block(tmp_path: Path) -> None:
    with forks.child(lambda pipe: hold(tmp_path, 1, pipe)) as (pid, pipe):
        assert os.read(pipe, 2) == b"in"
        os.kill(pid, signal.SIGSTOP)
        before = time.monotonic()
        with gate(str(tmp_path), 1, 0.5):
            assert 0.5 <= time.monotonic() - before < 5.0


def test_where_there_can_be_no_gate_nobody_waits(tmp_path: Path) -> None:
    before = time.monotonic()
    with gate(str(tmp_path / "none"), 1, 30.0):
        assert time.monotonic() - before < 10.0


def test_a_crowd_passes_the_gate_in_small_groups(tmp_path: Path) -> None:
    def pass_through(index: int) -> int:
        with gate(str(tmp_path / "gates"), 3, 60.0):
            mine = tmp_path / "inside" / str(index)
            mine.touch()
            inside = len(os.listdir(tmp_path / "inside"))
            time.sleep(0.002)
            mine.unlink()
        return inside

    (tmp_path / "gates").mkdir()
    (tmp_path / "inside").mkdir()
    assert max(forks.together(30, pass_through)) <= 3


def test_without_a_directory_for_it_the_gate_is_open(tmp_path: Path) -> None:
    with gate(str(tmp_path / "nowhere"), 2, 0.05):
        pass
