from __future__ import annotations

import os

import pytest

from tests.simulation.driver import simulate

BATCHES = 20
SEEDS = int(os.environ.get("HEADCOUNT_SEEDS", "750"))
ONE = os.environ.get("HEADCOUNT_SEED")


@pytest.mark.timeout(0 if SEEDS > 5_000 else 300)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_count_is_right_in_every_history(batch: int) -> None:
    seeds = range(batch, SEEDS, BATCHES) if ONE is None else [int(ONE)] * (batch == 0)
    for seed in seeds:
        simulate(seed)


def test_a_seed_replays_exactly() -> None:
    assert simulate(7) == simulate(7)
