from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from headcount.domain.model import Limits
from tests.simulation.stage import Stage, scratch_home


@pytest.fixture
def limits() -> Limits:
    """What the fleet of `stage` is bound by; a test module may have its own."""
    return Limits(spawn_rate=2)


@pytest.fixture
def stage(limits: Limits) -> Iterator[Stage]:
    """A calm machine: every boundary is a switch, and nothing happens but what the test asks for."""
    with scratch_home() as home:
        stage = Stage(random.Random(1), home, limits)
        try:
            yield stage
        finally:
            stage.close()
