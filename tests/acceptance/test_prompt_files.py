"""Each part of the prompt can be replaced by a file in the home."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.prompt import PARTS
from tests.support.commands import answer, headcount
from tests.support.fleets import fleet, new_task


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and a program that is called claude and writes down what it is told."""
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec cat >told\n")
    program.chmod(0o755)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "dummy")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    return tmp_path / "project"


def told(opened: Headcount, project: Path, role: str) -> str:
    """Return what an agent of this role gets on its stdin."""
    made = opened.deploy(new_task(opened, project), role=role, prompt="The mission.")
    assert opened.wait_for_agents([made.agent_id], timeout=30).done
    return (project / "told").read_text()


def test_a_file_in_the_home_replaces_its_part_and_no_other(home: Path, project: Path) -> None:
    with fleet(home) as opened:
        default = told(opened, project, "builder")
        folder = home / "prompts"
        folder.mkdir()
        for part in PARTS:
            (folder / f"{part}.md").write_text(f"My words of {part}.\n")
        (folder / "role-tester.md").write_text("For testers.\n")
        mine = told(opened, project, "builder")
        assert all(f"My words of {part}." in mine and f"My words of {part}." not in default for part in PARTS)
        assert "The mission." in mine
        assert "# Reporting" in default
        assert "# Reporting" not in mine
        assert "For testers." in told(opened, project, "tester")


def test_the_talk_that_led_to_a_task_comes_from_a_file(project: Path, tmp_path: Path) -> None:
    talk = tmp_path / "talk.json"
    talk.write_text(json.dumps([{"role": "user", "content": "It must be blue."}]))
    made = answer("task", "create", "Paint it", "--project", str(project), "--conversation", str(talk))
    agent = answer("deploy", made["task_id"], "--role", "painter", "--prompt", "Do it.")
    headcount("wait", agent["agent_id"])
    assert "It must be blue." in (project / "told").read_text()


@pytest.mark.parametrize("wrong", ["no JSON", "{}", '["text"]', '[{"content": 5}]', None])
def test_a_talk_that_is_none_is_refused(wrong: str | None, home: Path, tmp_path: Path) -> None:
    talk = tmp_path / "talk.json"
    if wrong is not None:
        talk.write_text(wrong)
    ran = headcount("task", "create", "Paint it", "--conversation", str(talk), "--json")
    assert (ran.code, ran.error["code"]) == (2, "invalid_input")
    assert answer("task", "list")["tasks"] == []


def test_doctor_names_the_replaced_parts_and_files_that_replace_nothing(home: Path) -> None:
    (home / "prompts").mkdir()
    for name in ("identity", "role-tester", "reportng"):
        (home / "prompts" / f"{name}.md").write_text("My words.\n")
    (found,) = [each for each in answer("doctor")["checks"] if each["name"] == "prompts"]
    assert found["ok"] is None
    assert "reportng.md" in found["detail"]
    (home / "prompts" / "reportng.md").unlink()
    (found,) = [each for each in answer("doctor")["checks"] if each["name"] == "prompts"]
    assert (found["ok"], found["detail"]) == (True, "replaced: identity, role-tester")
