"""Claude Code: its flags, its stream (lines as 2.1.330 wrote them) and what its last words mean."""

import json
import os
from pathlib import Path

import pytest

from headcount.domain.account import Account, Ending, Tally
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Effort, Options, Permissions
from headcount.harnesses.base import Session
from headcount.harnesses.catalogue import find
from tests.support import streams
from tests.support.harness_facts import program, record, spec

CLAUDE = find("claude")
PEERS = ["SendMessage", "ListAgents"]


def search_path(directory: Path) -> dict[str, str]:
    return {"PATH": str(directory / "bin")}


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


def argv(directory: Path, **given: object) -> tuple[str, ...]:
    program(directory, "claude")
    return CLAUDE.command(spec(directory, **given)).argv


def flags(directory: Path, name: str, **given: object) -> list[str]:
    """Return the values of a flag in their order."""
    return [each.partition("=")[2] for each in argv(directory, **given) if each.startswith(f"--{name}=")]


def with_options(directory: Path, name: str, **options: object) -> list[str]:
    return flags(directory, name, options=Options(**options))  # type: ignore[arg-type]  # as a test names them


def test_claude_is_started_headless_with_the_prompt_on_stdin(tmp_path: Path) -> None:
    found = program(tmp_path, "claude")
    launch = CLAUDE.command(spec(tmp_path, prompt="-- fix {this}"))
    assert launch.argv == (
        str(found),
        "-p",
        "--output-format=stream-json",
        "--verbose",
        "--permission-mode=acceptEdits",
        f"--mcp-config={tmp_path / 'run' / 'mcp.json'}",
        "--allowedTools=mcp__headcount",
        "--disallowedTools=SendMessage",
        "--disallowedTools=ListAgents",
        f"--session-id={spec(tmp_path).session.session_id}",
    )
    assert launch.stdin == b"-- fix {this}"


def test_model_and_effort_are_flags_whose_values_cannot_be_flags(tmp_path: Path) -> None:
    options = Options(model="--dangerous", effort=Effort.XHIGH)
    assert flags(tmp_path, "model", options=options) == ["--dangerous"]
    assert flags(tmp_path, "effort", options=options) == ["xhigh"]


@pytest.mark.parametrize(
    ("asked", "mode", "denied"),
    [
        (Permissions.READ, "dontAsk", ["Edit", "Write", "NotebookEdit", *PEERS]),
        (Permissions.EDIT, "acceptEdits", PEERS),
        (Permissions.BYPASS, "bypassPermissions", PEERS),
    ],
)
def test_permissions_are_a_mode_and_reading_takes_away_what_writes(
    tmp_path: Path, asked: Permissions, mode: str, denied: list[str]
) -> None:
    given = {"options": Options(permissions=asked), "env": {**search_path(tmp_path), "IS_SANDBOX": "1"}}
    assert flags(tmp_path, "permission-mode", **given) == [mode]
    assert flags(tmp_path, "disallowedTools", **given) == denied
    assert flags(tmp_path, "allowedTools", **given) == ["mcp__headcount"]


def test_a_reader_may_be_allowed_to_edit_after_all(tmp_path: Path) -> None:
    asked = {"permissions": Permissions.READ, "allowed_tools": ("edit",)}
    assert with_options(tmp_path, "disallowedTools", **asked) == PEERS
    assert with_options(tmp_path, "allowedTools", **asked)[1:] == ["Edit", "Write", "NotebookEdit"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_root_is_told_at_once_that_claude_will_not_bypass_for_it(tmp_path: Path) -> None:
    with pytest.raises(PlacementFailed, match="root") as caught:
        argv(tmp_path, options=Options(permissions=Permissions.BYPASS))
    assert "IS_SANDBOX" in caught.value.hint


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ("shell", ["Bash"]),
        ("shell(git log)", ["Bash(git log:*)"]),
        ("edit", ["Edit", "Write", "NotebookEdit"]),
        ("read", ["Read"]),
        ("search", ["Grep", "Glob"]),
        ("web", ["WebFetch", "WebSearch"]),
        ("mcp__tracker__close", ["mcp__tracker__close"]),
        ("Read(//etc/**)", ["Read(//etc/**)"]),
        ("--dangerous", ["--dangerous"]),
    ],
)
def test_rules_about_tools_are_put_in_claudes_words(tmp_path: Path, rule: str, theirs: list[str]) -> None:
    assert with_options(tmp_path, "allowedTools", allowed_tools=(rule,)) == ["mcp__headcount", *theirs]
    if rule != "search":
        assert with_options(tmp_path, "disallowedTools", denied_tools=(rule,)) == [*PEERS, *theirs]


@pytest.mark.parametrize("rule", ["shell(", "shell()", "shell(ls", "edit(src)", "read()"])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInput, match="no rule"):
        CLAUDE.check(prompt="", command=(), options=Options(denied_tools=(rule,)))


def test_it_cannot_be_kept_from_searching_while_it_has_a_shell() -> None:
    with pytest.raises(InvalidInput, match="searching"):
        CLAUDE.check(prompt="", command=(), options=Options(denied_tools=("search",)))


def test_peers_are_there_only_if_they_are_asked_for(tmp_path: Path) -> None:
    assert with_options(tmp_path, "disallowedTools", peers=True) == []


def test_limits_and_a_schema_are_claudes_own(tmp_path: Path) -> None:
    options = Options(max_turns=7, budget_usd=2.5, result_schema={"type": "object"})
    assert flags(tmp_path, "max-turns", options=options) == ["7"]
    assert flags(tmp_path, "max-budget-usd", options=options) == ["2.5"]
    assert flags(tmp_path, "json-schema", options=options) == ['{"type": "object"}']


def test_a_system_prompt_travels_in_a_file_and_not_in_the_arguments(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    launch = CLAUDE.command(spec(tmp_path, options=Options(system_prompt="Be brief.")))
    assert f"--append-system-prompt-file={tmp_path / 'run' / 'system.md'}" in launch.argv
    assert launch.files["system.md"] == b"Be brief."
    assert "brief" not in repr(launch.argv)


def test_only_our_mcp_leaves_the_users_servers_out(tmp_path: Path) -> None:
    assert "--strict-mcp-config" in argv(tmp_path, options=Options(only_our_mcp=True))
    assert "--strict-mcp-config" not in argv(tmp_path)


@pytest.mark.parametrize(("version", "told"), [("2.1.330", True), ("2.1.197", False)])
def test_a_resumed_conversation_goes_on_with_the_system_prompt_that_is_given_now(
    tmp_path: Path, version: str, told: bool
) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"bin": {"claude": "x"}, "version": version}))
    session = Session("8ed4", resumed=True)
    found = argv(tmp_path, session=session, options=Options(system_prompt="Be brief."))
    assert "--resume=8ed4" in found
    assert not any(each.startswith("--session-id") for each in found)
    assert ("--system-prompt-snapshot=off" in found) is told
    assert "--system-prompt-snapshot=off" not in argv(tmp_path, session=session)


def test_a_person_takes_the_conversation_over_with_the_same_tools_and_permissions(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    options = Options(model="opus", max_turns=3, budget_usd=1, permissions=Permissions.READ)
    asked = spec(tmp_path, prompt="x", session=Session("8ed4", resumed=True), options=options)
    launch = CLAUDE.interactive(asked)
    assert launch.stdin is None
    assert launch.files == CLAUDE.command(asked).files
    assert {"--resume=8ed4", "--model=opus", "--permission-mode=dontAsk"} < set(launch.argv)
    assert not any(each in repr(launch.argv) for each in ("'-p'", "output-format", "max-turns", "budget"))


def test_claudes_mcp_file_names_the_bridge_and_no_more(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    launch = CLAUDE.command(spec(tmp_path, headcount=("/py", "-m", "headcount")))
    (server,) = json.loads(launch.files["mcp.json"])["mcpServers"].values()
    assert (server["command"], server["args"]) == ("/py", ["-m", "headcount", "mcp"])
    assert server["alwaysLoad"] is True
    assert "env" not in server


def test_what_stands_behind_the_dashes_is_added_to_claudes_flags(tmp_path: Path) -> None:
    extra = ("--add-dir", "/data", "--allowedTools", "Bash(make:*)")
    assert argv(tmp_path, command=extra)[-4:] == extra


def test_a_claude_deployed_by_a_claude_does_not_take_itself_for_it(tmp_path: Path) -> None:
    program(tmp_path, "claude")
    env = {
        "PATH": str(tmp_path / "bin"),
        "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": "x",
        "CLAUDE_CODE_MAX_RETRIES": "3",
    }
    assert CLAUDE.command(spec(tmp_path, env=env)).env == {"CLAUDECODE": "", "CLAUDE_CODE_SESSION_ID": ""}


def test_a_missing_claude_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(PlacementFailed, match="claude") as caught:
        CLAUDE.command(spec(tmp_path))
    assert "npm install" in caught.value.hint


def test_a_claude_that_is_too_old_is_refused_without_being_started(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"bin": {"claude": "x"}, "version": "1.0.128"}))
    with pytest.raises(PlacementFailed, match=r"1\.0\.128 is too old"):
        argv(tmp_path)


def test_a_claude_that_nobody_is_logged_in_to_is_refused_with_what_to_do(tmp_path: Path) -> None:
    env = {**search_path(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(PlacementFailed, match="not logged in") as caught:
        argv(tmp_path, env=env)
    assert "ANTHROPIC_API_KEY" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".claude/.credentials.json", "{}"),
        (".claude.json", '{"oauthAccount": {}}'),
        (".claude/settings.json", '{"apiKeyHelper": "x"}'),
        (".claude/settings.local.json", '{"env": {"ANTHROPIC_AUTH_TOKEN": "x"}}'),
    ],
)
def test_any_sign_of_a_login_is_enough_to_try(tmp_path: Path, path: str, text: str) -> None:
    (tmp_path / ".claude").mkdir()
    (tmp_path / path).write_text(text)
    assert argv(tmp_path, env={**search_path(tmp_path), "HOME": str(tmp_path)})


def test_a_login_in_the_environment_is_enough(tmp_path: Path) -> None:
    for name in ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK"):
        assert argv(tmp_path, env={**search_path(tmp_path), "HOME": str(tmp_path), name: "1"})


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
    assert one(RETRY % 529).data == {"status": 529, "retry_after_s": 0.54}
    assert one(DENIED).text == "Bash: needs approval"
    assert one(DENIED).kind is EntryKind.PERMISSION_DENIED


def test_a_success_gives_its_text_session_usage_and_cost() -> None:
    verdict = CLAUDE.verdict(record(), INIT + b"\n" + result())
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.result is not None
    assert verdict.result["text"] == "all done"
    assert verdict.result["session_id"] == "8ed4"
    assert verdict.usage == {"input": 3300, "output": 60, "cached": 0, "cost_usd": 0.0144}


@pytest.mark.parametrize("code", [0, 1])
def test_an_error_result_has_failed_whatever_subtype_and_exit_code_say(code: int) -> None:
    line = result(
        is_error=True, terminal_reason="api_error", api_error_status=401, result="API Error: 401 bad key"
    )
    verdict = CLAUDE.verdict(record(code=code), line)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "API Error: 401 bad key")
    assert verdict.result is not None
    assert verdict.result["api_error_status"] == 401
    assert verdict.ending is Ending.AUTH_FAILED


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


# ---------------------------------------------------------------- how it ended, in a word


@pytest.mark.parametrize(
    ("facts", "said", "ending"),
    [
        ({"subtype": "error_max_turns"}, "", Ending.TURN_LIMIT),
        ({"subtype": "error_max_budget_usd"}, "", Ending.BUDGET),
        ({"subtype": "error_max_structured_output_retries"}, "", Ending.BAD_RESULT),
        ({"subtype": "error_during_execution"}, "", Ending.ERROR),
        ({"stop_reason": "refusal", "terminal_reason": "api_error"}, "invalid_request", Ending.REFUSED),
        (
            {"terminal_reason": "prompt_too_long", "api_error_status": 400},
            "invalid_request",
            Ending.TOKEN_LIMIT,
        ),
        ({"terminal_reason": "api_error", "api_error_status": None}, "max_output_tokens", Ending.TOKEN_LIMIT),
        (
            {"terminal_reason": "api_error", "api_error_status": None},
            "authentication_failed",
            Ending.AUTH_FAILED,
        ),
        ({"terminal_reason": "completed", "api_error_status": 403}, "", Ending.AUTH_FAILED),
        ({"terminal_reason": "api_error", "api_error_status": 429}, "rate_limit", Ending.RATE_LIMITED),
        ({"terminal_reason": "api_error", "api_error_status": 529}, "", Ending.RATE_LIMITED),
        ({"terminal_reason": "api_error", "api_error_status": 500}, "server_error", Ending.API_ERROR),
        ({"terminal_reason": "api_error", "api_error_status": None}, "unknown", Ending.API_ERROR),
    ],
)
def test_an_error_is_an_ending_in_a_word(facts: dict[str, object], said: str, ending: Ending) -> None:
    message = {"type": "assistant", "message": {"content": []}, "error": said}
    tail = json.dumps(message).encode() + b"\n" + result(is_error=True, **facts)
    verdict = CLAUDE.verdict(record(code=1), tail)
    assert verdict.ending is ending
    assert (verdict.outcome is Outcome.OVER_BUDGET) is (ending is Ending.BUDGET)


@pytest.mark.parametrize("end", [{"code": 143}, {"code": 137}])
def test_a_claude_that_was_ended_by_a_stranger_was_killed(end: dict[str, object]) -> None:
    assert CLAUDE.verdict(record(**end), INIT).ending is Ending.KILLED


def test_a_structured_answer_is_part_of_the_result() -> None:
    verdict = CLAUDE.verdict(record(), result(result='{"n":3}', structured_output={"n": 3}))
    assert verdict.result is not None
    assert verdict.result["structured_output"] == {"n": 3}


# ---------------------------------------------------------------- what it used and changed


def account(*lines: bytes) -> Account:
    tally = Tally()
    for line in lines:
        for entry in CLAUDE.read(line.strip()):
            tally.add(entry)
    return tally.account(before={})


def model(**given: object) -> dict[str, object]:
    return {
        "inputTokens": 1000,
        "outputTokens": 20,
        "cacheReadInputTokens": 400,
        "cacheCreationInputTokens": 50,
        "thinkingTokens": 7,
        "costUSD": 0.5,
        **given,
    }


def test_what_each_result_used_adds_up_over_models_and_results() -> None:
    first = result(
        total_cost_usd=9, model_usage_since_last_result={"opus": model(), "haiku": model(costUSD=0.25)}
    )
    last = result(total_cost_usd=9, model_usage_since_last_result={"opus": model(thinkingTokens=None)})
    made = account(first, last)
    assert (made.input, made.cached, made.output, made.reasoning) == (3 * 1450, 1200, 60, 14)
    assert (made.cost_usd, made.cost_from) == (1.25, "program")
    assert CLAUDE.verdict(record(), first + last).usage == {
        "input": 4350,
        "cached": 1200,
        "output": 60,
        "reasoning": 14,
        "cost_usd": 1.25,
    }


def test_an_older_claude_gives_tokens_since_its_last_result_and_the_cost_so_far() -> None:
    made = account(result(total_cost_usd=0.5), result(total_cost_usd=0.75))
    assert (made.input, made.output, made.cost_usd) == (6600, 120, 0.75)


def test_what_is_not_said_is_not_known() -> None:
    made = account(result(is_error=True, usage={}, total_cost_usd=None))
    assert (made.input, made.output, made.cached, made.reasoning, made.cost_usd) == (None,) * 5


def test_a_file_counts_as_changed_once_its_call_has_gone_well() -> None:
    def call(number: int, tool: str, **given: object) -> bytes:
        block = {"type": "tool_use", "id": f"t{number}", "name": tool, "input": given}
        return json.dumps({"type": "assistant", "message": {"content": [block]}}).encode()

    def answer(number: int, is_error: bool = False) -> bytes:
        block = {"type": "tool_result", "tool_use_id": f"t{number}", "content": "x", "is_error": is_error}
        return json.dumps({"type": "user", "message": {"content": [block]}}).encode()

    edit, change = CLAUDE.read(call(1, "Edit", file_path="/a"))
    assert (edit.kind, change.kind) == (EntryKind.TOOL_CALL, EntryKind.FILE_CHANGE)
    assert change.data == {"path": "/a", "change": "edit", "id": "t1"}
    made = account(
        call(1, "Edit", file_path="/a"),
        answer(1),
        call(2, "Write", file_path="/b"),
        answer(2, is_error=True),
        call(3, "NotebookEdit", notebook_path="/c"),
        answer(3),
        call(4, "Read", file_path="/d"),
        answer(4),
        call(5, "Write", file_path="/e"),
    )
    assert (made.files, made.failed_calls) == (("/a", "/c"), 1)


def test_the_answer_is_the_last_results_and_an_error_is_no_answer() -> None:
    assert account(result(result="first"), result(result="second")).answer == "second"
    failed = account(result(is_error=True, result="API Error: 500"))
    assert (failed.answer, failed.turns) == (None, 3)


# ---------------------------------------------------------------- as it was recorded


def test_a_recorded_run_is_accounted_for() -> None:
    made = account(*streams.load("claude", "work").lines)
    assert (made.files, made.failed_calls, made.unknown) == (("/work/made.txt", "/work/old.txt"), 1, 0)
    assert (made.input, made.output, made.turns, made.answer) == (7070, 170, 8, "All is done.")


@pytest.mark.parametrize(
    ("case", "outcome", "ending"),
    [
        ("work", Outcome.COMPLETED, None),
        ("resumed", Outcome.COMPLETED, None),
        ("limited-once", Outcome.COMPLETED, None),
        ("unauthorised", Outcome.FAILED, Ending.AUTH_FAILED),
        ("limited", Outcome.FAILED, Ending.RATE_LIMITED),
        ("broken", Outcome.FAILED, Ending.API_ERROR),
        ("cut", Outcome.FAILED, Ending.API_ERROR),
        ("invalid", Outcome.FAILED, Ending.TOKEN_LIMIT),
        ("max-tokens", Outcome.FAILED, Ending.TOKEN_LIMIT),
        ("refusal", Outcome.FAILED, Ending.REFUSED),
        ("terminated", Outcome.FAILED, Ending.KILLED),
    ],
)
def test_a_recorded_run_is_judged_as_it_ended(case: str, outcome: Outcome, ending: Ending | None) -> None:
    stream = streams.load("claude", case)
    verdict = CLAUDE.verdict(record(code=stream.code, signal=stream.signal), stream.output)
    assert (verdict.outcome, verdict.ending) == (outcome, ending)
