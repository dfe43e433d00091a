"""Deploy agents and read what became of them, through the Python API."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from headcount.domain.errors import InvalidInput, NotFound, PlacementFailed, Refused
from tests.support.fleets import alive, clear, fleet, live_runs, new_task, sleeper, traced
from tests.support.waiting import until


def test_an_agent_runs_reports_and_ends_and_all_of_it_can_be_read(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made = opened.deploy(
            task,
            role="builder",
            harness="command",
            command=["/bin/sh", "-c", "echo hello; cat; exit 3"],
            prompt="the prompt\n",
        )
        done = opened.wait_for_agents([made.agent_id], timeout=20)
        assert done.done
        agent = done.agents[0]
        assert (agent.state, agent.outcome, agent.exit_code) == ("ended", "failed", 3)
        assert opened.get_agent_output(made.agent_id).text == "hello\nthe prompt\n"
        assert live_runs(home) == []
        kinds = [event.kind for event in opened.read_events(task_id=task).events]
        assert kinds == ["task_created", "run_reserved", "run_started", "run_ended"]


def test_stop_ends_the_whole_tree_and_says_so(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made = sleeper(opened, task)
        assert alive(made.pid)
        ended = opened.stop_agent(made.agent_id, reason="enough")
        assert (ended.state, ended.outcome, ended.survivors) == ("ended", "stopped", ())
        assert not alive(made.pid)
        again = opened.stop_agent(made.agent_id)
        assert not again.was_live
        assert again.outcome == "stopped"


def test_a_second_agent_of_a_role_is_refused_and_counted(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        first = sleeper(opened, task)
        with pytest.raises(Refused) as refused:
            sleeper(opened, task)
        assert refused.value.code == "duplicate_role"
        assert refused.value.holders == (first.agent_id,)
        assert sleeper(opened, task, allow_duplicate_role=True).agent_id != first.agent_id
        assert opened.get_task_status(task).refusals == {"duplicate_role": 1}


@pytest.mark.parametrize(
    "role",
    ["", "a.b", "a:b", "a/b", "a;b", "$(x)", "#{pid}", "a\0b", "аgent", "a'b", 'a"b', "x" * 33, "1a", "a b"],
)
def test_a_role_that_could_harm_is_refused_before_anything_is_made(
    role: str, home: Path, tmp_path: Path
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        with pytest.raises(InvalidInput):
            sleeper(opened, task, role)
        assert opened.list_agents(all=True).agents == ()
        assert list((home / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "ask",
    [
        {"prompt": ""},
        {"prompt": " \n"},
        {"prompt": "x" * 10_000_000},
        {"command": []},
        {"harness": "nobody"},
        {"cwd": "/nonexistent/directory"},
        {"env": ["SECRET=value"]},
        {"command": ["a\0b"]},
        {"parent": "../../etc"},
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(ask: dict[str, object], home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        given = {"role": "builder", "harness": "command", "command": ["true"], **ask}
        with pytest.raises(InvalidInput):
            opened.deploy(task, **given)  # type: ignore[arg-type]  # wrong on purpose
        assert opened.list_agents(all=True).agents == ()


@pytest.mark.parametrize("task", ["task-0000000000000000", "../x", "task-../../etc/passwd"])
def test_an_unknown_task_is_not_found_or_not_valid(task: str, home: Path) -> None:
    with fleet(home) as opened, pytest.raises((NotFound, InvalidInput)):
        sleeper(opened, task)


@pytest.mark.parametrize("command", [["/nonexistent/program"], ["/etc/passwd"], ["no-such-program-anywhere"]])
def test_a_command_that_cannot_run_says_why_and_leaves_nothing(
    command: list[str], home: Path, tmp_path: Path
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        with pytest.raises(PlacementFailed):
            opened.deploy(task, role="builder", harness="command", command=command)
        agents = opened.list_agents(all=True).agents
        assert [(each.state, each.outcome) for each in agents] == [("ended", "start_failed")]
        assert live_runs(home) == []
        assert opened.registry_health_check().healthy
        sleeper(opened, task)  # the slot is free again


def test_the_caller_s_directory_and_allowed_variables_reach_the_agent(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "sub"
    inside.mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.setenv("SECRET_KEY", "do not pass")
    monkeypatch.setenv("WANTED", "pass")
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made = opened.deploy(
            task, role="a", harness="command", command=["/bin/sh", "-c", "pwd; env"], env=["WANTED"]
        )
        opened.wait_for_agents([made.agent_id], timeout=20)
        text = opened.get_agent_output(made.agent_id).text
        assert text.splitlines()[0] == str(inside)
        assert "WANTED=pass" in text
        assert "SECRET_KEY" not in text
        for name in ("AGENT_ID", "RUN", "TASK_ID", "TOKEN", "HOME", "SOCKET"):
            assert f"HEADCOUNT_{name}=" in text


def test_one_registry_open_two_write_transactions_and_no_read_outside(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
    statements: list[str] = []
    opened = traced(home, statements.append)
    sleeper(opened, task)
    assert opened.context.registry.opens == 1
    deployed = tuple(statements)
    clear(opened)
    opened.close()
    begins = [sql for sql in deployed if sql.upper().startswith("BEGIN")]
    assert begins == ["BEGIN IMMEDIATE", "BEGIN IMMEDIATE"]
    inside = False
    for sql in deployed[deployed.index(begins[0]) :]:  # what stands before it is the opening of the file
        word = sql.lstrip().split()[0].upper()
        inside = True if word == "BEGIN" else inside
        assert inside, sql
        inside = False if word in {"COMMIT", "ROLLBACK"} else inside


def test_eighteen_ghosts_are_listed_and_repaired_and_a_healthy_task_is_untouched(
    home: Path, tmp_path: Path
) -> None:
    with fleet(home) as opened:
        sick, well = new_task(opened, tmp_path), new_task(opened, tmp_path)
        ghosts = [sleeper(opened, sick, f"role{n}") for n in range(18)]
        healthy = sleeper(opened, well)
        for each in ghosts:
            assert each.runner_pid is not None
            os.kill(each.runner_pid, 9)
        until(lambda: not any(alive(each.runner_pid) for each in ghosts), what="dead runners")
        assert len(opened.registry_health_check().ghosts) == 18
        assert len(opened.registry_health_check(task_id=sick).ghosts) == 18
        assert opened.registry_health_check(task_id=well).healthy
        before = _dump(home)
        assert len(opened.validate_and_repair_registry(dry_run=True).ghosts) == 18
        assert _dump(home) == before
        repaired = opened.validate_and_repair_registry(dry_run=False)
        assert (repaired.live_rows, len(repaired.ghosts), len(repaired.done)) == (1, 0, 18)
        assert opened.validate_and_repair_registry(dry_run=False).done == ()
        assert not any(alive(each.pid) for each in ghosts)
        assert alive(healthy.pid)
        assert sleeper(opened, sick, "role0").state == "running"


def _dump(home: Path) -> str:
    with sqlite3.connect(f"file:{home / 'registry.db'}?mode=ro", uri=True) as connection:
        text = "\n".join(connection.iterdump())
    connection.close()
    return text
