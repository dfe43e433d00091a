"""What a model gets to read is short, and says what it lacks."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from headcount.doors.mcp import shape
from headcount.services.answers import AgentFacts, FindingFacts, FindingList, TaskFacts, Waited


def agent(number: int = 0, **more: Any) -> AgentFacts:
    facts: dict[str, Any] = dict.fromkeys(each.name for each in dataclasses.fields(AgentFacts))
    facts |= {"agent_id": f"builder-{number:016}", "task_id": "task-0000000000000000", "state": "ended"}
    return AgentFacts(**{**facts, "survivors": (), "layers": (), **more})


def waited(*agents: AgentFacts) -> Waited:
    return Waited(True, "ended", agents, (), 1.0, "7", "")


def fits(page: shape.Page) -> bool:
    data = json.dumps(page.facts, ensure_ascii=False, separators=(",", ":"))
    return max(len(page.text), len(data)) <= shape.PAGE_CHARS


@pytest.mark.parametrize(
    "long",
    [
        {"message": "m" * 20_000},
        {"result": {"text": "r" * 50_000, "turns": 3}},
        {"result": {"denied": [{"tool": "t" * 300}] * 500}},
        {"result": {f"key{n}": n for n in range(5_000)}},
        {"message": "\n" * 9_000},
        {"message": '"' * 9_000},
    ],
    ids=["message", "answer", "list", "object", "lines", "escaped"],
)
def test_one_agent_with_much_to_say_is_shown_shortened(long: dict[str, Any]) -> None:
    page = shape.page(waited(agent(**long)), more="ask on")
    assert fits(page)
    assert page.facts["agents"][0]["agent_id"] == agent().agent_id
    assert page.facts["truncated"] is True
    assert page.facts["shortened"] > 1_000
    assert "get_agent_output" in page.facts["next"]
    assert page.facts["next"] in page.text


def test_of_many_rows_those_that_fit_are_shown_and_the_others_counted() -> None:
    page = shape.page(waited(*(agent(n, message="m" * 3_000) for n in range(40))), more="ask on")
    assert fits(page)
    shown = page.facts["agents"]
    assert len(shown) >= 4
    assert len(shown) + page.facts["left_out"]["agents"] == 40


def test_what_fits_is_whole() -> None:
    page = shape.page(waited(agent(message="m" * 5_000)))
    assert page.facts["agents"][0]["message"] == "m" * 5_000
    assert "truncated" not in page.facts


def test_a_long_description_is_shortened_too() -> None:
    task = TaskFacts("task-0", "d" * 10_000, "P2", "/", "open", 1, 1, 1, None, "", None)
    page = shape.page(task)
    assert fits(page)
    assert "more characters)" in page.facts["description"]


def test_a_page_of_long_findings_always_has_one() -> None:
    rows = tuple(
        FindingFacts(n, "a", "t", 1, "", "bug", "high", f"{n} " + "x" * 20_000, {}, late=False)
        for n in range(3)
    )

    def read(limit: int) -> FindingList:
        shown = rows[:limit]
        return FindingList("t", shown, {}, {}, shown[-1].id, more=limit < len(rows))

    page = shape.paged(read, "findings", limit=100, more="go on")
    assert fits(page)
    assert [each["message"][:2] for each in page.facts["findings"]] == ["0 "]
    assert page.facts["next_cursor"] == 0
    assert page.facts["more"] is True
