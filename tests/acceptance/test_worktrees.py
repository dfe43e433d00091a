"""Agents in git worktrees of their own, from the deploy to the removal."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount, Refused
from headcount.domain.errors import HeadcountError, InvalidInput, NotAllowed, WorktreeFailed
from headcount.domain.model import Caller
from headcount.services.answers import Deployed
from tests.support.commands import answer, started
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.forks import together
from tests.support.repositories import branches, commit, contents, git, repository, worktrees, write
from tests.support.waiting import until


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return repository(tmp_path / "a project ü")


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as opened:
        yield opened


def worked(opened: Headcount, task: str, script: str, **more: Any) -> Deployed:
    """Return an agent that did `script` in a worktree and is over."""
    given: dict[str, Any] = {"role": "builder", "isolation": "worktree", **more}
    made = opened.deploy(task, harness="command", command=["/bin/sh", "-ec", script], **given)
    opened.wait_for_agents([made.agent_id])
    return made


def tree(opened: Headcount, agent: Deployed) -> Any:
    found = opened.get_agent(agent.agent_id).worktree
    assert found is not None
    return found


COMMIT = "echo more >> a.txt; git -c user.name=A -c user.email=a@example.org commit -qam 'more of it'"


# the deploy


def test_an_agent_works_in_its_worktree_on_its_branch(opened: Headcount, project: Path, home: Path) -> None:
    task = new_task(opened, project)
    made = worked(
        opened,
        task,
        "pwd; git branch --show-current; echo mine > a.txt; test -f ../src/b.txt",
        cwd=project / "src",
    )
    path = f"{home}/worktrees/{made.agent_id}"
    assert opened.get_agent_output(made.agent_id).text == f"{path}/src\nheadcount/{made.agent_id}\n"
    assert opened.get_agent(made.agent_id).outcome == "completed"
    assert git(project, "status", "--porcelain") == ""
    facts = opened.get_agent(made.agent_id)
    assert (facts.isolation, facts.cwd) == ("worktree", f"{path}/src")
    assert tree(opened, made).base == git(project, "rev-parse", "HEAD")


def test_what_an_agent_left_is_part_of_its_result(opened: Headcount, project: Path) -> None:
    task = new_task(opened, project)
    made = worked(opened, task, f"{COMMIT}; echo new > new.txt")
    result = tree(opened, made).result
    assert (result["run"], result["commit_count"], result["files_changed"]) == (1, 1, 2)
    assert (result["added"], result["removed"]) == (2, 0)
    assert [each["subject"] for each in result["commits"]] == ["more of it"]
    assert result["dirty"] == ["?? new.txt"]
    diff = opened.get_worktree_diff(made.agent_id)
    assert {"+more", "+new"} <= set(diff.diff.splitlines())
    assert diff.whole


def test_a_task_may_have_all_its_agents_apart(opened: Headcount, project: Path) -> None:
    task = opened.create_task(
        "apart", project=project, isolation="worktree", setup=["touch", "set-up"]
    ).task_id
    apart = worked(opened, task, "ls", isolation=None)
    assert opened.get_agent_output(apart.agent_id).text.split() == ["a.txt", "set-up", "src"]
    shared = worked(opened, task, "pwd", isolation="shared", role="reader")
    assert opened.get_agent_output(shared.agent_id).text.strip() == str(project)
    assert opened.get_agent(shared.agent_id).worktree is None


def test_a_task_without_it_has_none(opened: Headcount, project: Path) -> None:
    made = worked(opened, new_task(opened, project), "pwd", isolation=None)
    assert opened.get_agent_output(made.agent_id).text.strip() == str(project)
    assert worktrees(project) == []


def test_settings_copy_files_and_set_up(home: Path, project: Path) -> None:
    write(project, {".env": "KEY=1\n"})
    setup = ["sh", "-c", "cat .env > made; echo $HEADCOUNT_AGENT_ID >> made"]
    with fleet(home, worktree_copy=[".env", "absent"], worktree_setup=setup) as opened:
        made = worked(opened, new_task(opened, project), "cat made .env")
        assert opened.get_agent_output(made.agent_id).text == f"KEY=1\n{made.agent_id}\nKEY=1\n"


def nothing_left(opened: Headcount, project: Path, home: Path) -> None:
    assert (worktrees(project), branches(project)) == ([], [])
    assert list((home / "worktrees").iterdir()) == []
    assert list((home / "trash").iterdir()) == []
    assert opened.list_worktrees().worktrees == ()
    assert opened.registry_health_check().healthy


def test_a_set_up_that_fails_fails_the_deploy_and_leaves_nothing(
    opened: Headcount, project: Path, home: Path
) -> None:
    setup = ["sh", "-c", "echo x > made; (setsid sleep 600 &) ; echo no such package >&2; exit 7"]
    task = opened.create_task("t", project=project, setup=setup).task_id
    with pytest.raises(WorktreeFailed, match="no such package") as failed:
        worked(opened, task, "true")
    assert failed.value.code == "setup_failed"
    (agent,) = opened.list_agents(all=True).agents
    assert (agent.outcome, agent.started_at) == ("start_failed", None)
    assert "no such package" in (agent.reason or "")
    nothing_left(opened, project, home)
    until(lambda: not marked(agent.agent_id), what="the end of what the set-up command left")


def marked(agent_id: str) -> list[str]:
    """Return the processes that carry an agent's mark."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if f"HEADCOUNT_AGENT_ID={agent_id}".encode() in (each / "environ").read_bytes().split(b"\0"):
                found.append(each.name)
        except OSError:
            continue
    return found


def test_a_set_up_that_hangs_is_ended(home: Path, project: Path) -> None:
    with fleet(home, worktree_setup=["sleep", "600"], worktree_setup_timeout=0.3) as opened:
        with pytest.raises(WorktreeFailed, match=r"did not end in 0\.3 s"):
            worked(opened, new_task(opened, project), "true")
        nothing_left(opened, project, home)


def test_a_stop_during_the_set_up_ends_it(opened: Headcount, project: Path, home: Path) -> None:
    task = opened.create_task("t", project=project, isolation="worktree", setup=["sleep", "600"]).task_id
    with started("deploy", task, "--role", "builder", "--", "true") as deploy:
        until(lambda: bool(opened.list_agents().agents), what="the reservation")
        (agent,) = opened.list_agents().agents
        until(lambda: bool(marked(agent.agent_id)), what="the set-up command")
        opened.stop_agent(agent.agent_id, reason="enough")
        _, said = deploy.communicate(timeout=30)
    assert deploy.returncode != 0, said
    assert opened.get_agent(agent.agent_id).outcome == "stopped"
    assert marked(agent.agent_id) == []
    nothing_left(opened, project, home)


def test_a_program_that_cannot_be_started_leaves_no_worktree(
    opened: Headcount, project: Path, home: Path
) -> None:
    with pytest.raises(HeadcountError):
        opened.deploy(
            new_task(opened, project), role="b", harness="command", command=["/no/such"], isolation="worktree"
        )
    nothing_left(opened, project, home)


def test_bad_places_are_refused_before_anything_is_reserved(opened: Headcount, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    task = new_task(opened, tmp_path / "plain")
    with pytest.raises(InvalidInput) as refused:
        worked(opened, task, "true")
    assert refused.value.code == "not_a_repository"
    assert opened.list_agents(all=True).agents == ()
    with pytest.raises(InvalidInput, match="isolation"):
        worked(opened, task, "true", isolation="container")
    with pytest.raises(InvalidInput, match="isolation"):
        opened.create_task("t", project=tmp_path, isolation="container")


def test_a_branch_that_is_in_the_way_fails_the_deploy(opened: Headcount, project: Path, home: Path) -> None:
    git(project, "branch", "headcount")  # no branch can be below it
    with pytest.raises(WorktreeFailed, match="headcount"):
        worked(opened, new_task(opened, project), "true")
    git(project, "branch", "-D", "headcount")
    nothing_left(opened, project, home)


def test_a_resumed_agent_finds_its_worktree_as_it_left_it(opened: Headcount, project: Path) -> None:
    task = new_task(opened, project)
    prompt = json.dumps([{"edit": {"path": "mine.txt", "content": "1"}}])
    made = opened.deploy(task, role="builder", harness="script", prompt=prompt, isolation="worktree")
    opened.wait_for_agents([made.agent_id])
    path = tree(opened, made).path
    again = opened.resume_agent(made.agent_id, json.dumps([{"say": "two"}]))
    opened.wait_for_agents([made.agent_id])
    assert (again.run, tree(opened, made).path, tree(opened, made).result["run"]) == (2, path, 2)
    assert worktrees(project) == [path]
    opened.remove_worktree(made.agent_id, snapshot=True)
    with pytest.raises(Refused) as refused:
        opened.resume_agent(made.agent_id, json.dumps([{"say": "three"}]))
    assert refused.value.code == "worktree_gone"
    opened.undo_worktree(made.agent_id)
    assert opened.resume_agent(made.agent_id, json.dumps([{"say": "three"}])).run == 3


def test_a_worktree_within_a_worktree_begins_at_its_commit(opened: Headcount, project: Path) -> None:
    task = new_task(opened, project)
    first = worked(opened, task, COMMIT)
    path = tree(opened, first).path
    there = opened.acting_as(Caller(cwd=path, env=dict(os.environ)))
    second = worked(there, task, "tail -1 a.txt; pwd", role="second")
    assert tree(opened, second).base == git(path, "rev-parse", "HEAD")
    assert tree(opened, second).repository == tree(opened, first).repository
    said = opened.get_agent_output(second.agent_id).text.splitlines()
    assert said == ["more", tree(opened, second).path]
    shared = worked(there, task, "pwd", isolation="shared", role="third")
    assert opened.get_agent_output(shared.agent_id).text.strip() == path  # its deployer's, not the project


def test_ten_at_once_on_one_repository(home: Path, project: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, project)

    def one(number: int) -> Any:
        with_fleet = Headcount(home, views=False, autostart=False, min_memory_mb=1)
        script = f"echo {number} > mine.txt; git add mine.txt; {COMMIT}"
        return worked(with_fleet, task, script, role=f"role{number}")

    made = together(10, one)
    assert all(isinstance(each, Deployed) for each in made), made
    with fleet(home) as opened:
        agents = [opened.get_agent(each.agent_id) for each in made]
        assert {each.outcome for each in agents} == {"completed"}
        assert sorted(worktrees(project)) == sorted(each.cwd for each in agents)
        assert len(branches(project)) == 10
        for number, each in enumerate(agents):
            assert Path(each.cwd, "mine.txt").read_text() == f"{number}\n"
        assert git(project, "status", "--porcelain") == ""
        assert opened.registry_health_check().healthy


# removal


def removable(opened: Headcount, agent: Deployed) -> str:
    """Try to remove a worktree; return the code of the refusal."""
    before = contents(tree(opened, agent).path)
    with pytest.raises(Refused) as refused:
        opened.remove_worktree(agent.agent_id)
    assert contents(tree(opened, agent).path) == before
    assert refused.value.hint
    return refused.value.code


def test_nothing_is_removed_with_which_something_is_lost(opened: Headcount, project: Path) -> None:
    task = new_task(opened, project)
    assert removable(opened, worked(opened, task, "echo new > new.txt", role="new")) == "worktree_dirty"
    assert removable(opened, worked(opened, task, "echo x > a.txt", role="changed")) == "worktree_dirty"
    made = worked(opened, task, COMMIT, role="unmerged")
    assert removable(opened, made) == "worktree_unmerged"
    git(project, "merge", "--quiet", "--ff-only", tree(opened, made).branch)
    removed = opened.remove_worktree(made.agent_id)
    assert removed.trash_ref is None
    assert Path(removed.trash or "").is_dir()
    assert not os.path.lexists(removed.path)
    assert removed.branch not in branches(project)
    assert tree(opened, made).state == "removed"


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_live_agents_worktree_is_never_touched(opened: Headcount, project: Path, snapshot: bool) -> None:
    agent = sleeper(opened, new_task(opened, project), isolation="worktree")
    with pytest.raises(Refused) as refused:
        opened.remove_worktree(agent.agent_id, snapshot=snapshot)
    assert refused.value.code == "worktree_in_use"
    assert opened.gc(older_than=0, dry_run=False).worktrees == ()
    assert alive(agent.pid)
    assert os.path.isdir(tree(opened, agent).path)


def locked(path: str) -> None:
    git(path, "worktree", "lock", path)


def broken(path: str) -> None:
    Path(path, ".git").unlink()


def merging(path: str) -> None:
    git(path, "checkout", "--quiet", "-b", "side")
    commit(path, {"a.txt": "side\n"})
    git(path, "checkout", "--quiet", "-")
    commit(path, {"a.txt": "here\n"})
    git(path, "merge", "side", check=False)


def nested(path: str) -> None:
    repository(Path(path, "inner"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (locked, "worktree_locked"),
        (broken, "worktree_not_inspectable"),
        (merging, "worktree_unfinished"),
        (nested, "worktree_failed"),
    ],
)
def test_a_snapshot_does_not_override_everything(
    opened: Headcount, project: Path, change: Any, code: str
) -> None:
    made = worked(opened, new_task(opened, project), COMMIT)
    path = tree(opened, made).path
    change(path)
    before = contents(path)
    with pytest.raises(HeadcountError) as refused:
        opened.remove_worktree(made.agent_id, snapshot=True)
    assert refused.value.code == code
    assert contents(path) == before
    assert tree(opened, made).state == "there"


def test_one_in_which_a_process_works_stays(opened: Headcount, project: Path) -> None:
    made = worked(opened, new_task(opened, project), "true")
    with subprocess.Popen(["sleep", "60"], cwd=tree(opened, made).path) as process:
        try:
            with pytest.raises(Refused, match=str(process.pid)) as refused:
                opened.remove_worktree(made.agent_id, snapshot=True)
        finally:
            process.kill()
    assert refused.value.code == "worktree_in_use"
    assert opened.remove_worktree(made.agent_id).agent_id == made.agent_id


def test_what_a_snapshot_kept_comes_back(opened: Headcount, project: Path) -> None:
    script = f"{COMMIT}; echo staged > a.txt; git add a.txt; echo new > 'new ü.txt'; echo x > .env"
    made = worked(opened, new_task(opened, project), script)
    path = tree(opened, made).path
    before = (contents(path), git(path, "status", "--porcelain"), git(path, "rev-parse", "HEAD"))
    removed = opened.remove_worktree(made.agent_id, snapshot=True)
    assert removed.trash_ref == f"refs/headcount/trash/{made.agent_id}-1"
    assert (worktrees(project), branches(project)) == ([], [])
    with pytest.raises(Refused):
        opened.remove_worktree(made.agent_id, snapshot=True)
    assert opened.undo_worktree(made.agent_id).state == "there"
    before[0].pop(".env")  # what git ignores is in the trash folder
    assert (contents(path), git(path, "status", "--porcelain"), git(path, "rev-parse", "HEAD")) == before
    assert Path(removed.trash or "", ".env").exists()
    with pytest.raises(Refused):
        opened.undo_worktree(made.agent_id)
    again = opened.remove_worktree(made.agent_id, snapshot=True)
    assert again.trash_ref == f"refs/headcount/trash/{made.agent_id}-2"


def test_a_snapshot_that_is_gone_is_said_and_nothing_is_half_made(opened: Headcount, project: Path) -> None:
    made = worked(opened, new_task(opened, project), COMMIT)
    removed = opened.remove_worktree(made.agent_id, snapshot=True)
    git(project, "update-ref", "-d", removed.trash_ref or "")
    with pytest.raises(WorktreeFailed, match="gone"):
        opened.undo_worktree(made.agent_id)
    assert tree(opened, made).state == "removed"
    assert (worktrees(project), branches(project)) == ([], [])
    assert not os.path.lexists(removed.path)


def test_a_directory_that_somebody_deleted_is_missing_and_comes_back(
    opened: Headcount, project: Path
) -> None:
    made = worked(opened, new_task(opened, project), COMMIT)
    path = tree(opened, made).path
    subprocess.run(["rm", "-rf", path], check=True)
    assert [each.state for each in opened.list_worktrees().worktrees] == ["missing"]
    with pytest.raises(Refused) as refused:
        opened.remove_worktree(made.agent_id)
    assert refused.value.code == "worktree_unmerged"
    opened.remove_worktree(made.agent_id, snapshot=True)
    opened.undo_worktree(made.agent_id)
    assert Path(path, "a.txt").read_text() == "one\nmore\n"


def test_garbage_is_only_what_is_certainly_merged(opened: Headcount, project: Path) -> None:
    task = new_task(opened, project)
    clean, dirty, unmerged = (
        worked(opened, task, script, role=f"role{number}")
        for number, script in enumerate(("true", "echo > new.txt", COMMIT))
    )
    assert opened.gc(older_than=3600).worktrees == ()
    assert opened.gc(older_than=0).worktrees == (clean.agent_id,)
    assert len(worktrees(project)) == 3
    assert opened.gc(older_than=0, dry_run=False).worktrees == (clean.agent_id,)
    left = {each.agent_id for each in opened.list_worktrees().worktrees}
    assert left == {dirty.agent_id, unmerged.agent_id}
    opened.remove_worktree(dirty.agent_id, snapshot=True)  # though its run is forgotten


def test_an_agent_takes_no_worktree_away(opened: Headcount, project: Path) -> None:
    made = worked(opened, new_task(opened, project), "true")
    agent = opened.acting_as(Caller(agent_id=made.agent_id, run=1, cwd=str(project)))
    for act in (agent.remove_worktree, agent.undo_worktree):
        with pytest.raises(NotAllowed):
            act(made.agent_id)


# the command line


def test_the_command_line_says_it_all(opened: Headcount, project: Path) -> None:
    made = worked(opened, new_task(opened, project), f"{COMMIT}; echo new > new.txt")
    listed = answer("worktree", "list")["worktrees"]
    assert [each["agent_id"] for each in listed] == [made.agent_id]
    assert "+more" in answer("worktree", "diff", "builder")["diff"]
    assert answer("show", "builder")["worktree"]["result"]["dirty_count"] == 1
    removed = answer("worktree", "remove", "builder", "--snapshot")
    assert removed["trash_ref"].endswith("-1")
    assert answer("worktree", "list")["worktrees"] == []
    assert len(answer("worktree", "list", "--all")["worktrees"]) == 1
    assert answer("worktree", "undo", "builder")["state"] == "there"


def test_a_lost_registry_knows_its_worktrees_again(opened: Headcount, project: Path, home: Path) -> None:
    made = worked(opened, new_task(opened, project), COMMIT)
    live = sleeper(opened, new_task(opened, project), isolation="worktree")
    opened.context.registry.quarantine("a test")
    opened.rebuild_registry()
    opened.validate_and_repair_registry(dry_run=False)
    assert {tree(opened, each).state for each in (made, live)} == {"there"}
    assert opened.registry_health_check().healthy
