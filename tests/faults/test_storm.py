"""A short storm; `make soak` runs long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.storm import storm


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_storm_nothing_is_lost_doubled_or_left(
    seed: int, home: Path, tmp_path: Path, require_tmux: str
) -> None:
    report = storm(home, tmp_path, seed=seed, operations=60)
    assert not report.wrong, report.table()
