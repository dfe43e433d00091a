"""The registry is held by a process that stands still, damaged, or gone, while agents run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.config import Home
from headcount.domain.errors import Refused, RegistryCorrupt
from headcount.services.answers import Deployed
from tests.support.commands import Ran, answer, environment, headcount
from tests.support.fleets import SLEEPER, alive, fleet, new_task, sleeper
from tests.support.forks import child
from tests.support.registries import registry
from tests.support.waiting import until

IMPATIENT = {"HEADCOUNT_REGISTRY_WAIT": "1"}


def hold(home: Path, pipe: int) -> None:
    """Stand still inside a write transaction."""
    with registry(home).write("standing still"):
        os.write(pipe, b".")
        os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def held(home: Path) -> Iterator[int]:
    """Have the registry held by a stopped process; yield its pid."""
    with child(lambda pipe: hold(home, pipe)) as (pid, pipe):
        os.read(pipe, 1)
        os.waitpid(pid, os.WUNTRACED)
        yield pid


@pytest.fixture
def task(home: Path, tmp_path: Path) -> Iterator[str]:
    yield answer("task", "create", "work", "--project", str(tmp_path))["task_id"]
    headcount("halt")


def deploy(task: str, role: str, *options: str, script: str = "exec sleep 600") -> Any:
    return answer("deploy", task, "--role", role, *options, "--", "/bin/sh", "-c", script)


def test_a_stopped_writer_is_named_after_a_bounded_wait(home: Path, task: str) -> None:
    made = deploy(task, "first")
    with held(home) as pid:
        for command in (("deploy", task, "--role", "second", "--", *SLEEPER), ("stop", made["agent_id"])):
            at = command.index("--") if "--" in command else len(command)
            began = time.monotonic()
            ran = headcount(*command[:at], "--json", *command[at:], env=IMPATIENT)
            assert time.monotonic() - began < 8  # one second, and the start of a process on a busy machine
            assert (ran.code, ran.error["code"]) == (5, "registry_busy"), ran
            assert (ran.error["holder_pid"], ran.error["stopped"]) == (pid, True)
            assert f"kill -CONT {pid}" in ran.error["hint"]
            assert f"process {pid}, which is stopped" in ran.error["message"]
            assert "locked" not in ran.out
        assert [each["agent_id"] for each in answer("ps")["agents"]] == [made["agent_id"]]
        assert answer("status", task)["counts"]["running"] == 1
        os.kill(pid, signal.SIGCONT)
        assert deploy(task, "second")["state"] == "running"
    assert len(os.listdir(home / "live")) == 2


def test_halt_does_not_wait_for_a_stopped_writer_before_it_kills(home: Path, task: str) -> None:
    made = deploy(task, "first")
    with held(home) as pid:
        halt = subprocess.Popen(
            [sys.executable, "-m", "headcount", "halt", "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment({"HEADCOUNT_REGISTRY_WAIT": "60"}),
        )
        until(lambda: not alive(made["runner_pid"]), what="the end of the agent", patience=20)
        assert halt.poll() is None  # the row is still to be written
        os.kill(pid, signal.SIGCONT)
        said = Ran(0, halt.communicate(timeout=60)[0], "").facts
    assert [(each["agent_id"], each["outcome"]) for each in said["stopped"]] == [
        (made["agent_id"], "stopped")
    ]
    assert not alive(made["pid"])


def damage(home: Path) -> None:
    """Put noise over all but the first page, as a failing disk would."""
    code = "import os, sys; f = open(sys.argv[1], 'r+b'); f.seek(4096); f.write(b'\\xa5' * 40960)"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(Home(home).registry)], check=True)


def lose(home: Path) -> None:
    for end in ("", "-wal", "-shm"):
        Path(f"{Home(home).registry}{end}").unlink(missing_ok=True)


def unusable(opened: Headcount, task: str) -> None:
    """Check that nothing goes on with a registry that is not what it was, and that all say what to do."""
    for use in (lambda: sleeper(opened, task, "x"), opened.list_agents, opened.list_tasks):
        with pytest.raises(RegistryCorrupt) as refused:
            use()
        assert "headcount repair --rebuild" in refused.value.hint
    ran = headcount("deploy", task, "--role", "x", "--json", "--", "true")
    assert (ran.code, ran.error["code"]) == (5, "registry_corrupt"), ran
    doctor = headcount("doctor", "--json")
    assert (doctor.code, doctor.facts["healthy"]) == (1, False)


REPORTS = 'headcount report working before; read word < "$0"; headcount report working after; exec sleep 600'


@pytest.mark.parametrize(("how", "backed_up"), [(damage, True), (damage, False), (lose, True), (lose, False)])
def test_a_registry_is_rebuilt_with_the_agents_that_live(
    how: Callable[[Path], None], backed_up: bool, home: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        ended = run(opened, task, "ended", "echo its output; exit 3")
        opened.wait_for_agents([ended.agent_id])
        first = run(opened, task, "first", REPORTS, str(gate))
        until(lambda: opened.get_agent(first.agent_id).reported, what="it reports")
        if backed_up:
            opened.gc(dry_run=False)
        second = sleeper(opened, task, "second", parent=first.agent_id)
        opened.close()
        how(home)
        unusable(opened, task)
        kept = [path for path in (home / "quarantine").iterdir() if path.is_dir()]
        assert [(each / "registry.db").exists() for each in kept] == [how is damage]
        rebuilt = answer("repair", "--rebuild")
        assert (rebuilt["from_backup"] is not None, rebuilt["quarantined"]) == (backed_up, str(kept[0]))
        assert rebuilt["runs"] == (1 if backed_up else 3)
        assert "reports, findings and events" in rebuilt["lost"][0]
        same_agents(opened, first, second, ended)
        assert opened.get_agent(first.agent_id).reported == ("working" if backed_up else None)
        with pytest.raises(Refused) as refused:
            sleeper(opened, task, "first")
        assert refused.value.code == "duplicate_role"
        assert sleeper(opened, task, "third").state == "running"
        gate.write_text("go\n")  # its token is known again
        until(lambda: said(opened, task) == "after", what="an agent of before reports after", patience=40)
        with pytest.raises(Refused):
            opened.rebuild_registry()
        assert kept[0].is_dir()


def run(opened: Headcount, task: str, role: str, *script: str) -> Deployed:
    return opened.deploy(task, role=role, harness="command", command=["/bin/sh", "-c", *script])


def said(opened: Headcount, task: str) -> str | None:
    found = opened.get_task_status(task).recent_reports
    return found[0].message if found else None


def same_agents(opened: Headcount, first: Deployed, second: Deployed, ended: Deployed) -> None:
    """Check that the rows are those of before, and that the living agents did not notice."""
    rows = {each.agent_id: each for each in opened.list_agents(all=True).agents}
    for each in (first, second):
        assert (rows[each.agent_id].state, rows[each.agent_id].pid) == ("running", each.pid)
        assert alive(each.pid)
    assert (rows[second.agent_id].parent, rows[second.agent_id].depth) == (first.agent_id, 2)
    over = rows[ended.agent_id]
    assert (over.state, over.outcome, over.exit_code) == ("ended", "failed", 3)
    assert opened.get_agent_output(ended.agent_id).text == "its output\n"
    assert opened.registry_health_check().healthy


def test_halt_works_on_a_damaged_registry(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made = [sleeper(opened, task, f"role{n}") for n in range(3)]
        opened.close()
        damage(home)
        said = headcount("halt", "--json")
        assert said.code == 0, said
        assert "could not be written" in said.facts["note"]
        assert sorted(each["agent_id"] for each in said.facts["stopped"]) == sorted(
            each.agent_id for each in made
        )
        assert not any(alive(each.pid) or alive(each.runner_pid) for each in made)
        answer("repair", "--rebuild")
        assert {each["outcome"] for each in answer("ps", "--all")["agents"]} == {"stopped"}
        assert headcount("halt", "--release").code == 0
