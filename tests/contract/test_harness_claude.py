"""Claude Code: its flags, its stream (lines as 2.1.330 wrote them) and what its last words mean."""

import json
from pathlib import Path

import pytest

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Effort, Options
from headcount.harnesses.catalogue import find
from tests.support.harness_facts import program, record, spec

CLAUDE = find("claude")

INIT = (
    b'{"type":"system","subtype":"init","cwd":"/repo","session_id":"8ed4","tools":["Bash"],'
    b'"mcp_servers":[{"name":"headcount","status":"connected"}],"model":"claude-opus-5-5","permissionMode":"acceptEdits"}'
)
RETRY = (
    b'{"type":"system","subtype":"api_retry","attempt":1,"max_retries":3,"retry_delay_ms":540,'
    b'"error_status":%d,"error":"x","session_id":"8ed4"}'
)
DENIED = b'{"type":"system","subtype":"permission_denied","tool_name":"Bash","message":"needs approval"}'
TOOL_USE = (
    b'{"type":"assistant","message":{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},'
    b'{"type":"text","text":"I look"},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls"}}]}}'
)
TOOL_RESULT = (
    b'{"type":"user","message":{"role":"user","content":[{"tool_use_id":"t1","type":"tool_result",'
    b'"content":"a.txt","is_error":false}]}}'
)
FOUND_TOOL = (
    b'{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"q",'
    b'"content":[{"type":"tool_reference","tool_name":"mcp__headcount__report"},{"type":"text","text":"x"}]}]}}'
)
USAGE = {
    "input_tokens": 3300,
    "output_tokens": 60,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
}


def result(**given: object) -> bytes:
    facts = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "terminal_reason": "completed",
        "result": "all done",
        "session_id": "8ed4",
        "num_turns": 3,
        "total_cost_usd": 0.0144,
        "usage": USAGE,
        "permission_denials": [],
    }
    return json.dumps({**facts, **given}).encode() + b"\n"


def one(line: bytes) -> Entry:
    (entry,) = CLAUDE.read(line)
    return entry


def test_claude_is_started_headless_with_the_prompt_on_stdin(tmp_path: Path) -> None:
    found = program(tmp_path, "claude")
    launch = CLAUDE.command(
        spec(tmp_path, prompt="-- fix {this}", options=Options(model="opus", effort=Effort.HIGH))
    )
    assert launch.argv[:5] == (str(found), "-p", "--output-format", "stream-json", "--verbose")
    assert launch.argv[-2:] == ("--model=opus", "--effort=high")
    assert launch.argv[launch.argv.index("--permission-mode") + 1] == "acceptEdits"
    assert launch.argv[launch.argv.index("--allowedTools") + 1] == "mcp__headcount"
    at = launch.argv.index("--disallowedTools")
    assert launch.argv[at + 1 : at + 3] == ("SendMessage", "ListAgents")
    assert launch.stdin == b"-- fix {this}"


def test_claudes_mcp_file_names_the_bridge_and_no_more(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    launch = CLAUDE.command(spec(tmp_path, headcount=("/py", "-m", "headcount")))
    assert launch.argv[launch.argv.index("--mcp-config") + 1] == str(tmp_path / "run" / "mcp.json")
    (server,) = json.loads(launch.files["mcp.json"])["mcpServers"].values()
    assert (server["command"], server["args"]) == ("/py", ["-m", "headcount", "mcp"])
    assert server["alwaysLoad"] is True
    assert "env" not in server


def test_what_stands_behind_the_dashes_is_added_to_claudes_flags(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    extra = ("--strict-mcp-config", "--max-turns", "7")
    assert CLAUDE.command(spec(tmp_path, command=extra)).argv[-3:] == extra


def test_a_claude_deployed_by_a_claude_does_not_take_itself_for_it(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    env = {
        "PATH": str(tmp_path / "bin"),
        "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": "x",
        "CLAUDE_CODE_MAX_RETRIES": "3",
    }
    assert CLAUDE.command(spec(tmp_path, env=env)).env == {"CLAUDECODE": "", "CLAUDE_CODE_SESSION_ID": ""}


def test_a_model_cannot_be_a_flag(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    assert (
        CLAUDE.command(spec(tmp_path, options=Options(model="--dangerous"))).argv[-1] == "--model=--dangerous"
    )


def test_a_missing_claude_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(PlacementFailed, match="claude") as caught:
        CLAUDE.command(spec(tmp_path))
    assert "npm install" in caught.value.hint


def test_the_session_its_model_and_servers_are_read() -> None:
    entry = one(INIT)
    assert entry.kind is EntryKind.SESSION
    assert entry.data["session_id"] == "8ed4"
    assert entry.data["mcp_servers"] == {"headcount": "connected"}


def test_each_block_of_a_message_is_an_entry() -> None:
    entries = CLAUDE.read(TOOL_USE)
    assert [each.kind for each in entries] == [EntryKind.REASONING, EntryKind.TEXT, EntryKind.TOOL_CALL]
    assert entries[2].text == 'Bash {"command":"ls"}'
    assert one(TOOL_RESULT) == Entry(EntryKind.TOOL_RESULT, "a.txt", {"id": "t1", "is_error": False})
    assert one(FOUND_TOOL).text == "mcp__headcount__report\nx"


def test_retries_and_denials_are_seen() -> None:
    assert one(RETRY % 429).kind is EntryKind.RATE_LIMITED
    assert one(RETRY % 401).kind is EntryKind.ERROR
    assert one(DENIED).text == "Bash: needs approval"
    assert one(DENIED).kind is EntryKind.PERMISSION_DENIED


def test_a_success_gives_its_text_session_usage_and_cost() -> None:
    verdict = CLAUDE.verdict(record(), INIT + b"\n" + result())
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.result is not None
    assert verdict.result["text"] == "all done"
    assert verdict.result["session_id"] == "8ed4"
    assert verdict.usage == {**USAGE, "cost_usd": 0.0144}


@pytest.mark.parametrize("code", [0, 1])
def test_an_error_result_has_failed_whatever_subtype_and_exit_code_say(code: int) -> None:
    line = result(
        is_error=True, terminal_reason="api_error", api_error_status=401, result="API Error: 401 bad key"
    )
    verdict = CLAUDE.verdict(record(code=code), line)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "API Error: 401 bad key")
    assert verdict.result is not None
    assert verdict.result["api_error_status"] == 401


def test_an_exhausted_budget_is_an_outcome_of_its_own() -> None:
    line = result(
        subtype="error_max_budget_usd", is_error=True, result=None, errors=["Reached maximum budget ($0.005)"]
    )
    verdict = CLAUDE.verdict(record(code=1), line)
    assert (verdict.outcome, verdict.reason) == (Outcome.OVER_BUDGET, "Reached maximum budget ($0.005)")
    turns = result(
        subtype="error_max_turns", is_error=True, result=None, errors=["Reached maximum number of turns (2)"]
    )
    assert CLAUDE.verdict(record(code=1), turns).outcome is Outcome.FAILED


def test_the_last_result_counts() -> None:
    tail = result(result="first") + result(is_error=True, result="second")
    assert CLAUDE.verdict(record(), tail).reason == "second"


def test_a_tail_that_begins_within_a_line_is_judged_by_the_whole_lines() -> None:
    tail = result(is_error=True)[40:] + result(result="after")
    assert CLAUDE.verdict(record(), tail).outcome is Outcome.COMPLETED


def test_exit_code_0_without_a_result_is_no_success() -> None:
    verdict = CLAUDE.verdict(record(), INIT)
    assert verdict.outcome is Outcome.FAILED
    assert "without a result" in verdict.reason


def test_a_stopped_claude_keeps_what_it_has_cost() -> None:
    verdict = CLAUDE.verdict(record(stopped=True), result(is_error=True, result="interrupted"))
    assert verdict.outcome is Outcome.STOPPED
    assert verdict.usage is not None
    assert verdict.usage["cost_usd"] == 0.0144


def test_a_killed_claude_has_failed_even_after_a_good_result() -> None:
    assert CLAUDE.verdict(record(code=None, signal=9), result()).outcome is Outcome.FAILED
