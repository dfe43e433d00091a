"""A run has one runner: whoever comes while the lock is held is refused, whatever the records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.errors import PlacementFailed
from headcount.runtimes.local import LocalPlacement, _locked
from tests.support.placements import SLEEP, environment, order


def test_a_runner_that_finds_the_lock_held_starts_nothing(home: Path) -> None:
    placement = LocalPlacement(Home(home))
    made = order(placement, SLEEP)
    path = placement.prepare(made)
    with _locked(f"{path}/lock") as taken:
        assert taken
        with pytest.raises(PlacementFailed, match="lock"):
            placement.start(made.key, path, env=environment(home, made.key), timeout=30)
    assert not Path(path, "start.json").exists()
    assert placement.void(made.key, path, reason="the test is over").void is not None
