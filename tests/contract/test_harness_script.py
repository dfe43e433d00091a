"""The script agent, run as the real process that it is, against a small MCP server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headcount.domain.entries import EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.harnesses.catalogue import find
from tests.support.harness_facts import record, spec

SCRIPT = find("script")

SERVER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": "s1", "method": "roots/list"}), flush=True)
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "t"}}
    else:
        asked = message["params"]
        refused = asked["arguments"].get("agent_type") == "refused"
        result = {"content": [{"type": "text", "text": json.dumps(asked)}], "isError": refused}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    assert "error" in json.loads(sys.stdin.readline())  # the answer to our question
"""


def act(directory: Path, steps: object, *, server: str = SERVER) -> tuple[int, list[dict[str, object]]]:
    """Run the agent with `steps` as its harness would start it; return its exit code and its lines."""
    path = directory / "server.py"
    path.write_text(server)
    run_path = directory / "run"
    run_path.mkdir(exist_ok=True)
    bridge = (sys.executable, "-I", "-S", str(path))
    launch = SCRIPT.command(spec(directory, prompt=json.dumps(steps), headcount=bridge))
    for name, content in launch.files.items():
        (run_path / name).write_bytes(content)
    env = {**os.environ, "HEADCOUNT_AGENT_ID": "me"}
    done = subprocess.run(launch.argv, cwd=directory, capture_output=True, timeout=30, check=False, env=env)
    assert done.stderr == b""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_it_speaks_mcp_and_writes_a_line_for_each_act(tmp_path: Path) -> None:
    code, lines = act(
        tmp_path,
        [
            {"say": "héllo {}"},
            {"report": {"status": "working", "progress": 40, "message": "m"}},
            {"finding": {"finding_type": "bug", "severity": "low", "message": "x"}},
            {"spawn": {"role": "tester", "steps": [{"say": "child"}]}},
        ],
    )
    assert code == 0
    assert [line["type"] for line in lines] == [
        "session",
        "text",
        *["tool_call", "tool_result"] * 3,
        "result",
    ]
    assert lines[0]["agent_id"] == "me"
    answers = [json.loads(str(line["text"])) for line in lines if line["type"] == "tool_result"]
    assert [each["name"] for each in answers] == [
        "update_agent_progress",
        "report_agent_finding",
        "spawn_child_agent",
    ]
    assert answers[2]["arguments"] == {
        "agent_type": "tester",
        "prompt": '[{"say": "child"}]',
        "harness": "script",
    }


def test_it_edits_runs_waits_and_exits(tmp_path: Path) -> None:
    code, lines = act(
        tmp_path,
        [
            {"edit": {"path": "made/a.txt", "content": "one\n"}},
            {"edit": {"path": "made/a.txt", "append": "two\n"}},
            {"run": "cat made/a.txt"},
            {"run": ["echo", "$HOME"]},
            {"wait_for": "made/a.txt"},
            {"sleep": 0},
            {"exit": 7},
            {"say": "never"},
        ],
    )
    assert code == 7
    answers = [line["text"] for line in lines if line["type"] == "tool_result"]
    assert answers[2:4] == ["one\ntwo\n", "$HOME\n"]
    assert lines[-1] == {"type": "result", "exit_code": 7, "failed": 0}


@pytest.mark.parametrize(
    "step",
    [
        {"run": "exit 3"},
        {"run": ["/no/such"]},
        {"edit": {"path": "/proc/none", "content": ""}},
        {"wait_for": {"path": "never", "timeout": 0.05}},
        {"spawn": {"role": "refused"}},
    ],
)
def test_a_failed_act_fails_the_run_unless_it_may(step: dict[str, object], tmp_path: Path) -> None:
    code, lines = act(tmp_path, [step, {"say": "on"}])
    assert code == 1
    assert [line["is_error"] for line in lines if line["type"] == "tool_result"] == [True]
    assert lines[-2]["text"] == "on"
    assert SCRIPT.verdict(record(code=1), json.dumps(lines[-1]).encode()).reason == "1 step failed"
    assert act(tmp_path, [{**step, "allow_error": True}])[0] == 0


@pytest.mark.parametrize("server", ["", "print('no json')", "import sys; sys.exit(3)"])
def test_a_server_that_is_no_server_is_an_error_not_a_hang(server: str, tmp_path: Path) -> None:
    code, lines = act(tmp_path, [{"report": {}}], server=server)
    assert code == 1
    assert "MCP server" in str(lines[2]["text"])


@pytest.mark.parametrize(
    "prompt",
    [
        "fix the bug",
        "{}",
        "[1]",
        '[{"fly": 1}]',
        '[{"say": 1}]',
        '[{"say": "a", "run": "b"}]',
        '[{"sleep": 1e9}]',
        '[{"sleep": true}]',
        '[{"exit": 256}]',
        '[{"run": []}]',
        '[{"edit": {"path": "a"}}]',
        "[" * 100_000,
    ],
)
def test_a_script_that_is_none_is_refused_before_anything_starts(prompt: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        SCRIPT.command(spec(tmp_path, prompt=prompt))


def test_the_steps_may_stand_in_a_file_or_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('[{"exit": 4}]')
    assert SCRIPT.command(spec(tmp_path, command=("s.json",))).files == {"steps.json": b'[{"exit": 4}]'}
    assert SCRIPT.command(spec(tmp_path)).files == {"steps.json": b""}
    with pytest.raises(PlacementFailed, match="missing"):
        SCRIPT.command(spec(tmp_path, command=("missing.json",)))
    with pytest.raises(InvalidInput, match="both"):
        SCRIPT.command(spec(tmp_path, command=("s.json",), prompt="[]"))


def test_its_stream_reads_as_any_agents(tmp_path: Path) -> None:
    _, lines = act(tmp_path, [{"say": "hi"}, {"run": "true"}])
    entries = [entry for line in lines for entry in SCRIPT.read(json.dumps(line).encode())]
    kinds = [EntryKind.SESSION, EntryKind.TEXT, EntryKind.TOOL_CALL, EntryKind.TOOL_RESULT, EntryKind.RESULT]
    assert [each.kind for each in entries] == kinds
    assert entries[2].text == 'run "true"'


def test_its_exit_code_is_its_verdict() -> None:
    assert SCRIPT.verdict(record(), b"").outcome is Outcome.COMPLETED
    assert (
        SCRIPT.verdict(record(code=7), b'{"type":"result","exit_code":7,"failed":0}').reason == "exit code 7"
    )
