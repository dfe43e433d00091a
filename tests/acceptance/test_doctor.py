"""`headcount doctor` says what is so, also where the registry does not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from headcount.config import Home
from headcount.store import schema
from tests.support.commands import answer, headcount


def schema_version(home: Path, version: int) -> None:
    with sqlite3.connect(Home(home).registry) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def test_the_variables_are_those_that_agents_get(home: Path) -> None:
    env = {"HEADCOUNT_ENV": "GIVEN_TO_ALL", "GIVEN_TO_ALL": "1", "ANTHROPIC_API_KEY": "1", "A_SECRET": "1"}
    found = answer("doctor", env=env)
    assert {"GIVEN_TO_ALL", "PATH"} <= set(found["env_kept"])
    assert "ANTHROPIC_API_KEY" in found["env_of_harness"]["claude"]
    assert "A_SECRET" in found["env_dropped"]
    assert not {"GIVEN_TO_ALL", "ANTHROPIC_API_KEY", "PATH"} & set(found["env_dropped"])
    assert "A_SECRET" in headcount("doctor", env=env).out


def test_a_newer_registry_is_refused_by_every_command_and_left_as_it_is(home: Path, tmp_path: Path) -> None:
    task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    schema_version(home, 99)
    for command in ("ps", f"status {task}", "task list", "events", "repair --apply", "repair --rebuild"):
        ran = headcount(*command.split(), "--json")
        assert (ran.code, ran.error["code"]) == (5, "registry_too_new"), (command, ran)
    ran = headcount("deploy", task, "--role", "a", "--json", "--", "true")
    assert (ran.code, ran.error["code"]) == (5, "registry_too_new"), ran
    schema_version(home, schema.newest())
    assert [each["task_id"] for each in answer("task", "list")["tasks"]] == [task]
    assert list((home / "quarantine").iterdir()) == []


def test_a_count_that_nobody_can_know_is_not_called_right(home: Path) -> None:
    answer("task", "list")
    schema_version(home, 99)
    ran = headcount("doctor", "--json")
    assert (ran.code, ran.facts["healthy"]) == (1, False)
    (count,) = [each for each in ran.facts["checks"] if each["name"] == "count"]
    assert count["ok"] is None


def test_damage_that_only_the_check_finds_is_rebuilt_as_doctor_says(home: Path, tmp_path: Path) -> None:
    task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    made = answer("deploy", task, "--role", "builder", "--", "true")
    answer("wait", made["agent_id"])
    with sqlite3.connect(Home(home).registry) as connection:  # its values are not of their type any more
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'max_live    INTEGER', 'max_live    TEXT')"
        )
    connection.close()
    registry = next(
        each for each in headcount("doctor", "--json").facts["checks"] if each["name"] == "registry"
    )
    assert (registry["ok"], "repair --rebuild" in registry["hint"]) == (False, True)
    rebuilt = answer("repair", "--rebuild")
    assert (rebuilt["tasks"], rebuilt["agents"], rebuilt["runs"]) == (1, 1, 1)
    assert Path(rebuilt["quarantined"], "registry.db").exists()
    assert answer("doctor")["healthy"] is True
    assert headcount("repair", "--rebuild").code == 3
