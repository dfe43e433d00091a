"""What a collection takes and what it never takes; to a trash folder, and said before it is done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.model import RunKey
from headcount.services.answers import Deployed
from tests.support.commands import answer, headcount
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.waiting import until

SIZE = 100_000


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as opened:
        yield opened


def ended(opened: Headcount, task: str, role: str) -> Deployed:
    """Return an agent that has written `SIZE` bytes and is over."""
    script = f"head -c {SIZE} /dev/zero"
    made = opened.deploy(task, role=role, harness="command", command=["/bin/sh", "-c", script])
    opened.wait_for_agents([made.agent_id])
    return made


def kept(opened: Headcount) -> set[str]:
    return {each.agent_id for each in opened.list_agents(all=True).agents}


def directories(home: Path) -> set[str]:
    return {path.parent.name for path in home.glob("runs/*/*/*")}


def test_age_and_size_decide_and_what_lives_stays(home: Path, opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    old = [ended(opened, task, f"role{n}") for n in range(4)]
    live = sleeper(opened, task, "live")
    everyone = kept(opened)
    assert opened.gc(older_than=3600.0).runs == ()
    proposed = opened.gc(older_than=3600.0, keep_bytes=int(2.5 * SIZE))
    assert proposed.runs == tuple(f"{each.agent_id}.1" for each in old[:2])  # the oldest go first
    assert (proposed.dry_run, proposed.trash) == (True, None)
    assert proposed.bytes > 2 * SIZE
    assert (kept(opened), directories(home), os.listdir(home / "trash")) == (everyone, everyone, [])

    done = opened.gc(dry_run=False, older_than=3600.0, keep_bytes=int(2.5 * SIZE))
    assert done.runs == proposed.runs
    assert kept(opened) == directories(home) == everyone - {each.agent_id for each in old[:2]}
    assert done.trash is not None
    assert {path.name for path in Path(done.trash).iterdir()} == set(done.runs)
    assert (Path(done.trash) / done.runs[0] / "output.jsonl").stat().st_size == SIZE

    done = opened.gc(dry_run=False, older_than=0.0, keep_bytes=0)
    assert kept(opened) == directories(home) == {live.agent_id}
    assert done.kept_live == 1
    assert alive(live.pid)
    assert opened.registry_health_check().healthy
    assert opened.get_task_status(task).task.task_id == task
    assert opened.gc(dry_run=False, older_than=0.0).runs == ()


def test_an_ended_parent_goes_and_its_living_child_stays(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    parent = sleeper(opened, task, "parent")
    child = sleeper(opened, task, "child", parent=parent.agent_id)
    opened.stop_agent(parent.agent_id)
    opened.gc(dry_run=False, older_than=0.0)
    assert directories(home) == {child.agent_id}
    found = opened.get_agent(child.agent_id)
    assert (found.state, found.parent, found.depth) == ("running", parent.agent_id, 2)
    assert opened.stop_agent(child.agent_id).outcome == "stopped"


def test_what_is_over_and_stands_in_no_row_is_found_and_collected(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    gone, known, live = (ended(opened, task, "gone"), ended(opened, task, "known"), sleeper(opened, task))
    with opened.context.registry.write("test") as tx:
        assert tx.runs.forget([RunKey(gone.agent_id, 1)]) == 1
    assert opened.registry_health_check().healthy, "it costs what is live, so it does not see it"
    (said,) = [each for each in opened.doctor().checks if each.name == "rowless"]
    assert (said.ok, gone.agent_id in said.detail, known.agent_id in said.detail) == (None, True, False)
    assert opened.gc(older_than=3600.0).runs == ()
    assert opened.gc(older_than=3600.0, keep_bytes=int(1.5 * SIZE)).runs == (f"{gone.agent_id}.1",)
    done = opened.gc(dry_run=False, older_than=3600.0, keep_bytes=int(1.5 * SIZE))
    assert done.runs == (f"{gone.agent_id}.1",)
    assert directories(home) == {known.agent_id, live.agent_id}
    (said,) = [each for each in opened.doctor().checks if each.name == "rowless"]
    assert said.ok is True


def test_a_run_without_a_row_that_lives_is_not_collected(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    live = sleeper(opened, new_task(opened, tmp_path))
    (home / "live" / f"{live.agent_id}.1").unlink()
    rows = opened.context.registry
    with rows.write("test") as tx:
        tx.runs._session._connection.execute("PRAGMA defer_foreign_keys = ON")
        tx.runs._session._connection.execute("DROP TRIGGER run_live_is_kept")
        tx.runs._session._connection.execute("DELETE FROM run")
    assert opened.gc(dry_run=False, older_than=0.0, keep_bytes=0).runs == ()
    assert directories(home) == {live.agent_id}
    os.kill(live.runner_pid or 0, signal.SIGTERM)
    until(lambda: not alive(live.pid), what="the agent is gone")


def test_the_command_says_first_and_the_registry_stays_small(home: Path, tmp_path: Path) -> None:
    task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    answer("deploy", task, "--role", "builder", "--", "true")
    headcount("wait", "--task", task)
    assert len(answer("gc", "--older-than", "0s")["runs"]) == 1
    assert len(directories(home)) == 1
    done = answer("gc", "--older-than", "0s", "--apply")
    assert (len(done["runs"]), directories(home)) == (1, set())
    assert answer("ps", "--all")["agents"] == []
    assert answer("events")["events"][-1]["kind"] == "run_ended"  # young, and few
    backup = home / "backups" / "registry.db"
    assert backup.stat().st_size > 0
    log = Path(f"{home}/registry.db-wal")
    assert not log.exists() or log.stat().st_size < 5_000_000
