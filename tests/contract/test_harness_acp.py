"""The acp harness: how it starts an agent, and what the driver holds it to."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.entries import EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.options import Options, Permissions
from headcount.harnesses import driven
from headcount.harnesses.base import Session
from headcount.harnesses.catalogue import find
from headcount.harnesses.driver.policy import ALLOW, ASK, DENY, Policy, Use
from tests.support.harness_facts import program, spec

ACP = find("acp")


def order(launch_files: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(launch_files[driven.ORDER_FILE])
    return found


def test_a_driver_is_started_which_starts_the_agent(tmp_path: Path) -> None:
    found = program(tmp_path, "gemini")
    options = Options(model="m2", permissions=Permissions.ASK, allowed_tools=("shell(git log)",))
    launch = ACP.command(
        spec(tmp_path, command=("gemini", "--acp"), prompt="do it", options=options, ask_expiry=7.0)
    )
    assert launch.argv[:3] == (sys.executable, "-I", "-S")
    assert launch.argv[3:] == (driven.PROGRAM, str(tmp_path / "run" / "driver.json"))
    assert launch.stdin == b"do it"
    told = order(launch.files)
    assert told["argv"] == [str(found), "--acp"]
    assert (told["permissions"], told["allowed_tools"]) == ("ask", ["shell(git log)"])
    assert (told["model"], told["ask_expiry"], told["resume"]) == ("m2", 7.0, None)
    server = {"name": "headcount", "command": "/opt/bin/headcount", "args": ["mcp"], "env": []}
    assert told["mcp_servers"] == [server]


def test_a_conversation_is_loaded_by_its_id(tmp_path: Path) -> None:
    program(tmp_path, "agent")
    launch = ACP.command(spec(tmp_path, command=("agent",), session=Session("s1", resumed=True)))
    assert order(launch.files)["resume"] == "s1"


def test_without_a_command_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="needs the command") as caught:
        ACP.command(spec(tmp_path))
    assert "--acp" in caught.value.hint
    with pytest.raises(PlacementFailed, match="not found"):
        ACP.command(spec(tmp_path, command=("missing",)))


@pytest.mark.parametrize(
    ("update", "kinds"),
    [
        ({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "x"}}, ["text"]),
        ({"sessionUpdate": "agent_message_chunk", "content": {"type": "image"}}, ["text"]),
        ({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": ""}}, []),
        ({"sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": "x"}}, ["reasoning"]),
        ({"sessionUpdate": "plan", "entries": [{"content": "a", "status": "done"}]}, ["reasoning"]),
        ({"sessionUpdate": "tool_call", "toolCallId": "1", "rawInput": {"a": 1}}, ["tool_call"]),
        ({"sessionUpdate": "tool_call", "toolCallId": "1", "rawInput": {"cwd": "/"}}, []),
        ({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "in_progress"}, []),
        ({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "failed"}, ["tool_result"]),
        (
            {
                "sessionUpdate": "tool_call_update",
                "status": "completed",
                "content": [{"type": "diff", "path": "/a", "oldText": None, "newText": "x"}],
            },
            ["file_change", "tool_result"],
        ),
        ({"sessionUpdate": "available_commands_update"}, []),
        ({"sessionUpdate": "something_new"}, ["unknown"]),
    ],
)
def test_each_update_has_its_entries(update: dict[str, Any], kinds: list[str]) -> None:
    line = json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": {"update": update}})
    assert [entry.kind for entry in ACP.read(line.encode())] == [EntryKind(kind) for kind in kinds]


# ---------------------------------------------------------------- the policy


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("git log", True),
        ("git log --oneline -3", True),
        ("git  log", True),
        ("git logs", False),
        ("git log; rm -rf x", False),
        ("git log && rm x", False),
        ("git log | sh", False),
        ("git log > x", False),
        ("git log $(rm x)", False),
        ("git log `rm x`", False),
        ("git log\nrm x", False),
        ("git", False),
        ("", False),
    ],
)
def test_a_prefix_allows_only_a_plain_command(command: str, allowed: bool) -> None:
    policy = Policy("edit", cwd="/work", allowed=["shell(git log)"])
    use = Use("bash", kind="execute", arguments={"command": command})
    assert policy.decide(use)[0] == (ALLOW if allowed else DENY)


@pytest.mark.parametrize(
    "command", ["rm x", "true; rm x", "true && rm x", "echo $(rm x)", "a | rm -f x", "( rm x )"]
)
def test_a_prefix_denies_a_command_in_any_part(command: str) -> None:
    policy = Policy("bypass", cwd="/work", denied=["shell(rm)"])
    assert policy.decide(Use("bash", kind="execute", arguments={"command": command}))[0] == DENY
    assert policy.decide(Use("bash", kind="execute", arguments={"command": "echo rm"}))[0] == ALLOW


@pytest.mark.parametrize(
    "use",
    [
        Use("mcp__headcount__update_agent_progress", kind="other"),
        Use("mcp_headcount_update_agent_progress", kind="other"),
        Use("headcount_update_agent_progress", kind="other"),
        Use("other", kind="other", title="update_agent_progress (headcount MCP Server)"),
    ],
)
def test_our_own_tools_may_always_be_used(use: Use) -> None:
    assert Policy("read", cwd="/work").decide(use)[0] == ALLOW


@pytest.mark.parametrize(
    "use",
    [
        Use("execute", kind="execute", title="headcount_x"),
        Use("edit", kind="edit", title="update_agent_progress (headcount MCP Server)"),
        Use("other", kind="other", title="rm -rf / (headcount MCP Server)"),
        Use("other", kind="other", title="my_headcount_tool"),
    ],
)
def test_what_only_looks_like_ours_is_not(use: Use) -> None:
    assert Policy("read", cwd="/work").decide(use)[0] == DENY
    assert Policy("ask", cwd="/elsewhere").decide(Use("fetch", kind="fetch"))[0] == ASK


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"path": "a/b.txt"}, True),
        ({"file_path": "/work/a"}, True),
        ({"file_path": "/work/../etc/x"}, False),
        ({"filePath": "/etc/x"}, False),
        ({"patchText": "*** Begin Patch\n*** Add File: /work/x\n+a\n*** End Patch"}, True),
        ({"patchText": "*** Begin Patch\n*** Update File: /etc/x\n+a\n*** End Patch"}, False),
        ({}, True),
    ],
)
def test_an_edit_is_allowed_within_its_directory(arguments: dict[str, str], allowed: bool) -> None:
    use = Use("edit", kind="edit", arguments=arguments)
    assert Policy("edit", cwd="/work").decide(use)[0] == (ALLOW if allowed else DENY)
    assert Policy("read", cwd="/work").decide(use)[0] == DENY
