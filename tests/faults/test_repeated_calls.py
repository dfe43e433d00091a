"""A call whose answer was lost is sent again and changes nothing more; an equal call changes as much."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.client import Reply, post
from headcount.config import Home
from headcount.services.collect import CALLS_KEPT
from tests.support import daemons
from tests.support.daemons import META, Bridge, daemon
from tests.support.fleets import fleet, new_task, sleeper

DYING = Path(__file__).parent.parent / "support" / "programs" / "dying_daemon.py"
SAID: Mapping[str, dict[str, Any]] = {
    "update_agent_progress": {"status": "working", "message": "so far", "progress": 50},
    "report_agent_finding": {"finding_type": "issue", "message": "here", "data": {"line": 3}},
}
KEYS = {"X-Headcount-Key": "k" * 32}


@contextmanager
def dying_daemon(home: Path, purpose: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon that kills itself between the commit for this purpose and the answer."""
    argv = (sys.executable, "-P", str(DYING), purpose, "--home", str(home))
    process = subprocess.Popen(argv, env=daemons.environment(home))
    try:
        daemons.wait_ready(home)
        yield process
    finally:
        process.kill()
        process.wait(20)


def contract(pid: int | None) -> dict[str, str]:
    """Return the variables by which an agent's process knows who it is."""
    raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = (each.decode().partition("=") for each in raw if each.startswith(b"HEADCOUNT_"))
    return {name: value for name, _, value in pairs}


def number(opened: Headcount, task: str, tool: str) -> int:
    """Return how many of what a tool writes there are."""
    match tool:
        case "create_task":
            return len(opened.list_tasks().tasks)
        case "deploy_headless_agent":
            return len(opened.list_agents(all=True).agents)
        case "update_agent_progress":
            return len(opened.get_task_status(task).recent_reports)
        case _:
            return len(opened.get_findings(task).findings)


@pytest.mark.parametrize(
    ("tool", "purpose"), [("update_agent_progress", "report"), ("report_agent_finding", "finding")]
)
def test_what_an_agent_said_before_the_daemon_died_is_said_once(
    home: Path, tmp_path: Path, tool: str, purpose: str
) -> None:
    with fleet(home) as opened:
        task = new_task(opened, tmp_path)
        made = sleeper(opened, task)
        inside = {**contract(made.pid), "HEADCOUNT_AUTOSTART": "0"}  # the next daemon is the test's
        with Bridge(home, env=inside) as bridge:
            with dying_daemon(home, purpose) as first:
                asked = bridge.send("tools/call", {"name": tool, "arguments": SAID[tool]})
                first.wait(30)
            assert number(opened, task, tool) == 1
            with daemon(home):
                answer = bridge.answer(asked)["result"]
                assert answer["isError"] is False, answer
                assert (answer["structuredContent"]["late"], number(opened, task, tool)) == (False, 1)
                equal = bridge.call(tool, **SAID[tool])
                assert equal["id"] != answer["structuredContent"]["id"]
                assert number(opened, task, tool) == 2
        kinds = [each.kind for each in opened.read_events(agent_id=made.agent_id).events]
        assert sum(each in {"reported", "finding"} for each in kinds) == 2


@pytest.mark.parametrize(
    ("tool", "purpose"), [("create_task", "create task"), ("deploy_headless_agent", "confirm")]
)
def test_what_a_person_asked_for_before_the_daemon_died_is_done_once(
    home: Path, tmp_path: Path, tool: str, purpose: str
) -> None:
    with fleet(home) as opened, Bridge(home) as bridge:
        task = new_task(opened, tmp_path)
        wanted: Mapping[str, dict[str, Any]] = {
            "create_task": {"description": "once", "project": str(tmp_path)},
            "deploy_headless_agent": {
                "task_id": task,
                "agent_type": "second",
                "harness": "command",
                "command": ["/bin/sleep", "600"],
                "allow_duplicate_role": True,
            },
        }
        with dying_daemon(home, purpose) as first:
            before = number(opened, task, tool)
            asked = bridge.send("tools/call", {"name": tool, "arguments": wanted[tool]})
            first.wait(30)
        answer = bridge.answer(asked)["result"]  # of the daemon that the bridge has started
        assert answer["isError"] is False, answer
        assert number(opened, task, tool) == before + 1
        bridge.call(tool, **wanted[tool])
        assert number(opened, task, tool) == before + 2
        daemons.end(home)


def test_a_key_stands_for_one_call_of_one_caller(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemon(home):
        task = new_task(opened, tmp_path)
        agents = [sleeper(opened, task, role) for role in ("one", "two")]
        heads = [
            {**KEYS, "Authorization": f"Bearer {contract(each.pid)['HEADCOUNT_TOKEN']}"} for each in agents
        ]
        said = SAID["update_agent_progress"]
        first, again = (call(home, "update_agent_progress", said, heads[0]) for _ in range(2))
        assert first == again
        assert call(home, "update_agent_progress", said, heads[1])["id"] != first["id"]
        for tool, other in (("update_agent_progress", {**said, "progress": 51}), *SAID.items()):
            if other != said:
                assert call(home, tool, other, heads[0])["error"]["code"] == "idempotency_key_reused"
        assert call(home, "create_task", {"description": "x", "project": "/"}, KEYS)["state"] == "open"
        assert (
            call(home, "list_tasks", {}, {"X-Headcount-Key": "k" * 300})["error"]["code"] == "invalid_input"
        )


def test_a_report_that_was_in_time_is_not_late_when_it_is_sent_again(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemon(home):
        made = sleeper(opened, new_task(opened, tmp_path))
        head = {**KEYS, "Authorization": f"Bearer {contract(made.pid)['HEADCOUNT_TOKEN']}"}
        call(home, "update_agent_progress", SAID["update_agent_progress"], head)
        opened.kill_agent(made.agent_id)
        again = call(home, "update_agent_progress", SAID["update_agent_progress"], head)
        assert (again["late"], again["note"]) == (False, "recorded")


def test_keys_of_calls_are_kept_for_a_day(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        sent = opened.acting_as(opened.context.caller, call="k")
        task = sent.create_task("once", project=str(tmp_path)).task_id
        opened.gc(dry_run=False, older_than=0.0)
        assert sent.create_task("once", project=str(tmp_path)).task_id == task
        with opened.context.registry.write("test") as tx:
            assert tx.calls.prune(opened.context.clock.now() - CALLS_KEPT) == 0
            assert tx.calls.prune(opened.context.clock.now()) == 1


def call(home: Path, tool: str, arguments: Mapping[str, Any], head: Mapping[str, str]) -> dict[str, Any]:
    """Call a tool as the bridge does, with headers of our choice; return the structured answer."""
    params = {"name": tool, "arguments": arguments, "_meta": META}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    routing = {"MCP-Protocol-Version": daemons.MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
    reply, found = Reply(), None
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(Home(home).daemon_socket))
        line.sendall(post(body, {**routing, **head}))
        while not reply.complete:
            for message in reply.feed(line.recv(65_536)):
                found = message["result"]["structuredContent"]
    assert isinstance(found, dict)
    return found
