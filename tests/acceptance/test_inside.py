"""What an agent asks for within its own tree is what the daemon is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import daemons
from tests.support.commands import answer, headcount
from tests.support.fleets import SLEEPER
from tests.support.inside import Shell
from tests.support.waiting import until


@pytest.fixture
def lead(home: Path, tmp_path: Path) -> Iterator[Shell]:
    with daemons.daemon(home):
        task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
        yield Shell(task, "lead", tmp_path)
        headcount("halt")


def written(path: Path) -> str:
    until(lambda: path.exists() and path.read_text().endswith("\n"), what=f"a line in {path}")
    return path.read_text().strip()


def test_a_child_gets_the_variables_that_its_parent_names(lead: Shell, tmp_path: Path) -> None:
    wanted, other = tmp_path / "wanted", tmp_path / "other"
    script = f'echo "$SECRET" >{wanted}; echo "$OTHER" >{other}; exec sleep 600'
    spawn = ("headcount", "spawn", "builder", "--env", "SECRET", "--", "sh", "-c", script)
    assert lead.run("env", "SECRET=told", "OTHER=kept", *spawn).code == 0
    assert (written(wanted), written(other)) == ("told", "")


def test_a_child_works_in_a_directory_relative_to_its_parents(lead: Shell, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    said = tmp_path / "said"
    script = f"cd {tmp_path} && headcount spawn builder --cwd deep -- sh -c 'pwd >{said}; exec sleep 600'"
    assert lead.run("sh", "-c", script).code == 0
    assert written(said) == str(tmp_path / "deep")


def test_a_parent_whose_directory_is_gone_deploys_all_the_same(lead: Shell, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    ran = lead.run("sh", "-c", f"mkdir {gone}; cd {gone}; rmdir {gone}; headcount spawn builder -- sleep 600")
    assert ran.code == 0, ran


def test_who_stops_a_child_is_on_record(lead: Shell) -> None:
    child = lead.headcount("spawn", "builder", "--", *SLEEPER).facts["agent_id"]
    assert lead.headcount("stop", child).code == 0
    assert asked_by(child) == lead.agent_id
    assert headcount("stop", lead.agent_id).code == 0
    assert asked_by(lead.agent_id) == "person"


def asked_by(agent_id: str) -> str:
    (event,) = [
        each
        for each in answer("events")["events"]
        if each["kind"] == "stop_asked" and each["agent_id"] == agent_id
    ]
    by: str = event["data"]["by"]
    return by


def test_an_agent_does_not_deploy_for_another_task(lead: Shell, tmp_path: Path) -> None:
    other = answer("task", "create", "other work", "--project", str(tmp_path))["task_id"]
    ran = lead.headcount("deploy", other, "--role", "builder", "--", *SLEEPER)
    assert (ran.code, ran.error["code"], ran.error["value"]) == (3, "parent_foreign", lead.agent_id), ran
    assert answer("status", other)["refusals"] == {"parent_foreign": 1}
    assert [each["role"] for each in answer("ps")["agents"]] == ["lead"]


def test_no_agent_gets_by_a_child_what_it_may_not_do_itself(lead: Shell, tmp_path: Path) -> None:
    """`lead` is a command, which nothing holds to anything; what it deploys is held to the default, edit."""
    said = tmp_path / "said"
    asked = {
        "unheld": "--harness command",
        "bypass": "--harness acp --permissions bypass",
        "allowed": "--harness acp --allow-tool edit",
        "same": "--harness acp",
        "less": "--harness acp --permissions read --deny-tool shell",
    }
    tries = (
        f"headcount spawn {role} {how} --prompt {role} -- sleep 600; echo $?" for role, how in asked.items()
    )
    script = f"( {'; '.join(tries)} ) >{said}.part 2>&1; mv {said}.part {said}; exec sleep 600"
    spawned = lead.headcount("spawn", "held", "--harness", "acp", "--prompt", "x", "--", "sh", "-c", script)
    assert spawned.code == 0, spawned
    until(said.exists, what="what became of its tries")
    codes = [int(line) for line in said.read_text().split("\n") if line.isdigit()]
    assert codes == [3, 3, 3, 0, 0], said.read_text()
    refused = [each["reason"] for each in answer("events")["events"] if each["kind"] == "refused"]
    assert refused == ["reach"] * 3
