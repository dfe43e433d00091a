"""One idempotency key, however often and by however many it is used, is one deploy."""

from __future__ import annotations

import json
from pathlib import Path

from headcount import Headcount
from tests.support.commands import answer, headcount
from tests.support.crowd import at_once, given
from tests.support.fleets import fleet, live_runs, new_task

DEPLOY = """
try:
    made = fleet.deploy(given["task"], role="builder", harness="command", prompt="the work",
                        command=["/bin/sh", "-c", "exec sleep 600"], idempotency_key="the key")
    say([made.agent_id, made.run, made.repeated])
except HeadcountError as error:
    say([error.code, error.exit_code, None])
"""


def test_ten_processes_with_one_key_deploy_one_agent(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        said = [json.loads(lines[-1]) for lines in at_once(DEPLOY, 10, given(home, task=task))]
        (agent,) = {each[0] for each in said}
        assert sorted(each[2] for each in said) == [False] + [True] * 9
        assert live_runs(home) == [f"{agent}.1"]
        assert opened.get_task_status(task).refusals == {}


def test_a_key_is_answered_after_the_end_and_stands_for_one_request(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        words = ("deploy", task, "--role", "builder", "--idempotency-key", "k")
        made = answer(*words, "--", "true")
        headcount("wait", made["agent_id"])
        again = answer(*words, "--", "true")
        assert (again["agent_id"], again["repeated"], again["state"]) == (made["agent_id"], True, "ended")
        other = headcount(*words, "--json", "--", "false")
        assert (other.code, other.error["code"]) == (3, "idempotency_key_reused")
        assert other.error["holders"] == [made["agent_id"]]
        assert only(opened) == made["agent_id"]


def only(opened: Headcount) -> str:
    (agent,) = opened.list_agents(all=True).agents
    return agent.agent_id
