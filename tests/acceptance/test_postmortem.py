"""What is known of the end of a run is gathered while it can be, says what nobody knows, and is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount, Refused
from headcount.config import Home
from headcount.domain.errors import PlacementFailed
from headcount.domain.model import Caller, RunKey
from headcount.runtimes import kernel_log
from headcount.runtimes.runner import oom_kills
from headcount.services import postmortem
from headcount.services.answers import PostMortem
from tests.support import daemons, repositories
from tests.support.commands import answer, headcount
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.waiting import until


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


def ended(opened: Headcount, task: str, *command: str, **more: Any) -> str:
    """Deploy an agent that runs a command, and wait for its end."""
    agent = opened.deploy(task, role="builder", harness="command", command=command, **more).agent_id
    assert opened.wait_for_agents([agent], timeout=30).done
    return agent


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


def test_an_exit_says_its_code_and_what_was_said_last(opened: Headcount, tmp_path: Path) -> None:
    words = "for n in $(seq 30); do echo line $n; done; echo no such luck >&2; exit 3"
    agent = ended(opened, new_task(opened, tmp_path), *shell(words))
    opened.update_agent_progress("working", "half of it", progress=50, agent_id=agent)
    found = opened.get_postmortem(agent)
    assert (found.how, found.exit_code, found.signal) == ("exited with code 3", 3, None)
    assert (found.outcome, found.stop, found.unknown) == ("failed", None, ())
    assert [each["text"] for each in found.entries] == [f"line {n}" for n in range(11, 31)]
    assert found.stderr == "no such luck\n"
    assert found.last_report is not None
    assert (found.last_report["message"], found.last_report["late"]) == ("half of it", True)
    assert found.account is not None
    assert found.account["lines"] == 30
    assert found.files["source"] == "none"
    assert found.ran_s is not None
    assert 0 <= found.ran_s < 30


def test_a_kill_by_somebody_else_is_named_and_what_is_not_known_of_it(
    opened: Headcount, tmp_path: Path
) -> None:
    made = sleeper(opened, new_task(opened, tmp_path))
    assert made.pid is not None
    os.kill(made.pid, signal.SIGKILL)
    assert opened.wait_for_agents([made.agent_id], timeout=30).done
    found = opened.get_postmortem(made.agent_id)
    assert (found.how, found.signal, found.ending) == ("killed by SIGKILL (signal 9)", 9, "killed")
    assert found.stop is None
    assert found.out_of_memory["killed"] in (None, False)
    assert found.unknown[0].startswith("who sent SIGKILL")
    if found.out_of_memory["killed"] is None:
        assert "memory" in found.unknown[1]


def test_a_stop_says_who_asked_for_it_and_why(opened: Headcount, tmp_path: Path) -> None:
    made = sleeper(opened, new_task(opened, tmp_path))
    opened.stop_agent(made.agent_id, reason="it went the wrong way")
    found = opened.get_postmortem(made.agent_id)
    assert found.how.startswith("stopped as asked: ")
    assert found.stop is not None
    assert (found.stop["by"], found.stop["reason"]) == ("person", "it went the wrong way")
    assert found.unknown == ()


def test_a_stop_by_the_parent_names_it(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    parent = sleeper(opened, task, "lead")
    child = sleeper(opened, task, parent=parent.agent_id)
    opened.acting_as(Caller(agent_id=parent.agent_id, run=1)).stop_agent(child.agent_id, reason="enough")
    found = opened.get_postmortem(child.agent_id)
    assert found.stop is not None
    assert (found.stop["by"], found.stop["reason"]) == (parent.agent_id, "enough")


def test_of_a_lost_run_it_says_what_is_unknown(opened: Headcount, tmp_path: Path) -> None:
    made = opened.deploy(
        new_task(opened, tmp_path),
        role="builder",
        harness="command",
        command=shell("echo here; exec sleep 600"),
    )
    until(lambda: "here" in opened.get_agent_output(made.agent_id).text, what="its output")
    assert made.runner_pid is not None
    os.kill(made.runner_pid, signal.SIGKILL)
    until(lambda: not alive(made.runner_pid), what="the runner's end")
    opened.validate_and_repair_registry(dry_run=False)
    found = opened.get_postmortem(made.agent_id)
    assert (found.state, found.outcome, found.exit_code, found.signal) == ("lost", None, None, None)
    assert found.how.startswith("lost: ")
    assert found.unknown[0].startswith("its exit code or signal")
    assert found.unknown[1].startswith("whether memory was short")
    assert [each["text"] for each in found.entries] == ["here"]


def test_a_live_agent_has_none(opened: Headcount, tmp_path: Path) -> None:
    made = sleeper(opened, new_task(opened, tmp_path))
    with pytest.raises(Refused) as refused:
        opened.get_postmortem(made.agent_id)
    assert refused.value.code == "agent_live"


def test_an_agent_that_never_began_says_why(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    program = tmp_path / "no-program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o700)
    with pytest.raises(PlacementFailed):
        opened.deploy(task, role="builder", harness="command", command=[str(program)])
    (agent,) = opened.list_agents(all=True).agents
    found = opened.get_postmortem(agent.agent_id)
    assert found.how.startswith("never began: ")
    assert found.files["note"] == "it never began"


def test_it_is_made_once_and_outlives_what_it_was_made_from(opened: Headcount, tmp_path: Path) -> None:
    agent = ended(opened, new_task(opened, tmp_path), *shell("echo something"))
    first = opened.get_postmortem(agent)
    shutil.rmtree(opened.get_agent(agent).path)
    assert opened.get_postmortem(agent) == first
    assert [each["text"] for each in first.entries] == ["something"]
    assert postmortem.make(opened.context, RunKey(agent, 1)) is False


def test_restarts_and_limits_that_were_near_are_told(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path, max_live=1, max_agents=10, max_depth=5)
    said = json.dumps([{"say": "one"}])
    agent = opened.deploy(task, role="builder", harness="script", prompt=said).agent_id
    opened.wait_for_agents([agent], timeout=30)
    opened.resume_agent(agent, said)
    opened.wait_for_agents([agent], timeout=30)
    first, second = opened.get_postmortem(agent, run=1), opened.get_postmortem(agent)
    assert [each["run"] for each in first.runs] == [1]
    assert [(each["run"], each["why"], each["ending"]) for each in second.runs] == [
        (1, "deploy", "finished"),
        (2, "resume", "finished"),
    ]
    assert {"limit": "max_live", "value": 1, "used": 1, "of": "task"} in second.near_limits
    assert "max_agents" not in {each["limit"] for each in second.near_limits}


def test_the_last_tool_call_is_found_before_the_last_entries(opened: Headcount, tmp_path: Path) -> None:
    steps = [{"run": ["echo", "made"]}, *({"say": f"word {n}"} for n in range(40))]
    task = new_task(opened, tmp_path)
    agent = opened.deploy(task, role="builder", harness="script", prompt=json.dumps(steps)).agent_id
    opened.wait_for_agents([agent], timeout=30)
    found = opened.get_postmortem(agent)
    assert len(found.entries) == 20
    assert "tool_call" not in {each["kind"] for each in found.entries}
    assert found.last_tool_call is not None
    assert "made" in found.last_tool_call


def test_files_of_a_shared_project_are_those_changed_since_the_start(
    opened: Headcount, tmp_path: Path
) -> None:
    project = repositories.repository(tmp_path / "project")
    (project / "old.txt").write_text("from before\n")
    words = "echo new > new.txt; echo more >> a.txt; git add a.txt; "
    words += "git -c user.name=a -c user.email=a@b commit -qm x"
    agent = ended(opened, new_task(opened, project), *shell(words))
    found = opened.get_postmortem(agent)
    assert found.files["source"] == "git"
    assert found.files["files"] == ["a.txt", "new.txt"]
    assert found.files["count"] == 2


def test_files_of_a_worktree_are_those_that_differ_from_its_base(opened: Headcount, tmp_path: Path) -> None:
    project = repositories.repository(tmp_path / "project")
    agent = ended(opened, new_task(opened, project), *shell("echo new > new.txt"), isolation="worktree")
    found = opened.get_postmortem(agent)
    assert (found.files["source"], found.files["files"], found.files["uncommitted"]) == (
        "worktree",
        ["new.txt"],
        1,
    )


def test_the_command_line_shows_it(home: Path, tmp_path: Path) -> None:
    task = answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    agent = answer("deploy", task, "--role", "builder", "--", "sh", "-c", "echo so far; exit 3")["agent_id"]
    assert headcount("wait", agent).code == 1
    shown = headcount("postmortem", "builder")
    assert shown.code == 0
    assert "exited with code 3" in shown.out
    assert "[text] so far" in shown.out
    assert answer("postmortem", agent, "--run", "1")["how"] == "exited with code 3"
    assert headcount("postmortem", agent, "--run", "2", "--json").error["code"] == "not_found"


def test_the_daemon_makes_it_after_each_end_also_after_its_own(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    before = ended(opened, task, *shell("echo before"))
    kept: dict[str, PostMortem] = {}

    def made(agent: str) -> bool:
        with opened.context.registry.read() as tx:
            return tx.postmortems.get(RunKey(agent, 1)) is not None

    assert not made(before)
    with daemons.daemon(home):
        until(lambda: made(before), what="that of a run that ended before")
        after = opened.deploy(task, role="builder", harness="command", command=shell("exit 4")).agent_id
        until(lambda: made(after), what="that of a run that ends now")
        kept[after] = opened.get_postmortem(after)
        with daemons.Bridge(home) as bridge:
            told = bridge.call("get_postmortem", agent_id=after, run=1)
            assert (told["how"], told["out_of_memory"]) == (kept[after].how, kept[after].out_of_memory)
            assert bridge.error("get_postmortem", agent_id=after, run=2)["code"] == "not_found"
    assert kept[after].how == "exited with code 4"
    assert "failed" not in Home(home).daemon_log.read_text()


def test_want_of_memory_is_found_in_the_kernels_log() -> None:
    said = "Out of memory: Killed process 77 (python) total-vm:9kB"
    records = [
        b"6,1,1000000,-;Out of memory: Killed process 77 (older) total-vm:1kB\n",
        f"3,2,9000000,-;{said}\n SUBSYSTEM=x\n".encode(),
        b"3,3,9000001,-;Memory cgroup out of memory: Killed process 78 (other) total-vm:9kB\n",
        b"3,4,9000002,-;user 77 wrote: nothing of that kind\n",
    ]
    assert kernel_log.find(records, {77}, since=5.0) == said
    assert kernel_log.find(records, {77}, since=9.5) == ""
    assert kernel_log.find(records, {7}, since=0.0) == ""
    assert kernel_log.find(records, {78, 1}, since=0.0).startswith("Memory cgroup out of memory")
    assert kernel_log.memory_kill({os.getpid()}, 60.0) in ("", None)


def test_want_of_memory_is_read_from_the_cgroup(tmp_path: Path) -> None:
    leaf = os.fsencode(tmp_path)
    assert oom_kills(leaf) is None
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(leaf) == 2
