"""What is secret stands in no command line, log, event, error or URL, and in no file where it need not be."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import daemons
from tests.support.agent_processes import by_agent
from tests.support.commands import headcount
from tests.support.daemons import Bridge, daemon
from tests.support.waiting import until

STAND_IN: Final = """#!{python}
import json, os, subprocess, sys
prompt = sys.stdin.readline() if "--input-format=stream-json" in sys.argv else sys.stdin.read()
subprocess.run(["headcount", "report", "working", "read " + str(len(prompt))], check=True)
child = subprocess.Popen(["sleep", "600"])
said = {{"role": "assistant", "content": [{{"type": "text", "text": "I look."}}]}}
print(json.dumps({{"type": "assistant", "message": said}}), flush=True)
child.wait()
"""
"""A Claude Code that reads its prompt, reports, and works on."""
PROMPTED: Final = {
    *("order.json", "prompt", "system.md", "inbox"),
    *("registry.db", "registry.db-wal", "transcript", "output.jsonl"),
}
"""Files and folders whose purpose is to hold what an agent is told and what it says: 0600, below 0700."""


class Watched:
    """The command lines of all processes there were while it watched, short-lived ones too."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def look(self) -> None:
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    self.seen.add(Path(f"/proc/{name}/cmdline").read_bytes())
                except OSError:
                    continue  # it has ended


@contextmanager
def watching() -> Iterator[Watched]:
    watched, over = Watched(), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            watched.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()


@pytest.fixture
def hidden() -> dict[str, str]:
    """What nobody is to see, each found by its own word."""
    names = ("prompt", "system", "key", "message", "env", "reason")
    return {name: f"{name}-{secrets.token_hex(12)}" for name in names}


@pytest.fixture
def env(hidden: Mapping[str, str], tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "ANTHROPIC_API_KEY": hidden["key"], "MY_PASSWORD": hidden["env"]}


def test_a_whole_job_shows_nobody_what_it_was_told(
    home: Path, tmp_path: Path, hidden: dict[str, str], env: dict[str, str]
) -> None:
    with watching() as watched, daemon(home), Bridge(home, env=env, cwd=tmp_path) as bridge:
        answers: list[Any] = []
        task = bridge.call("create_task", description="x", project=str(tmp_path))["task_id"]
        wish = {
            "task_id": task,
            "harness": "claude",
            "prompt": hidden["prompt"],
            "env": ["MY_PASSWORD"],
            "options": {"system_prompt": hidden["system"]},
        }
        made = bridge.call("deploy_headless_agent", agent_type="plain", **wish)
        steered = {**wish, "options": {**wish["options"], "steer": True}, "allow_same_work": True}
        driven = bridge.call("deploy_headless_agent", agent_type="driven", **steered)
        for each in (made, driven):
            until(lambda each=each: _reported(bridge, each), what="its report")  # type: ignore[misc]
            bridge.call("send_message", agent_id=each["agent_id"], text=hidden["message"])
        hidden["token"], hidden["driven token"] = (_token(home, each["agent_id"]) for each in (made, driven))
        hidden["person's token"] = daemons.token(home)
        answers.append(bridge.error("deploy_headless_agent", agent_type="third", **wish))  # the same work
        answers.append(bridge.error("deploy_headless_agent", agent_type="plain", **{**wish, "prompt": "y"}))
        answers.append(_as(home, hidden["token"] + "x"))
        answers.append(_as(home, hidden["token"], tool="stop_agent", agent_id=driven["agent_id"]))
        answers.append(headcount("doctor", "--json", env=env).out)
        answers.append(headcount("ps", env=env).out)
        watched.look()
        for each in (made, driven):
            bridge.call("stop_agent", agent_id=each["agent_id"], grace=1)
            until(lambda each=each: _whole(bridge, each)["runs"][-1]["account"], what="its account")  # type: ignore[misc]
        answers.append(_as(home, hidden["token"], tool="get_agent", agent_id=made["agent_id"]))
        answers.append(bridge.call("read_events", limit=500))
    lines = b"\n".join(watched.seen)
    assert b"--append-system-prompt-file" in lines, "its processes were seen"
    assert {name for name, word in hidden.items() if word.encode() in lines} == set()
    said = json.dumps(answers)
    assert {name for name, word in hidden.items() if word in said} == set()
    assert list(_found_in_files(home, hidden)) == []
    orders = [each.read_text() for each in home.rglob("order.json")]
    assert [hidden["prompt"] in each for each in orders] == [True, True], "it would be found"


def _reported(bridge: Bridge, made: Mapping[str, Any]) -> bool:
    return str(_whole(bridge, made)["message"]).startswith("read ")


def _whole(bridge: Bridge, made: Mapping[str, Any]) -> dict[str, Any]:
    return bridge.call("get_agent", agent_id=made["agent_id"])


def _token(home: Path, agent: str) -> str:
    environ = Path(f"/proc/{by_agent(home)[agent][0]}/environ").read_bytes()
    (found,) = [each for each in environ.split(b"\0") if each.startswith(b"HEADCOUNT_TOKEN=")]
    return found.partition(b"=")[2].decode()


def _as(home: Path, token: str, tool: str = "list_agents", **arguments: Any) -> Any:
    """Return the error that this token gets."""
    with Bridge(
        home, env={"HEADCOUNT_TOKEN": token, "HEADCOUNT_AGENT_ID": "plain-0000000000000000"}
    ) as bridge:
        return bridge.error(tool, **arguments)


def _found_in_files(home: Path, hidden: Mapping[str, str]) -> Iterator[str]:
    """Yield where a secret is that should not be there."""
    told = {"prompt", "system", "message"}
    for file in sorted(home.rglob("*")):
        assert not [name for name, word in hidden.items() if word in file.name]
        if not file.is_file() or file.is_symlink():
            continue
        content = file.read_bytes()
        for name, word in hidden.items():
            at_home = (name in told and {file.name, file.parent.name} & PROMPTED) or (
                name == "person's token" and file.name == "token"
            )
            if word.encode() in content and not at_home:
                yield f"{name} in {file.relative_to(home)}"
