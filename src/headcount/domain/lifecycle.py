"""The life of a run: one table, shared by the code, the SQL constraints, the tests and the docs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """What the registry holds of a run. The first three are live."""

    RESERVED = "reserved"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    LOST = "lost"


LIVE: Final[frozenset[State]] = frozenset({State.RESERVED, State.RUNNING, State.STOPPING})


class Outcome(StrEnum):
    """How an ended run ended: the harness's verdict over exit record and result."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    OVER_BUDGET = "over_budget"
    START_FAILED = "start_failed"


class Change(StrEnum):
    """What happened to a run."""

    CONFIRMED = "confirmed"
    STOP_ASKED = "stop_asked"
    END_SEEN = "end_seen"
    FOUND_LOST = "found_lost"


class IllegalChange(Exception):
    """The change cannot happen in that state; nothing has changed."""


TRANSITIONS: Final[Mapping[tuple[State, Change], State]] = {
    (State.RESERVED, Change.CONFIRMED): State.RUNNING,
    (State.RESERVED, Change.STOP_ASKED): State.STOPPING,
    (State.RESERVED, Change.END_SEEN): State.ENDED,
    (State.RESERVED, Change.FOUND_LOST): State.LOST,
    (State.RUNNING, Change.STOP_ASKED): State.STOPPING,
    (State.RUNNING, Change.END_SEEN): State.ENDED,
    (State.RUNNING, Change.FOUND_LOST): State.LOST,
    (State.STOPPING, Change.END_SEEN): State.ENDED,
    (State.STOPPING, Change.FOUND_LOST): State.LOST,
    # no row for a state that is over: over stays over
}


def advance(state: State, change: Change) -> State:
    """Return the state that follows.

    Raises:
        IllegalChange: `change` may not happen in `state`; nothing has changed.
    """
    try:
        return TRANSITIONS[state, change]
    except KeyError:
        raise IllegalChange(f"{change} cannot happen to a run that is {state}") from None


def sources(change: Change) -> tuple[State, ...]:
    """Return the states in which `change` may happen, for a compare-and-set."""
    return tuple(state for (state, what) in TRANSITIONS if what is change)
