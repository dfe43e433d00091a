"""The lifecycle table, and the page that is drawn from it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from headcount.domain.lifecycle import LIVE, TRANSITIONS, Change, IllegalChange, State, advance, sources

DRAW = Path(__file__).parents[2] / "scripts" / "draw_lifecycle.py"


@pytest.mark.parametrize(("state", "change"), list(itertools.product(State, Change)))
def test_what_the_table_does_not_name_cannot_happen(state: State, change: Change) -> None:
    if (state, change) in TRANSITIONS:
        assert advance(state, change) is TRANSITIONS[state, change]
    else:
        with pytest.raises(IllegalChange):
            advance(state, change)


def test_over_stays_over() -> None:
    assert {state for state, _ in TRANSITIONS} == LIVE


def test_every_live_state_can_end_and_can_be_lost() -> None:
    for change in (Change.END_SEEN, Change.FOUND_LOST):
        assert set(sources(change)) == LIVE


def test_the_page_is_current() -> None:
    assert subprocess.run([sys.executable, str(DRAW), "--check"], check=False).returncode == 0
