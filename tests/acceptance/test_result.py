"""The final answer of an agent is held to the schema of its deploy, whatever its harness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.errors import InvalidInput
from headcount.services.answers import AgentFacts
from tests.support.fleets import fleet, new_task

SCHEMA = {"type": "object", "required": ["bugs"], "properties": {"bugs": {"type": "integer"}}}


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


def answers(opened: Headcount, tmp_path: Path, text: str, code: int = 0) -> AgentFacts:
    agent = opened.deploy(
        new_task(opened, tmp_path),
        role="builder",
        harness="command",
        command=["sh", "-c", 'printf %s "$1"; exit "$2"', "sh", text, str(code)],
        result_schema=SCHEMA,
    )
    (ended,) = opened.wait_for_agents([agent.agent_id], timeout=20).agents
    return ended


def test_an_answer_that_fits_is_there_as_data(opened: Headcount, tmp_path: Path) -> None:
    ended = answers(opened, tmp_path, '{"bugs": 3}')
    assert (ended.outcome, ended.ending) == ("completed", "finished")
    assert ended.result == {"structured": {"bugs": 3}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"bugs": "many"}', "does not fit the schema: at $.bugs"),
        ("there are 3", "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_an_answer_that_does_not_fit_is_a_failure(
    opened: Headcount, tmp_path: Path, text: str, reason: str
) -> None:
    ended = answers(opened, tmp_path, text)
    assert (ended.outcome, ended.ending, ended.exit_code) == ("failed", "bad_result", 0)
    assert reason in (ended.reason or "")


def test_an_agent_that_failed_is_not_asked_for_more(opened: Headcount, tmp_path: Path) -> None:
    ended = answers(opened, tmp_path, "no", code=3)
    assert (ended.outcome, ended.ending, ended.reason) == ("failed", "error", "exit code 3")


def test_the_last_text_of_a_script_is_its_answer(opened: Headcount, tmp_path: Path) -> None:
    steps = json.dumps([{"say": "let me see"}, {"say": '```json\n{"bugs": 1}\n```'}])
    agent = opened.deploy(
        new_task(opened, tmp_path), role="builder", harness="script", prompt=steps, result_schema=SCHEMA
    )
    (ended,) = opened.wait_for_agents([agent.agent_id], timeout=20).agents
    assert ended.result is not None
    assert ended.result["structured"] == {"bugs": 1}


def test_what_is_no_schema_is_refused_before_anything_is_started(opened: Headcount, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no JSON Schema"):
        opened.deploy(
            new_task(opened, tmp_path),
            role="builder",
            harness="command",
            command=["true"],
            result_schema={"type": "thing"},
        )
    assert opened.list_agents(all=True).agents == ()
