"""The MCP door as a client sees it: real daemon, real bridge, the official client, both protocol eras."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from headcount.config import Home
from tests.support import daemons
from tests.support.daemons import LEGACY, Bridge

ERAS = pytest.mark.parametrize("era", ["legacy", "auto"])  # auto: the newest, by server/discover
DOORS = pytest.mark.parametrize("door", ["stdio", "socket", "port"])

AGENT = """
import json, subprocess, sys
argv = [sys.executable, "-P", "-m", "headcount", "mcp"]
bridge = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def call(number, name, **arguments):
    params = {"name": name, "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    bridge.stdin.write(json.dumps(message).encode() + b"\\n")
    bridge.stdin.flush()
    result = json.loads(bridge.stdout.readline())["result"]
    assert not result["isError"], result
    return result["structuredContent"]
call(1, "update_agent_progress", status="working", message="half way", progress=50)
call(2, "report_agent_finding", finding_type="issue", severity="high", message="the roof leaks")
child = call(3, "spawn_child_agent", agent_type="fixer", harness="command", command=["/bin/echo", "fixed"])
done = call(4, "wait_for_agents", agent_ids=[child["agent_id"]], timeout=20)
print("child", done["agents"][0]["outcome"], flush=True)
call(5, "update_agent_progress", status="done", message="all done", progress=100)
bridge.stdin.close()
bridge.wait()
sys.exit(7)
"""
"""What an agent does that speaks MCP, as a program."""


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    """A home with a daemon, for all the tests here: what they do does not touch each other."""
    with daemons.shared() as home:
        yield home


@asynccontextmanager
async def client(home: Path, door: str, era: str, **env: str) -> AsyncIterator[Client]:
    """Connect the official client."""
    if door == "stdio":
        command, *args = daemons.BRIDGE
        server = StdioServerParameters(command=command, args=args, env=daemons.environment(home, env))
        async with Client(stdio_client(server), mode=era) as connected:
            yield connected
        return
    headers, transport, url = {}, None, "http://localhost/mcp"
    if door == "port":
        headers = {"Authorization": f"Bearer {daemons.token(home)}"}
        url = daemons.facts(home)["url"]
    else:
        transport = httpx2.AsyncHTTPTransport(uds=str(Home(home).daemon_socket))
    async with (
        httpx2.AsyncClient(headers=headers, transport=transport, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=era) as connected,
    ):
        yield connected


def facts(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result
    found: dict[str, Any] | None = result.structured_content
    assert found is not None
    return found


@DOORS
@ERAS
def test_a_fleet_is_led_from_task_to_result_at_every_door_in_both_eras(
    served: Path, tmp_path: Path, door: str, era: str
) -> None:
    async def story() -> None:
        async with client(served, door, era) as mcp:
            task = facts(
                await mcp.call_tool("create_task", {"description": "mend the roof", "project": str(tmp_path)})
            )
            made = facts(
                await mcp.call_tool(
                    "deploy_headless_agent",
                    {
                        "task_id": task["task_id"],
                        "agent_type": "builder",
                        "harness": "command",
                        "command": [sys.executable, "-c", AGENT],
                    },
                )
            )
            assert (made["state"], made["depth"], made["parent"]) == ("running", 1, None)
            wish = {"agent_ids": [made["agent_id"]], "timeout": 45}
            waited = facts(await mcp.call_tool("wait_for_agents", wish))
            assert waited["done"], waited
            agent = waited["agents"][0]
            page = facts(await mcp.call_tool("get_agent_output", {"agent_id": made["agent_id"]}))
            assert "child completed" in page["text"], page
            assert (agent["state"], agent["outcome"], agent["exit_code"]) == ("ended", "failed", 7)
            assert (agent["reported"], agent["progress"], agent["message"]) == ("done", 100, "all done")
            found = facts(await mcp.call_tool("get_findings", {"task_id": task["task_id"]}))
            assert [each["message"] for each in found["findings"]] == ["the roof leaks"]
            status = facts(await mcp.call_tool("get_task_status", {"task_id": task["task_id"]}))
            assert (status["counts"]["total"], status["counts"]["live"]) == (2, 0)
            child = next(each for each in status["agents"] if each["role"] == "fixer")
            assert (child["parent"], child["depth"], child["outcome"]) == (made["agent_id"], 2, "completed")

    asyncio.run(story())


@ERAS
def test_what_a_client_reads_first_says_what_to_do(served: Path, era: str) -> None:
    async def look() -> None:
        async with client(served, "stdio", era) as mcp:
            assert mcp.instructions is not None
            first = mcp.instructions[:250]
            assert all(name in first for name in ("create_task", "deploy_headless_agent", "wait_for_agents"))
            assert len(mcp.instructions) < 4000
            tools = (await mcp.list_tools()).tools
            assert [each.name for each in tools][:3] == [
                "create_task",
                "deploy_headless_agent",
                "wait_for_agents",
            ]
            assert [each.name for each in (await mcp.list_tools()).tools] == [each.name for each in tools]
            for tool in tools:
                assert tool.annotations is not None
                hints = tool.annotations.model_dump(exclude={"title"})
                assert None not in hints.values(), tool.name
                assert tool.title
                assert tool.output_schema
                assert tool.input_schema["additionalProperties"] is False
            assert {each.name for each in (await mcp.list_prompts()).prompts} == {
                "fleet_status",
                "triage_agent",
                "plan_and_deploy",
            }

    asyncio.run(look())


@ERAS
def test_resources_and_prompts_can_be_read(served: Path, tmp_path: Path, era: str) -> None:
    async def look() -> None:
        async with client(served, "stdio", era) as mcp:
            task = facts(
                await mcp.call_tool("create_task", {"description": "look", "project": str(tmp_path)})
            )
            made = facts(
                await mcp.call_tool(
                    "deploy_headless_agent",
                    {
                        "task_id": task["task_id"],
                        "agent_type": "tester",
                        "harness": "command",
                        "command": ["/bin/echo", "hello there"],
                    },
                )
            )
            await mcp.call_tool("wait_for_agents", {"task_id": task["task_id"]})

            async def read(uri: str) -> str:
                content = (await mcp.read_resource(uri)).contents[0]
                text: str = content.text  # type: ignore[union-attr]  # all of ours are text
                return text

            listed = json.loads(await read("tasks://list"))["tasks"]
            assert task["task_id"] in {each["task_id"] for each in listed}
            assert json.loads(await read(f"task://{task['task_id']}/status"))["counts"]["total"] == 1
            timeline = json.loads(await read(f"task://{task['task_id']}/progress-timeline"))
            assert [each["kind"] for each in timeline["events"]][:2] == ["task_created", "run_reserved"]
            assert "hello there" in await read(f"agent://{made['agent_id']}/output")
            templates = (await mcp.list_resource_templates()).resource_templates
            assert {each.uri_template for each in templates} == {
                "task://{task_id}/status",
                "task://{task_id}/progress-timeline",
                "agent://{agent_id}/output",
            }
            prompt = await mcp.get_prompt("triage_agent", {"agent_id": made["agent_id"]})
            assert made["agent_id"] in str(prompt.messages[0].content)
            with pytest.raises(Exception, match=r"not_found|invalid_input"):
                await mcp.read_resource("task://task-0000000000000000/status")

    asyncio.run(look())


def deployed(
    bridge: Bridge, project: Path, *command: str, role: str = "builder", **more: Any
) -> dict[str, Any]:
    """Create a task and deploy one agent for it."""
    task = bridge.call("create_task", description="a piece of work", project=str(project))["task_id"]
    words = list(command) or ["/bin/sh", "-c", "exec sleep 600"]
    return bridge.call(
        "deploy_headless_agent", task_id=task, agent_type=role, harness="command", command=words, **more
    )


def token_of(agent: dict[str, Any]) -> dict[str, str]:
    """Return the contract that a live agent was given."""
    raw = Path(f"/proc/{agent['pid']}/environ").read_bytes().split(b"\0")
    pairs = (each.decode().partition("=") for each in raw if each.startswith(b"HEADCOUNT_"))
    return {name: value for name, _, value in pairs}


def test_an_agent_has_its_own_tools_and_acts_for_itself_alone(served: Path, tmp_path: Path) -> None:
    with Bridge(served) as person:
        one, other = deployed(person, tmp_path), deployed(person, tmp_path)
        with Bridge(served, env=token_of(one)) as agent:
            names = [each["name"] for each in agent.ask("tools/list")["result"]["tools"]]
            assert names[:3] == ["update_agent_progress", "report_agent_finding", "spawn_child_agent"]
            assert not {"stop_agent", "create_task", "deploy_headless_agent"} & set(names)
            for tool, arguments in {
                "stop_agent": {"agent_id": other["agent_id"]},
                "create_task": {"description": "mine"},
                "validate_and_repair_registry": {"dry_run": False},
                "update_agent_progress": {"status": "done", "message": "x", "agent_id": other["agent_id"]},
                "report_agent_finding": {
                    "finding_type": "issue",
                    "message": "x",
                    "agent_id": other["agent_id"],
                },
            }.items():
                assert agent.error(tool, **arguments)["code"] == "not_allowed", tool
            assert (
                agent.call("update_agent_progress", status="working", message="x")["agent_id"]
                == one["agent_id"]
            )
        assert person.error("update_agent_progress", status="done", message="x")["code"] == "not_allowed"
        tasks = (one["task_id"], other["task_id"])
        live = [each for task in tasks for each in person.call("list_agents", task_id=task)["agents"]]
        assert {each["agent_id"]: each.get("reported") for each in live} == {
            one["agent_id"]: "working",
            other["agent_id"]: None,
        }
        for each in live:
            assert person.call("stop_agent", agent_id=each["agent_id"], grace=0)["state"] == "ended"


def test_a_token_that_is_nobodys_is_told_so(served: Path) -> None:
    stranger = {"HEADCOUNT_TOKEN": "x" * 43, "HEADCOUNT_AGENT_ID": "builder-0000000000000000"}
    with Bridge(served, env=stranger) as bridge:
        error = bridge.error("update_agent_progress", status="working", message="x")
        assert error["code"] == "not_allowed"


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("create_task", {}, ["description is missing"]),
        (
            "create_task",
            {"descripton": "x"},
            ["unknown argument 'descripton'", "did you mean 'description'?"],
        ),
        ("create_task", {"description": "x", "priority": "urgent"}, ["priority", "'P0', 'P1', 'P2' or 'P3'"]),
        ("create_task", {"description": 5}, ["description is 5", "string"]),
        ("create_task", {"description": "x", "max_live": 0}, ["max_live is 0", "greater than or equal to 1"]),
        (
            "deploy_headless_agent",
            {"task_id": "t", "role": "r"},
            ["agent_type is missing", "did you mean 'agent_type'"],
        ),
        ("wait_for_agents", {"timeout": 3600}, ["timeout is 3600", "45"]),
        ("get_agent_output", {"agent_id": "a", "format": "html"}, ["format is 'html'", "'parsed'"]),
    ],
)
def test_a_wrong_call_is_answered_in_one_line_that_says_what_is_right(
    served: Path, tool: str, arguments: dict[str, Any], says: list[str]
) -> None:
    with Bridge(served) as bridge:
        error = bridge.error(tool, **arguments)
    assert error["code"] == "invalid_arguments"
    assert "\n" not in error["message"]
    assert "pydantic" not in error["message"]
    assert all(each in error["message"] for each in says), error["message"]
    assert error["hint"].startswith(f"{tool} takes ")


def test_an_unknown_tool_is_an_error_of_the_protocol_that_names_the_nearest(served: Path) -> None:
    with Bridge(served) as bridge:
        answer = bridge.ask("tools/call", {"name": "deploy_agent", "arguments": {}})
    assert answer["error"]["code"] == -32602
    assert "did you mean deploy_headless_agent?" in answer["error"]["message"]


HOSTILE = [
    "a;b",
    "$(id)",
    "#{pid}",
    "#(id)",
    "a.b",
    "a:b",
    "../x",
    "a b",
    "a\0b",
    "а",
    "x" * 33,
    "",
    "-x",
    "'",
]


@pytest.mark.parametrize("role", HOSTILE)
def test_a_hostile_role_is_refused_and_leaves_nothing(served: Path, tmp_path: Path, role: str) -> None:
    with Bridge(served) as bridge:
        task = bridge.call("create_task", description="x", project=str(tmp_path))["task_id"]
        error = bridge.error(
            "deploy_headless_agent", task_id=task, agent_type=role, harness="command", command=["/bin/true"]
        )
        assert error["code"] == "invalid_input"
        assert bridge.call("list_agents", task_id=task, all=True)["agents"] == []
        assert bridge.call("get_task_status", task_id=task)["counts"]["total"] == 0


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("get_task_status", {"task_id": "../../etc/passwd"}, "invalid_input"),
        ("get_task_status", {"task_id": "task-0000000000000000"}, "not_found"),
        ("get_agent_output", {"agent_id": "../x"}, "invalid_input"),
        ("stop_agent", {"agent_id": "builder-0000000000000000"}, "not_found"),
        ("create_task", {"description": "x", "project": "/does/not/exist"}, "invalid_input"),
        ("create_task", {"description": "x", "project": "/etc/hostname"}, "invalid_input"),
        ("wait_for_agents", {}, "invalid_input"),
    ],
)
def test_hostile_and_mistaken_input_is_refused_with_a_reason(
    served: Path, tool: str, arguments: dict[str, Any], code: str
) -> None:
    with Bridge(served) as bridge:
        error = bridge.error(tool, **arguments)
    assert error["code"] in {code, "invalid_arguments"}
    assert error["message"]


def test_a_prompt_of_ten_megabytes_is_refused(served: Path, tmp_path: Path) -> None:
    with Bridge(served) as bridge:
        task = bridge.call("create_task", description="x", project=str(tmp_path))["task_id"]
        long = {"task_id": task, "agent_type": "builder", "harness": "command", "command": ["/bin/true"]}
        error = bridge.error("deploy_headless_agent", **long, prompt="x" * 10**7)
        assert (error["code"], "4194304" in error["message"]) == ("invalid_input", True)
        error = bridge.error("deploy_headless_agent", **long, prompt="x" * 2 * 10**6)
        assert "1000000" in error["message"]
        assert bridge.call("list_agents", task_id=task, all=True)["agents"] == []


def test_text_and_data_say_the_same_in_pages_of_8000_characters(served: Path, tmp_path: Path) -> None:
    with Bridge(served) as person:
        made = deployed(person, tmp_path)
        with Bridge(served, env=token_of(made)) as agent:
            for number in range(60):
                agent.call(
                    "report_agent_finding", finding_type="insight", message=f"finding {number} " + "x" * 400
                )
        seen: list[str] = []
        cursor = 0
        while True:
            result = person.result("get_findings", task_id=made["task_id"], cursor=cursor)
            text, data = result["content"][0]["text"], result["structuredContent"]
            assert len(text) <= 8000
            assert len(json.dumps(data, separators=(",", ":"))) <= 8000
            assert all(each["message"] in text for each in data["findings"])
            seen += [each["message"].split(" x")[0] for each in data["findings"]]
            if not data["more"]:
                break
            assert data["next_cursor"] > cursor
            cursor = data["next_cursor"]
        assert seen == [f"finding {number}" for number in range(60)]
        person.call("stop_agent", agent_id=made["agent_id"], grace=0)


def test_a_refusal_names_the_limit_its_value_what_holds_it_and_what_to_do(
    served: Path, tmp_path: Path
) -> None:
    with Bridge(served) as bridge:
        made = deployed(bridge, tmp_path)
        again = {
            "task_id": made["task_id"],
            "agent_type": "builder",
            "harness": "command",
            "command": ["/bin/true"],
        }
        error = bridge.error("deploy_headless_agent", **again)
        assert error["holders"] == [made["agent_id"]]
        assert error["limit"]
        assert error["hint"]
        text = bridge.result("deploy_headless_agent", **again)["content"][0]["text"]
        assert made["agent_id"] in text
        assert error["hint"] in text
        bridge.call("stop_agent", agent_id=made["agent_id"], grace=0)


def test_a_wait_tells_its_progress_to_a_client_that_asks_for_it(served: Path, tmp_path: Path) -> None:
    with Bridge(served) as bridge:
        made = deployed(bridge, tmp_path)
        wish = {"name": "wait_for_agents", "arguments": {"agent_ids": [made["agent_id"]], "timeout": 6}}
        answer = bridge.ask("tools/call", {**wish, "_meta": {"progressToken": "mine"}})
        assert answer["result"]["structuredContent"]["done"] is False
        note = bridge.notes.get(timeout=5)
        assert note["method"] == "notifications/progress"
        assert note["params"]["progressToken"] == "mine"
        bridge.call("stop_agent", agent_id=made["agent_id"], grace=0)


def test_the_agent_works_where_its_deployer_is_with_the_deployers_variables(
    served: Path, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    mine = {"LANG": "xx_YY.UTF-8", "SECRET_OF_MINE": "not passed", "NAMED": "passed"}
    with Bridge(served, env=mine, cwd=tmp_path / "deep") as bridge:
        script = "pwd; echo $LANG; echo [$SECRET_OF_MINE]; echo $NAMED"
        made = deployed(bridge, tmp_path, "/bin/sh", "-c", script, env=["NAMED"])
        bridge.call("wait_for_agents", agent_ids=[made["agent_id"]])
        said = bridge.call("get_agent_output", agent_id=made["agent_id"])["text"].splitlines()
    assert said == [str(tmp_path / "deep"), "xx_YY.UTF-8", "[]", "passed"]


@pytest.mark.parametrize("version", [LEGACY, "2025-06-18", "1999-01-01"])
def test_the_port_takes_nobody_without_a_token_or_under_a_foreign_name(served: Path, version: str) -> None:
    url = daemons.facts(served)["url"]
    token = daemons.token(served)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    head = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    mine = {**head, "Authorization": f"Bearer {token}", "MCP-Protocol-Version": version}

    def post(headers: dict[str, str]) -> int:
        return httpx2.post(url, json=body, headers=headers).status_code

    assert post(head) == 401
    assert post({**mine, "Host": "evil.example"}) == 421
    assert post({**mine, "Origin": "http://evil.example"}) == 403
    assert post(mine) == (400 if version == "1999-01-01" else 200)
    wrong = httpx2.post(url, json=body, headers={**head, "Authorization": "Bearer nobody"})
    assert wrong.status_code == 401
    assert "not_allowed" in wrong.text
