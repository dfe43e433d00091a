"""Whose token may do what: every tool and command, with each kind of token that is not the right one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from headcount import Headcount
from headcount.domain.model import RunKey
from headcount.doors.cli import edge
from headcount.doors.cli.commands import COMMANDS
from headcount.doors.mcp.resources import RESOURCES
from headcount.doors.mcp.tools import TOOLS, Tool, Who
from headcount.services.answers import Deployed
from tests.support import daemons, leftovers, private
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.registries import new_run
from tests.support.waiting import until
from tests.support.whole_app import PERSON_TOKEN, WholeApp, whole_app

SHOWS_ITS_TOKEN: Final = ("/bin/sh", "-c", 'echo "$HEADCOUNT_TOKEN"; exec sleep 600')
NAMES: Final = [tool.name for tool in TOOLS]

ON_ANOTHER: Final[Mapping[str, Mapping[str, Any]]] = {
    "update_agent_progress": {"agent_id": "VICTIM", "status": "done", "message": "x"},
    "report_agent_finding": {"agent_id": "VICTIM", "finding_type": "issue", "message": "x"},
    "spawn_child_agent": {"agent_type": "child", "harness": "command", "parent": "VICTIM"},
    "resume_agent": {"agent_id": "VICTIM", "prompt": "x"},
    "send_message": {"agent_id": "VICTIM", "text": "x"},
    "cancel_turn": {"agent_id": "VICTIM"},
    "answer_approval": {"approval_id": "VICTIM.1.1", "allow": True},
}
"""What an agent's tools that change something do to an agent that is none of its own. A new one is added."""


@dataclass(frozen=True)
class Fleet:
    """One agent of each kind, and their tokens."""

    app: WholeApp
    opened: Headcount
    victim: Deployed  # in a task of its own
    live: str
    ended: str
    replaced: str

    def refusal(self, tool: str, arguments: Mapping[str, Any], token: str, **how: Any) -> Any:
        said = self.app.result(tool, arguments, token=token, **how)
        assert "error" in said, (tool, said)
        return said["error"]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    place = tmp_path_factory.mktemp("crowd")
    root = private.place_for_a_test(Path(os.environ[private.MARK]))
    (root / "h").mkdir(mode=0o700)
    with fleet(root / "h") as opened, whole_app(opened) as app:
        victim = sleeper(opened, new_task(opened, place))
        task = new_task(opened, place)
        live, ended, replaced = (_deployed(opened, task, role) for role in ("live", "ended", "replaced"))
        for made in (ended, replaced):
            opened.kill_agent(made[0].agent_id)
        with opened.context.registry.write("a second run") as tx:
            again = new_run(replaced[0].agent_id, 2, task_id=task, role="replaced", path=str(place / "2"))
            tx.runs.add(again)
        yield Fleet(app, opened, victim, live[1], ended[1], replaced[1])
        with opened.context.registry.write("it never began") as tx:
            tx.runs.lost(RunKey(replaced[0].agent_id, 2), reason="test", survivors=(), now=1.0)
    assert leftovers.await_none(root) == []
    private.remove(root)


def _deployed(opened: Headcount, task: str, role: str) -> tuple[Deployed, str]:
    made = opened.deploy(task, role=role, harness="command", command=SHOWS_ITS_TOKEN)

    def token() -> str:
        return opened.get_agent_output(made.agent_id).text.strip()

    until(token, what="its token")
    return made, token()


def named(arguments: Mapping[str, Any], victim: Deployed) -> dict[str, Any]:
    return {
        k: v.replace("VICTIM", victim.agent_id) if isinstance(v, str) else v for k, v in arguments.items()
    }


# ---------------------------------------------------------------- tools


def test_every_tool_that_changes_something_says_what_it_does_to_another_agent() -> None:
    assert {tool.name for tool in TOOLS if Who.AGENT in tool.who and not tool.reads_only} == set(ON_ANOTHER)


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_a_made_up_token_is_nobodys(tool: Tool, crowd: Fleet) -> None:
    for token in (
        "made-up",
        crowd.live + "x",
        crowd.live[:-1],
        crowd.live.swapcase(),
        PERSON_TOKEN[:-1],
        "\xff",
    ):
        assert crowd.refusal(tool.name, {}, token, by_socket=True)["code"] == "not_allowed", token
        assert crowd.app.call(tool.name, {}, token=token).status == 401, token


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_the_port_is_for_nobody_without_a_token(tool: Tool, crowd: Fleet) -> None:
    assert crowd.app.call(tool.name, {}, token=None).status == 401
    for scheme in ("Basic dGhlOnBlcnNvbg==", f"Basic {PERSON_TOKEN}", PERSON_TOKEN, "Bearer", "Bearer  "):
        assert crowd.app.call(tool.name, {}, token=None, authorization=scheme).status == 401, scheme


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_the_token_of_a_run_that_is_over_is_good_for_late_reports_only(tool: Tool, crowd: Fleet) -> None:
    good = {
        "update_agent_progress": {"status": "done", "message": "x"},
        "report_agent_finding": {"finding_type": "issue", "message": "x"},
    }
    if tool.name in good:
        assert crowd.app.result(tool.name, good[tool.name], token=crowd.ended)["late"] is True
        on_another = named(ON_ANOTHER[tool.name], crowd.victim)
        assert crowd.refusal(tool.name, on_another, crowd.ended)["code"] == "not_allowed"
    else:
        for arguments in ({}, named(ON_ANOTHER.get(tool.name, {}), crowd.victim)):
            assert crowd.refusal(tool.name, arguments, crowd.ended)["code"] == "not_allowed"


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_the_token_of_a_run_that_a_newer_one_has_replaced_is_good_for_nothing(
    tool: Tool, crowd: Fleet
) -> None:
    assert crowd.refusal(tool.name, {}, crowd.replaced, by_socket=True)["code"] == "not_allowed"
    assert crowd.app.call(tool.name, {}, token=crowd.replaced).status == 401


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_a_live_agents_token_does_nothing_to_another_agent(tool: Tool, crowd: Fleet) -> None:
    before = crowd.opened.get_agent(crowd.victim.agent_id)
    if Who.AGENT not in tool.who:
        assert crowd.refusal(tool.name, {}, crowd.live)["code"] == "not_allowed"
    elif not tool.reads_only:
        refused = crowd.refusal(tool.name, named(ON_ANOTHER[tool.name], crowd.victim), crowd.live)
        expected = "invalid_arguments" if tool.name == "spawn_child_agent" else "not_allowed"
        assert refused["code"] == expected, refused
    assert crowd.opened.get_agent(crowd.victim.agent_id) == before
    assert crowd.opened.list_messages(crowd.victim.agent_id).messages == ()
    assert alive(crowd.victim.pid)


@pytest.mark.parametrize("resource", RESOURCES, ids=[each.name for each in RESOURCES])
def test_resources_are_read_with_a_token_that_counts(resource: Any, crowd: Fleet) -> None:
    uri = resource.uri.format(task_id=crowd.victim.task_id, agent_id=crowd.victim.agent_id)

    def read(token: str) -> Any:
        return crowd.app.request(
            "resources/read", {"uri": uri}, token=token, by_socket=True, **{"mcp-name": uri}
        ).message

    assert "result" in read(crowd.live)
    for token in ("made-up", crowd.ended, crowd.replaced):
        assert "not_allowed" in read(token)["error"]["message"]


# ---------------------------------------------------------------- commands

PERSONS: Final = {
    "task create x": "task",
    "task close TASK": "task",
    "task archive TASK": "task",
    "task pause TASK": "task",
    "task resume TASK": "task",
    "takeover VICTIM": "takeover",
    "handback VICTIM --prompt x": "handback",
    "stop VICTIM": "stop",
    "kill VICTIM": "kill",
    "halt": "halt",
    "halt --release": "halt",
    "gc --apply": "gc",
    "repair --apply": "repair",
    "repair --rebuild": "repair",
    "up": "up",
    "down": "down",
    "run -- true": "run",
    "worktree remove VICTIM": "worktree",
    "worktree undo VICTIM": "worktree",
}
"""Only a person may; an agent may not, whatever its token."""
AGENTS: Final = {
    "report done x --agent VICTIM": "report",
    "finding issue x --agent VICTIM": "finding",
    "resume VICTIM --prompt x": "resume",
    "send VICTIM x": "send",
    "cancel VICTIM": "cancel",
    "approvals allow VICTIM.1.1": "approvals",
    "spawn child -- /bin/true": "spawn",
    "deploy TASK --role child -- /bin/true": "deploy",
}
"""An agent may, on itself and what is below it."""
OPEN: Final = {
    *("wait", "ps", "status", "show", "logs", "attach", "messages", "findings", "events"),
    *("harness", "doctor", "version", "completion", "explain", "postmortem"),
}
"""They read what every process of this user can read in the state directory."""
NOT_THE_FLEETS: Final = {"connect", "mcp", "audit", "demo", "service", "notify", "metrics"}
"""They touch no agent of the fleet, or have doors and tests of their own."""


def test_every_command_is_in_one_of_these_lists() -> None:
    assert set(COMMANDS) <= {*PERSONS.values(), *AGENTS.values(), *OPEN, *NOT_THE_FLEETS}


def test_no_command_does_to_another_agent_what_its_token_does_not_allow(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with fleet(home) as opened, daemons.daemon(home):
        victim = sleeper(opened, new_task(opened, tmp_path))
        task = new_task(opened, tmp_path)
        live, ended = (_deployed(opened, task, role) for role in ("live", "ended"))
        opened.kill_agent(ended[0].agent_id)
        before = opened.get_agent(victim.agent_id)

        def refusal(words: str, whose: Deployed, token: str) -> str:
            said = words.replace("VICTIM", victim.agent_id).replace("TASK", victim.task_id).split()
            at = said.index("--") if "--" in said else len(said)
            inside = {
                "HEADCOUNT_AGENT_ID": whose.agent_id,
                "HEADCOUNT_RUN": "1",
                "HEADCOUNT_TOKEN": token,
                "HEADCOUNT_TASK_ID": task,
            }
            with monkeypatch.context() as patched:
                for name, value in inside.items():
                    patched.setenv(name, value)
                code = edge.run([*said[:at], "--json", *said[at:]])
            out = capfd.readouterr().out
            assert code == 3, (words, out)
            return str(json.loads(out)["error"]["code"])

        for words in (*PERSONS, *AGENTS):
            if not words.startswith("spawn"):  # it may
                expected = "parent_foreign" if words.startswith("deploy") else "not_allowed"
                assert refusal(words, *live) == expected, words
            assert refusal(words, *ended) == "not_allowed", words
        assert opened.get_agent(victim.agent_id) == before
        assert alive(victim.pid)
        assert not (home / "halted").exists()
