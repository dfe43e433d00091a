"""What reaches a person's terminal: harmless, and within its width."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from headcount.doors.cli import text, tree
from headcount.services.answers import AgentFacts

NOW = 1_700_000_100.0


def agent(name: str, **more: Any) -> AgentFacts:
    facts: dict[str, Any] = dict.fromkeys(each.name for each in fields(AgentFacts))
    facts |= {"agent_id": name, "task_id": "task-0000000000000000", "state": "running"}
    facts |= {"started_at": "2023-11-14T22:13:20.000Z"}
    return AgentFacts(**{**facts, **more})


def drawn(*agents: AgentFacts, width: int = 80) -> list[str]:
    return tree.draw(agents, now=NOW, width=width)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headcount.doors.cli.terminal.boxes", lambda: True)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2Jgone", "^[[2Jgone"),
        ("a\rb", "a b"),
        ("two\nlines", "two lines"),
        ("\x9b31m", "<U+009B>31m"),
        ("pay\u202egnp.exe", "pay<U+202E>gnp.exe"),
        ("half \udc80 byte", "half ? byte"),
        ("schön 漢字 🙂", "schön 漢字 🙂"),
    ],
)
def test_no_text_steers_the_terminal(hostile: str, shown: str) -> None:
    assert text.harmless(hostile) == shown


def test_lines_and_tabs_stay_where_lines_are_wanted() -> None:
    assert text.harmless("a\tb\n\x07c\r\n", lines=True) == "a\tb\n^Gc\n"


@pytest.mark.parametrize(
    ("whole", "width", "fits"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("漢字漢字", 5, "漢字…"), ("漢字", 4, "漢字")],
)
def test_text_is_cut_by_columns_not_characters(whole: str, width: int, fits: str) -> None:
    assert text.fit(whole, width) == fits


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59, "59s"), (61, "1m01s"), (3_720, "1h02m"), (90_000, "1d01h"), (None, "-")],
)
def test_spans_are_short(seconds: float | None, shown: str) -> None:
    assert text.span(seconds) == shown


def test_children_hang_below_their_parents() -> None:
    names = [line[:16].rstrip() for line in drawn(
        agent("lead-1"), agent("build-1", parent="lead-1"), agent("test-1", parent="build-1"),
        agent("build-2", parent="lead-1"), agent("other-1"),
    )]  # fmt: skip
    assert names[1:] == ["├─ lead-1", "│  ├─ build-1", "│  │  └─ test-1", "│  └─ build-2", "└─ other-1"]


def test_an_agent_whose_parent_is_not_shown_is_a_root() -> None:
    assert drawn(agent("child-1", parent="gone-1"))[1].startswith("└─ child-1")


@pytest.mark.parametrize("width", [40, 80, 132])
def test_every_line_fits(width: int) -> None:
    deep = [agent("a" * 32 + "-0000000000000000", message="long " * 50)]
    bad = {"progress": 100, "state": "ended", "outcome": "start_failed", "reason": "漢字" * 40}
    for depth in range(4):
        deep.append(agent(f"{'b' * 20}{depth}-0000000000000000", parent=deep[-1].agent_id, **bad))
    assert max(map(text.columns, drawn(*deep, width=max(60, width)))) <= max(60, width)


def test_a_line_shows_state_age_progress_and_the_last_word() -> None:
    line = drawn(agent("build-1", progress=40, reported="working", message="halfway\x1b[0m"))[1]
    assert line.split() == ["└─", "build-1", "running", "1m40s", "40%", "halfway^[[0m"]


def test_what_ended_badly_shows_why_and_what_is_blocked_shows_that() -> None:
    lines = drawn(
        agent("a-1", state="ended", outcome="failed", reason="exit code 3", message="all well"),
        agent("b-1", reported="blocked", message="no key"),
    )
    assert lines[1].endswith("exit code 3")
    assert lines[2].endswith("blocked: no key")


def test_the_totals_count_every_agent_once() -> None:
    agents = [agent("a"), agent("b", state="ended", outcome="completed"), agent("c", state="lost")]
    assert tree.totals(agents) == "1 live, 2 ended: 1 completed, 1 lost"


def test_a_pipe_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    assert text.paint("failed", "failed") == "failed"
