"""The library refuses what is not of the type that it says, and leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.errors import InvalidInput
from tests.support.fleets import fleet, new_task

CUT = b"\xff".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "wrong",
    [
        {"description": 5},
        {"description": "a" * 10_001},
        {"background": 5},
        {"background": "a" * 1_000_001},
        {"background": CUT},
        {"deliverables": "one text"},
        {"success_criteria": [5]},
        {"relevant_files": ["path/of/a/file"] * 100_000},
        {"constraints": 5},
        {"conversation": ["text"]},
        {"conversation": [{"role": "user", "content": 5}]},
        {"conversation": [{"role": "user", "content": CUT}]},
        {"spawn_rules": {"lead": "builder"}},
        {"spawn_rules": ["lead"]},
        {"spawn_rules": {"lead": ["../builder"]}},
        {"priority": "P9"},
        {"max_live": "3"},
        {"max_live": True},
        {"max_depth": 1.5},
    ],
    ids=str,
)
def test_a_task_of_wrong_words_is_refused(wrong: dict[str, Any], home: Path, tmp_path: Path) -> None:
    with Headcount(home, views=False, autostart=False) as opened:
        with pytest.raises(InvalidInput):
            opened.create_task(**{"description": "work", "project": tmp_path, **wrong})
        assert opened.list_tasks().tasks == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_id": 5},
        {"role": 5},
        {"harness": None},
        {"prompt": 5},
        {"command": "true"},
        {"command": [5]},
        {"command": None},
        {"env": "PATH"},
        {"env": [5]},
        {"parent": 5},
        {"cwd": "a\0b"},
        {"model": 5},
        {"model": "a" * 257},
        {"effort": 5},
        {"idempotency_key": 5},
        {"idempotency_key": "a" * 257},
    ],
    ids=str,
)
def test_a_deploy_of_wrong_words_is_refused(wrong: dict[str, Any], home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        asked = {"task_id": new_task(opened, tmp_path), "role": "builder", "harness": "command"}
        with pytest.raises(InvalidInput):
            opened.deploy(**{**asked, "command": ["true"], **wrong})
        assert opened.list_agents(all=True).agents == ()
