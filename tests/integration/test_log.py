"""The daemon's log names runs and events, never what anybody said nor what lets anybody in."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

from headcount.config import Home
from tests.support import daemons
from tests.support.daemons import META, MODERN, Bridge, daemon
from tests.support.fleets import alive
from tests.support.waiting import until

PROMPT, MESSAGE, VARIABLE, JUNK = "pr0mpt-of-mine", "m3ssage-of-mine", "v4riable-of-mine", "jvnk-of-mine"


def lines(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Home(home).daemon_log.read_text().splitlines()]


def token_of(pid: int) -> str:
    """Return the token that a process was given."""
    environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    (found,) = [each.partition("=")[2] for each in environ if each.startswith("HEADCOUNT_TOKEN=")]
    return found


def test_a_whole_job_leaves_neither_prompt_nor_token_in_the_log(home: Path) -> None:
    env = {"SECRET_OF_MINE": VARIABLE}
    with daemon(home, HEADCOUNT_HEADCOUNT_EVERY="0.2"), Bridge(home, env=env) as bridge:
        task = bridge.call("create_task", description=PROMPT, project="/tmp", background=PROMPT)["task_id"]
        long = deploy(bridge, task, "builder", resume_on_crash=1)
        token = token_of(long["pid"])
        bridge.error("deploy_headless_agent", task_id=task, agent_type="builder", prompt=PROMPT)
        bridge.result("deploy_headless_agent", task_id=task, agent_type="x", prompt=[PROMPT, JUNK])
        command = {"harness": "command", "command": ["/nowhere/at/all", JUNK]}
        bridge.error("deploy_headless_agent", task_id=task, agent_type="x", prompt=PROMPT, **command)
        bridge.call("send_message", agent_id=long["agent_id"], text=json.dumps([{"say": MESSAGE}]))
        os.kill(long["pid"], signal.SIGKILL)
        until(lambda: not alive(long["pid"]), what="its crash")
        until(lambda: "resumed_after_crash" in Home(home).daemon_log.read_text(), what="it goes on")
        with_junk(home, daemons.token(home))
        bridge.call("stop_agent", agent_id=long["agent_id"], grace=0)
        (home / "live").rename(home / "aside")  # the supervision fails, and says so with a traceback
        (home / "live").write_text("no directory")
        until(lambda: "supervision_failed" in Home(home).daemon_log.read_text(), what="a failure")
        (home / "live").unlink()
        (home / "aside").rename(home / "live")
        person = daemons.token(home)
        bridge.call("wait_for_agents", agent_ids=[long["agent_id"]])
    text = Home(home).daemon_log.read_text()
    for secret in (PROMPT, MESSAGE, VARIABLE, JUNK, token, person):
        assert secret not in text, secret
    said = {each["event"]: each for each in lines(home)}
    assert said["run_settled"]["run"].startswith(f"{long['agent_id']}.")
    assert said["resumed_after_crash"]["run"] == f"{long['agent_id']}.1"
    assert {"daemon_started", "daemon_stopped", "supervision_failed"} <= said.keys()


def deploy(bridge: Bridge, task: str, role: str, **more: Any) -> dict[str, Any]:
    steps = json.dumps([{"say": PROMPT}, {"sleep": 600}])
    asked = {"harness": "script", "prompt": steps, "env": ["SECRET_OF_MINE"], **more}
    return bridge.call("deploy_headless_agent", task_id=task, agent_type=role, **asked)


def with_junk(home: Path, token: str) -> None:
    """Send what is no request, with what must not be logged in it."""
    for body, kind in (
        (f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "{JUNK}', "application/json"),
        (
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": JUNK, "params": {"_meta": META}}),
            "application/json",
        ),
        (
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [JUNK]}),
            "application/json",
        ),
        (JUNK, "text/plain"),
    ):
        line = http.client.HTTPConnection("127.0.0.1", daemons.facts(home)["port"], timeout=daemons.PATIENCE)
        head = {
            "Authorization": f"Bearer {token}",
            "Content-Type": kind,
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN,
            "X-Headcount-Key": JUNK,
        }
        line.request("POST", f"/mcp?{JUNK}", body=body, headers=head)
        assert line.getresponse().status < 500
        line.close()
        line.request("GET", f"/{JUNK}", headers={"Authorization": f"Bearer {JUNK}"})
        assert line.getresponse().status == 401
        line.close()
