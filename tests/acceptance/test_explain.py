"""`headcount explain`: of an agent in any state, which signals there are and what would change it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.domain.errors import RegistryCorrupt
from headcount.domain.model import Caller, RunKey
from headcount.domain.policy import Act
from headcount.domain.watchdog import Signal
from headcount.services.answers import Explained
from tests.support.commands import answer, headcount
from tests.support.fleets import SLEEPER, fleet, new_task, sleeper
from tests.support.waiting import until


def said(found: Explained) -> dict[str, str]:
    return {each.name: each.value for each in found.signals}


def deployed(opened: Headcount, project: Path, *command: str) -> str:
    task = new_task(opened, project)
    return opened.deploy(task, role="builder", harness="command", command=command or SLEEPER).agent_id


def test_a_live_agent_is_explained(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        agent_id = deployed(opened, tmp_path, "/bin/sh", "-c", "echo 12345; exec sleep 600")
        until(lambda: said(opened.explain_agent(agent_id))["output"] == "6 bytes", what="its output")
        opened.update_agent_progress("working", "half of it", progress=50, agent_id=agent_id)
        facts, found = opened.get_agent(agent_id), opened.explain_agent(agent_id)
        signals = said(found)
        assert (found.state, found.run) == ("running", 1)
        assert signals["lock"] == f"held by its runner, pid {facts.runner_pid}"
        assert signals["process"] == f"pid {facts.pid} is alive"
        assert signals["report"] == "working 50%: half of it"
        assert float(signals["memory"].split()[0]) > 0
        assert "300 s of silence after its final report: flag" in found.changes
        assert facts.pid is not None
        os.kill(facts.pid, signal.SIGSTOP)
        until(lambda: "halted" in said(opened.explain_agent(agent_id))["process"], what="it is halted")


def test_what_is_over_is_explained_with_who_asked(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        agent_id = deployed(opened, tmp_path)
        opened.stop_agent(agent_id, reason="enough")
        found = opened.explain_agent(agent_id)
        assert found.why.startswith("it ended, stopped: enough")
        assert said(found)["stop"] == "asked for by person: enough"
        assert said(found)["lock"].startswith("free; records: start, exit")
        assert any("no conversations" in each for each in found.changes)


def test_a_lost_agent_is_explained(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        agent_id = deployed(opened, tmp_path)
        runner = opened.get_agent(agent_id).runner_pid
        assert runner is not None
        os.kill(runner, signal.SIGKILL)
        until(lambda: opened.get_agent(agent_id).state == "lost", what="it is lost")
        found = opened.explain_agent(agent_id)
        assert found.why == "it is over and nobody knows how it ended: the runner was killed"
        assert said(found)["exit"] == "unknown"


def test_a_flag_is_shown_everywhere(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        agent_id = deployed(opened, tmp_path)
        with opened.context.registry.write("test") as tx:
            evidence = {"silent_s": 901}
            key = RunKey(agent_id, 1)
            tx.flags.put(key, Signal.STALLED, evidence=evidence, action=Act.STOP, now=1_700_000_000.0)
        (flag,) = opened.explain_agent(agent_id).flags
        assert (flag.kind, flag.evidence, flag.action) == ("stalled", evidence, "stop")
        assert "stalled" in headcount("explain", agent_id).out
        assert "stalled!" in headcount("ps").out
        assert "stalled" in headcount("show", agent_id).out
        checks = {each["name"]: each for each in headcount("doctor", "--json").facts["checks"]}
        assert f"{agent_id}.1 stalled" in checks["watchdog"]["detail"]
        opened.halt()
        found = opened.explain_agent(agent_id)
        assert any("emergency stop" in each for each in found.changes)


def test_an_agent_that_is_not_there_has_no_explanation(home: Path) -> None:
    ran = headcount("explain", "builder-00000000000000", "--json")
    assert (ran.code, ran.error["code"]) == (4, "not_found")


# how a policy is given


def test_a_policy_comes_from_a_file_and_single_options(home: Path, tmp_path: Path) -> None:
    toml = tmp_path / "policy.toml"
    toml.write_text('stall_after_s = 60\n[roles.builder]\non_stall = "stop"\n')
    asked = ("task", "create", "work", "--project", str(tmp_path), "--policy", str(toml))
    task = answer(*asked, "--wall-limit", "2h")
    assert task["policy"] == {
        "stall_after_s": 60.0, "wall_limit_s": 7200.0, "roles": {"builder": {"on_stall": "stop"}},
    }  # fmt: skip
    assert '"stall_after_s": 60.0' in headcount("task", "show", task["task_id"]).out
    as_json = tmp_path / "policy.json"
    as_json.write_text(json.dumps({"memory_limit_mb": 500}))
    given = ("--policy", str(as_json), "--on-memory", "tell_parent")
    made = answer("deploy", task["task_id"], "--role", "builder", *given, "--", *SLEEPER)
    held = answer("show", made["agent_id"])["policy"]
    expected = {"stall_after_s": 60, "on_stall": "stop", "wall_limit_s": 7200, "memory_limit_mb": 500}
    assert expected.items() <= held.items()
    assert "memory_limit_mb 500: tell_parent" in headcount("show", made["agent_id"]).out
    headcount("halt")


def test_a_wrong_policy_creates_nothing(home: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "policy.toml"
    for text in ("stall = 5", "stall_after_s = -1", "this is not TOML", "[1]"):
        wrong.write_text(text)
        ran = headcount("task", "create", "work", "--policy", str(wrong), "--json", cwd=tmp_path)
        assert (ran.code, ran.error["code"]) == (2, "invalid_input"), text
    assert headcount("task", "list", "--json").facts["tasks"] == []


def test_the_settings_have_a_policy_for_all(home: Path, tmp_path: Path) -> None:
    (home / "settings.toml").write_text(
        "[policy]\nwall_limit_s = 5\n[policy.roles.tester]\nwall_limit_s = 9\n"
    )
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, policy={"act_after_s": 1})
        builder, tester = sleeper(opened, task), sleeper(opened, task, "tester")
        policies = [opened.get_agent(each.agent_id).policy for each in (builder, tester)]
    assert [(each["wall_limit_s"], each["act_after_s"]) for each in policies] == [(5, 1), (9, 1)]


def test_a_child_s_policy_loosens_nothing(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, policy={"wall_limit_s": 60, "on_wall": "stop"})
        lead = sleeper(opened, task, "lead")
        acting = opened.acting_as(Caller(cwd=str(tmp_path), agent_id=lead.agent_id, run=1))
        wish = {"wall_limit_s": 0, "on_wall": "flag", "stall_after_s": 5}
        child = sleeper(acting, task, policy=wish).agent_id
        held = opened.get_agent(child).policy
    assert (held["wall_limit_s"], held["on_wall"], held["stall_after_s"]) == (60, "stop", 5)


def test_a_rebuilt_registry_has_the_policies(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path, policy={"wall_limit_s": 60})
        agent_id = sleeper(opened, task, policy={"stall_after_s": 5}).agent_id
        opened.context.registry.close()
        (home / "registry.db").write_bytes(b"not a database" * 100)
        for each in ("registry.db-wal", "registry.db-shm"):
            (home / each).unlink(missing_ok=True)
        with pytest.raises(RegistryCorrupt):
            opened.list_tasks()
        opened.rebuild_registry()
        held = opened.get_agent(agent_id).policy
    assert (held["wall_limit_s"], held["stall_after_s"]) == (60, 5)
