"""What the watchdog sees, and when it may act: for looks at any times, without a process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headcount.domain.errors import InvalidInput
from headcount.domain.model import ReportStatus
from headcount.domain.policy import Act, Policy, held_to, parse_policy, policy_of
from headcount.domain.watchdog import (
    Detection,
    Sight,
    Signal,
    Track,
    Vitals,
    changes,
    look,
    restart_at,
)

ALIVE = Vitals(alive=True, halted=False, processes=1, cpu_s=1.0, memory_mb=10.0, age_s=1.0)


def sight(at: float, *, report: int = 0, said: ReportStatus | None = None, **vitals: Any) -> Sight:
    return Sight(at, at, replace(ALIVE, age_s=at, **vitals), report, said)


def seen(policy: Policy, *sights: Sight) -> dict[Signal, Detection]:
    """Return what is there after these looks, one after the other."""
    track: Track | None = None
    found: tuple[Detection, ...] = ()
    for each in sights:
        track, found = look(track, each, policy)
    return {each.signal: each for each in found}


STALL = Policy(stall_after_s=10, on_stall=Act.STOP, act_after_s=5)


def test_silence_is_seen_when_it_has_lasted() -> None:
    assert not seen(STALL, sight(0), sight(9))
    assert seen(STALL, sight(0), sight(10))[Signal.STALLED].evidence["silent_s"] == 10


@pytest.mark.parametrize("sign", [{"output": 1}, {"report": 1}])
def test_output_or_a_report_ends_the_silence(sign: dict[str, Any]) -> None:
    assert not seen(STALL, sight(0), sight(9, **sign), sight(18, **sign))


def test_silence_before_the_first_look_does_not_count() -> None:
    assert not seen(STALL, sight(1000), sight(1009))


def test_a_silent_program_that_computes_is_flagged_and_never_ended() -> None:
    busy = seen(STALL, sight(0), sight(50), sight(100, cpu_s=60.0))[Signal.STALLED]
    assert not busy.confirmed
    assert not busy.may_act(STALL)


def test_one_that_is_idle_is_ended_after_its_time() -> None:
    young = seen(STALL, sight(0), sight(10))[Signal.STALLED]
    assert (young.confirmed, young.may_act(STALL)) == (True, False)
    assert seen(STALL, sight(0), sight(10), sight(15))[Signal.STALLED].may_act(STALL)


def test_what_cannot_be_told_confirms_nothing() -> None:
    blind = seen(STALL, sight(0, cpu_s=None), sight(10, cpu_s=None), sight(90, cpu_s=None))
    assert not blind[Signal.STALLED].may_act(STALL)
    policy = Policy(memory_limit_mb=1, on_memory=Act.STOP, act_after_s=0)
    assert not seen(policy, sight(0, memory_mb=None))


def test_one_that_says_it_is_done_lingers_and_is_not_stalled() -> None:
    policy = replace(STALL, linger_after_s=20)
    done: dict[str, Any] = {"report": 1, "said": ReportStatus.DONE}
    assert not seen(policy, sight(0, **done), sight(15, **done))
    assert set(seen(policy, sight(0, **done), sight(20, **done))) == {Signal.LINGERS}


def test_a_halted_process_is_seen_and_going_on_ends_that() -> None:
    policy = Policy(stopped_after_s=10)
    halted = [sight(at, halted=True) for at in (0, 5, 10)]
    assert set(seen(policy, *halted)) == {Signal.STOPPED}
    assert not seen(policy, *halted, sight(12))
    assert not seen(policy, halted[0], sight(5), sight(6, halted=True), sight(12, halted=True))


def test_the_wall_limit_counts_what_was_awake_and_needs_the_kernels_word() -> None:
    policy = Policy(wall_limit_s=60, on_wall=Act.STOP, act_after_s=0)
    assert not seen(policy, sight(10), sight(59))
    young = Sight(100, 100, replace(ALIVE, age_s=5.0))
    assert not seen(policy, young)[Signal.WALL_TIME].may_act(policy)
    assert seen(policy, sight(100))[Signal.WALL_TIME].may_act(policy)


def test_memory_is_confirmed_by_a_second_look() -> None:
    policy = Policy(memory_limit_mb=100, on_memory=Act.STOP, act_after_s=0)
    first = seen(policy, sight(0, memory_mb=101.0))
    assert not first[Signal.MEMORY].may_act(policy)
    assert seen(policy, sight(0, memory_mb=101.0), sight(1, memory_mb=102.0))[Signal.MEMORY].may_act(policy)
    assert not seen(policy, sight(0, memory_mb=101.0), sight(1, memory_mb=99.0))


def test_output_over_its_limit_is_seen() -> None:
    policy = Policy(output_limit_mb=1)
    assert set(seen(policy, sight(0, output=1_000_001))) == {Signal.OUTPUT}
    assert not seen(policy, sight(0, output=1_000_000))


def test_without_limits_nothing_is_seen() -> None:
    off = Policy(linger_after_s=0, stopped_after_s=0, stall_after_s=0)
    assert not seen(off, sight(0, halted=True, memory_mb=1e6), sight(1e6, halted=True, memory_mb=1e6))


def test_flags_follow_what_is_there() -> None:
    there = seen(STALL, sight(0), sight(10))
    assert changes(there, ()) == ((there[Signal.STALLED],), ())
    assert changes(there, (Signal.STALLED,)) == ((), ())
    assert changes({}, (Signal.STALLED,)) == ((), (Signal.STALLED,))


def test_restarts_back_off_and_are_given_up_in_a_sliding_window() -> None:
    policy = Policy(restarts=2, restart_window_s=100, restart_backoff_s=10)
    assert restart_at(policy, [], ended_at=500, now=500) == 510
    assert restart_at(policy, [450], ended_at=500, now=500) == 520
    assert restart_at(policy, [450, 480], ended_at=500, now=500) is None
    assert restart_at(policy, [390, 480], ended_at=500, now=500) == 520


def test_a_clock_that_was_set_back_delays_no_restart_for_ever() -> None:
    found = restart_at(Policy(), [], ended_at=9e9, now=500)
    assert found is not None
    assert found <= 510


# the policy


def test_a_later_layer_and_the_role_count() -> None:
    task = {"stall_after_s": 60, "roles": {"builder": {"stall_after_s": 600, "on_stall": "stop"}}}
    assert policy_of("tester", {"stall_after_s": 5}, task).stall_after_s == 60
    assert policy_of("builder", {}, task).on_stall is Act.STOP
    assert policy_of("builder", {}, task, {"stall_after_s": 7}).stall_after_s == 7


def test_silence_is_looked_for_in_what_streams() -> None:
    assert Policy().for_harness(streams=True).stall_after_s == 900
    assert Policy().for_harness(streams=False).stall_after_s == 0
    assert Policy(stall_after_s=5).for_harness(streams=False).stall_after_s == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"stall": 5},
        {"stall_after_s": -1},
        {"stall_after_s": True},
        {"stall_after_s": "5"},
        {"stall_after_s": float("nan")},
        {"restarts": 1.5},
        {"on_stall": "explode"},
        {"on_stall": ["stop"]},
        {"on_unreported": "stop"},
        {"roles": []},
        {"roles": {"builder": {"roles": {}}}},
        {"roles": {"no role!": {}}},
        [],
    ],
)
def test_a_wrong_policy_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput):
        parse_policy(wrong)


def test_what_is_none_was_not_given() -> None:
    assert parse_policy({"stall_after_s": None, "on_stall": "stop"}) == {"on_stall": "stop"}


def test_an_agent_loosens_nothing_for_those_it_deploys() -> None:
    base = {"wall_limit_s": 60.0, "on_wall": "stop", "memory_limit_mb": 0.0}
    asked = {"wall_limit_s": 600.0, "on_wall": "flag", "stall_after_s": 5.0, "memory_limit_mb": 9.0}
    assert held_to(base, asked) == {"wall_limit_s": 60.0, "stall_after_s": 5.0, "memory_limit_mb": 9.0}
    assert held_to(base, {"wall_limit_s": 0.0}) == {"wall_limit_s": 60.0}
