"""SIGKILL who deploys, resumes or sends, at every SQL statement, and before every start and file write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.services import messages
from tests.support.fleets import alive, fleet, new_task
from tests.support.waiting import until

CHILD = """
import os, signal, subprocess, sys
at, home, what, whom = int(sys.argv[1]), *sys.argv[2:5]
from headcount import Headcount, bootstrap
count = 0
def boundary(what):
    global count
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
SIDE = {"open", "os.mkdir", "os.rename", "os.symlink", "os.remove", "os.truncate", "os.chmod", "fcntl.lockf",
        "fcntl.fcntl", "fcntl.flock", "subprocess.Popen", "os.link", "os.rmdir", "os.mkfifo"}
armed = False
def hook(event, args):
    if armed and event in SIDE:
        boundary(event)
sys.addaudithook(hook)
def around(call):
    def wrapped(*args, **kwargs):
        if armed:
            boundary("before")
        result = call(*args, **kwargs)
        if armed:
            boundary("after")
        return result
    return wrapped
os.write, os.fsync = around(os.write), around(os.fsync)
subprocess.Popen.__init__ = around(subprocess.Popen.__init__)
settings = {"views": False, "autostart": False, "min_memory_mb": 1}
statement = lambda sql: boundary(sql) if armed else None
fleet = Headcount.of(bootstrap.context(home, settings, on_statement=statement))
fleet.list_agents()                       # everything is imported, the registry is open
armed = True
command = ["/bin/sh", "-c", "exec sleep 600"]
steps = '[{"say": "%d"}, {"sleep": 600}]' % at
if what == "deploy":
    fleet.deploy(whom, role="builder", harness="command", command=command, prompt="work")
elif what == "resume":
    fleet.resume_agent(whom, steps)
else:
    fleet.send_message(whom, steps)
armed = False
print(count)
"""


def run_child(at: int, home: Path, what: str, whom: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(at), str(home), what, whom],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def boundaries(home: Path, project: Path) -> int:
    """Return how many boundaries one whole deploy has."""
    with fleet(home) as opened:
        done = run_child(-1, home, "deploy", new_task(opened, project))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def agree(opened: Headcount) -> None:
    """Check that after one headcount the rows are the processes."""
    opened.validate_and_repair_registry(dry_run=False)
    health = opened.registry_health_check()
    assert health.healthy, health
    for agent in opened.list_agents(all=True).agents:
        live = agent.state in {"reserved", "running", "stopping"}
        assert live == alive(agent.runner_pid), agent
        assert not live or alive(agent.pid), agent


PARTS = 4


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_after_one_headcount_rows_are_processes_wherever_the_deployer_died(
    part: int, home: Path, tmp_path: Path
) -> None:
    total = boundaries(home, tmp_path)
    assert total > 40
    with fleet(home) as opened:
        for at in range(part, total, PARTS):
            task = new_task(opened, tmp_path)
            died = run_child(at, home, "deploy", task)
            if died.returncode == 0:  # a later deploy finds more in place, and so has fewer boundaries
                assert at > total - 10, died.stdout
                break
            assert died.returncode == -signal.SIGKILL, (at, died.stdout, died.stderr)
            # the runner may be between its start and its lock: that end is settled by whoever comes next
            until(lambda: _settled(opened), what=f"a settled registry after boundary {at}")
            agree(opened)
            for agent in opened.list_agents(task_id=task).agents:
                opened.kill_agent(agent.agent_id)


def _settled(opened: Headcount) -> bool:
    """A runner whose order was cut short holds its lock for a moment: until then the row waits for it."""
    opened.validate_and_repair_registry(dry_run=False)
    waiting = any(agent.state == "reserved" for agent in opened.list_agents().agents)
    return opened.registry_health_check().healthy and not waiting


def talker(opened: Headcount, project: Path) -> str:
    """Return an agent that is over and has a conversation."""
    task = new_task(opened, project)
    agent = opened.deploy(task, role="builder", harness="script", prompt='[{"say": "first"}]')
    assert opened.wait_for_agents([agent.agent_id], timeout=20).done
    return agent.agent_id


def whole(home: Path, project: Path, what: str) -> int:
    """Return how many boundaries one whole resume or message has."""
    with fleet(home) as opened:
        done = run_child(-1, home, what, talker(opened, project))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_after_one_headcount_rows_are_processes_wherever_who_resumed_died(
    part: int, home: Path, tmp_path: Path
) -> None:
    total = whole(home, tmp_path, "resume")
    assert total > 40
    with fleet(home) as opened:
        agent_id = talker(opened, tmp_path)
        for at in range(part, total, PARTS):
            before = opened.get_agent(agent_id).run
            died = run_child(at, home, "resume", agent_id)
            if died.returncode == 0:
                assert at > total - 10, died.stdout
                break
            assert died.returncode == -signal.SIGKILL, (at, died.stdout, died.stderr)
            until(lambda: _settled(opened), what=f"a settled registry after boundary {at}")
            agree(opened)
            assert opened.get_agent(agent_id).run in (before, before + 1)
            opened.kill_agent(agent_id)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_message_is_handed_over_once_wherever_its_sender_died(
    part: int, home: Path, tmp_path: Path
) -> None:
    total = whole(home, tmp_path, "send")
    assert total > 40
    with fleet(home) as opened:
        agent_id = talker(opened, tmp_path)
        for at in range(part, total, PARTS):
            known = {each.id for each in opened.list_messages(agent_id).messages}
            died = run_child(at, home, "send", agent_id)
            if died.returncode == 0:
                assert at > total - 10, died.stdout
                break
            assert died.returncode == -signal.SIGKILL, (at, died.stdout, died.stderr)
            until(lambda: _settled(opened), what=f"a settled registry after boundary {at}")
            agree(opened)
            for each in opened.list_messages(agent_id).messages:
                if each.id not in known:
                    messages.bring(opened.context, each.id)  # as the daemon does
            agree(opened)
            for each in opened.list_messages(agent_id).messages:
                assert each.state == "delivered", each
            assert _told(opened, agent_id, at) == len(opened.list_messages(agent_id).messages) - len(known)
            opened.kill_agent(agent_id)


def _told(opened: Headcount, agent_id: str, at: int) -> int:
    """Return how many runs that began were told the message of this boundary."""
    begun = [Path(run.path) for run in opened.get_agent(agent_id).runs if run.started_at]
    return sum(f'"say": "{at}"' in (path / "steps.json").read_text() for path in begun)
