"""A stop that begins with an interrupt: last words, then TERM after a part of the grace, then KILL."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from headcount.domain.model import ExitRecord, Seen
from headcount.runtimes import records
from headcount.runtimes.local import LocalPlacement
from tests.support import placements, waiting
from tests.support.placements import AS_ON_A_MAC, await_exit, begin

AGENT: Final = """
import os, signal, subprocess, sys, time
heed, *child = sys.argv[1:]
def say(word):
    os.write(1, word.encode() + b"\\n")
def on_int(*_):
    say("interrupted")
    if "int" in heed:
        sys.exit(0)
def on_term(*_):
    say("term")
    if "term" in heed:
        sys.exit(0)
signal.signal(signal.SIGINT, on_int)
signal.signal(signal.SIGTERM, on_term)
if child:
    subprocess.Popen([sys.executable, "-I", "-S", "-c", child[0]])
say("ready")
while True:
    time.sleep(60)
"""
"""Says which signals reach it, and ends on those it heeds."""

CHILD: Final = """
import os, signal, sys, time
def say(word):
    os.write(1, word.encode() + b"\\n")
def on_term(*_):
    say("child: term")
    sys.exit(0)
signal.signal(signal.SIGINT, lambda *_: say("child: interrupted"))
signal.signal(signal.SIGTERM, on_term)
say("child: ready")
while True:
    time.sleep(60)
"""


@pytest.fixture
def placement(home: Path) -> Iterator[LocalPlacement]:
    with placements.placed(home) as opened:
        yield opened


def agent(heed: str, *, child: bool = False) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", AGENT, heed, *([CHILD] if child else []))


def started(placement: LocalPlacement, home: Path, argv: tuple[str, ...], *, interrupts: bool) -> Seen:
    seen, _ = begin(placement, home, argv, interrupts=interrupts)
    wanted = {b"ready"} | ({b"child: ready"} if argv[-1] == CHILD else set())
    waiting.until(lambda: wanted <= set(said(placement, seen).split(b"\n")), what="it can be signalled")
    return seen


def said(placement: LocalPlacement, seen: Seen) -> bytes:
    return placement.read_output(seen.path, offset=0, limit=1000).data


def stopped(placement: LocalPlacement, seen: Seen, grace: float) -> tuple[ExitRecord, list[str], float]:
    """Stop it; return its record, what it said of signals, and how long that took."""
    asked = time.monotonic()
    placement.signal_stop(seen.key, seen.path, grace=grace)
    record = await_exit(placement, seen)
    took = time.monotonic() - asked
    words = said(placement, seen).decode().split("\n")
    return record, [each for each in words if each and not each.endswith("ready")], took


def test_an_agent_that_wants_it_is_interrupted_and_has_the_last_word(
    placement: LocalPlacement, home: Path
) -> None:
    seen = started(placement, home, agent("int term"), interrupts=True)
    record, words, _ = stopped(placement, seen, 10)
    assert (record.code, record.stopped, words) == (0, True, ["interrupted"])


def test_any_other_gets_a_term_at_once(placement: LocalPlacement, home: Path) -> None:
    seen = started(placement, home, agent("int term"), interrupts=False)
    record, words, took = stopped(placement, seen, 60)
    assert (record.code, record.stopped, words) == (0, True, ["term"])
    assert took < 30


@pytest.mark.parametrize("without", [frozenset[str](), AS_ON_A_MAC], ids=["linux", "as on a mac"])
def test_only_the_agent_itself_is_interrupted_and_what_it_leaves_gets_a_term(
    home: Path, without: frozenset[str]
) -> None:
    with placements.placed(home, without) as placement:
        seen = started(placement, home, agent("int", child=True), interrupts=True)
        record, words, _ = stopped(placement, seen, 10)
    assert (record.code, record.survivors) == (0, ())
    assert words == ["interrupted", "child: term"]


def test_one_that_does_not_end_gets_a_term_within_its_grace(placement: LocalPlacement, home: Path) -> None:
    seen = started(placement, home, agent("term"), interrupts=True)
    record, words, took = stopped(placement, seen, 1.0)
    assert (record.code, words) == (0, ["interrupted", "term"])
    assert took >= 0.5  # half of a short grace is for its last words


def test_of_a_long_grace_the_interrupt_takes_two_seconds(placement: LocalPlacement, home: Path) -> None:
    seen = started(placement, home, agent("term"), interrupts=True)
    record, words, took = stopped(placement, seen, 60)
    assert (record.code, words) == (0, ["interrupted", "term"])
    assert 2.0 <= took < 20


def test_one_that_ignores_both_is_killed_at_the_end_of_its_grace(
    placement: LocalPlacement, home: Path
) -> None:
    over = []
    for n in (1, 2, 3):
        seen, _ = begin(placement, home, agent("nothing"), n=n, interrupts=True)
        waiting.until(lambda seen=seen: said(placement, seen), what="it can be signalled")  # type: ignore[misc]
        record, words, took = stopped(placement, seen, 0.4)
        assert (record.signal, record.stopped, words) == (signal.SIGKILL, True, ["interrupted", "term"])
        over.append(took - 0.4)
    assert min(over) < 0.3


def test_a_kill_waits_for_no_last_words(placement: LocalPlacement, home: Path) -> None:
    seen = started(placement, home, agent("int term"), interrupts=True)
    record, words, _ = stopped(placement, seen, 0)
    assert (record.signal, words) == (signal.SIGKILL, [])


def test_a_kill_that_follows_ends_the_wait_for_last_words(placement: LocalPlacement, home: Path) -> None:
    seen = started(placement, home, agent("nothing"), interrupts=True)
    placement.signal_stop(seen.key, seen.path, grace=600)
    waiting.until(lambda: b"interrupted" in said(placement, seen), what="it is interrupted")
    record, _, took = stopped(placement, seen, 0)
    assert record.signal == signal.SIGKILL
    assert took < 30


def test_one_that_is_suspended_says_its_last_words(placement: LocalPlacement, home: Path) -> None:
    seen = started(placement, home, agent("int term"), interrupts=True)
    assert seen.start is not None
    os.kill(seen.start.process.pid, signal.SIGSTOP)
    record, words, _ = stopped(placement, seen, 10)
    assert (record.code, words) == (0, ["interrupted"])


def test_an_order_that_does_not_say_so_is_an_order_without(placement: LocalPlacement, home: Path) -> None:
    """As those of earlier releases are."""
    made = placements.order(placement, placements.SLEEP, interrupts=True)
    path = placement.prepare(made)
    order = json.loads(Path(path, "order.json").read_text())
    assert order.pop("interrupts") is True
    Path(path, "order.json").write_text(json.dumps(order))
    read = records.read_order(path)
    assert read is not None
    assert read.interrupts is False
    assert b"interrupt" not in placement._message(path, {})
