"""The script agent through everything: deployed by MCP, speaking MCP itself, spawning another of its kind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import daemons
from tests.support.daemons import Bridge


@pytest.fixture
def door(home: Path, tmp_path: Path) -> Iterator[Bridge]:
    with daemons.daemon(home), Bridge(home, cwd=tmp_path) as bridge:
        yield bridge


def deploy(
    door: Bridge, project: Path, steps: list[dict[str, Any]], **limits: int
) -> tuple[str, dict[str, Any]]:
    """Deploy a lead that takes `steps`; return its task and, when it has ended, its facts."""
    task = door.call("create_task", description="Some work", project=str(project), **limits)["task_id"]
    agent = door.call(
        "deploy_headless_agent", task_id=task, agent_type="lead", harness="script", prompt=json.dumps(steps)
    )
    done = door.call("wait_for_agents", agent_ids=[agent["agent_id"]], timeout=45, patience=60)
    assert done["done"], done
    return task, done["agents"][0]


def test_it_reports_finds_spawns_and_edits_as_a_model_would(door: Bridge, tmp_path: Path) -> None:
    child = [
        {"report": {"status": "done", "message": "tested", "progress": 100}},
        {"edit": {"path": "b.txt", "content": "b"}},
    ]
    task, lead = deploy(
        door,
        tmp_path,
        [
            {"report": {"status": "working", "message": "begun", "progress": 10}},
            {"finding": {"finding_type": "risk", "severity": "low", "message": "it may rain"}},
            {"spawn": {"role": "tester", "steps": child}},
            {"wait_for": "b.txt"},
            {"edit": {"path": "a.txt", "content": "a"}},
        ],
    )
    output = door.call("get_agent_output", agent_id=lead["agent_id"], format="recent")["text"]
    assert (lead["outcome"], lead["exit_code"], lead["progress"]) == ("completed", 0, 10), output
    agents = {each["role"]: each for each in door.call("list_agents", task_id=task, all=True)["agents"]}
    assert (agents["tester"]["parent"], agents["tester"]["reported"]) == (lead["agent_id"], "done")
    (finding,) = door.call("get_findings", task_id=task)["findings"]
    assert (finding["agent_id"], finding["type"]) == (lead["agent_id"], "risk")
    assert (tmp_path / "a.txt").read_text() == "a"


def test_a_refused_spawn_is_an_answer_that_it_can_live_with(door: Bridge, tmp_path: Path) -> None:
    _, lead = deploy(
        door,
        tmp_path,
        [{"spawn": {"role": "tester", "steps": []}, "allow_error": True}, {"say": "I go on"}],
        max_depth=1,
    )
    assert lead["outcome"] == "completed"
    text = door.call("get_agent_output", agent_id=lead["agent_id"], format="recent")["text"]
    assert "[ERROR]" in text
    assert "depth" in text
    assert "[ASST] I go on" in text
