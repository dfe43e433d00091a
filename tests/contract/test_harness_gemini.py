"""Gemini CLI: its flags and files, its stream (lines as 0.61.0 wrote them) and what its ends mean."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.account import Account, Ending, Tally
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Options, Permissions
from headcount.harnesses import gemini_home
from headcount.harnesses.base import Launch, Session
from headcount.harnesses.catalogue import find
from tests.support.harness_facts import program, record, spec

GEMINI = find("gemini")
HERE = "00000000-0000-4000-8000-000000000001"

INIT = b'{"type":"init","timestamp":"T","session_id":"6f1a","model":"gemini-2.5-pro"}'
PROMPT = b'{"type":"message","timestamp":"T","role":"user","content":"do it"}'
CALL = (
    b'{"type":"tool_use","timestamp":"T","tool_name":"write_file","tool_id":"write_file__c1",'
    b'"parameters":{"file_path":"made.txt","content":"x"}}'
)
CALLED = b'{"type":"tool_result","timestamp":"T","tool_id":"write_file__c1","status":"success"}'
MISSED = (
    b'{"type":"tool_result","timestamp":"T","tool_id":"replace__c2","status":"error",'
    b'"output":"Error: no match","error":{"type":"edit_no_occurrence_found","message":"no match in f"}}'
)
DENIED = (
    b'{"type":"tool_result","timestamp":"T","tool_id":"run_shell_command__c3","status":"error","output":'
    b'"Tool execution denied by policy.","error":{"type":"policy_violation","message":"denied by policy"}}'
)
STATS = {
    "total_tokens": 3060,
    "input_tokens": 3000,
    "output_tokens": 60,
    "cached": 500,
    "input": 2500,
    "duration_ms": 207,
    "tool_calls": 1,
    "models": {"gemini-2.5-pro": {"total_tokens": 3060}, "gemini-2.5-flash": {"total_tokens": 0}},
}


def said(text: str) -> bytes:
    return json.dumps({"type": "message", "role": "assistant", "content": text, "delta": True}).encode()


def result(**given: object) -> bytes:
    return json.dumps({"type": "result", "status": "success", "stats": STATS, **given}).encode()


def failed(message: str) -> bytes:
    nothing = {**STATS, "total_tokens": 0, "input_tokens": 0, "output_tokens": 0, "cached": 0, "models": {}}
    return result(status="error", error={"type": "unknown", "message": message}, stats=nothing)


def read(*lines: bytes) -> list[Entry]:
    return [entry for line in lines for entry in GEMINI.read(line)]


def account(*lines: bytes) -> Account:
    tally = Tally()
    for entry in read(*lines):
        tally.add(entry)
    return tally.account()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    program(tmp_path, "gemini")
    return tmp_path


def launch(home: Path, options: Options | None = None, **given: Any) -> Launch:
    env = {"PATH": str(home / "bin"), "HOME": str(home), "GEMINI_API_KEY": "s3cret", **given.pop("env", {})}
    return GEMINI.command(spec(home, env=env, options=options or Options(), **given))


def rules(home: Path, options: Options) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(launch(home, options).files["gemini-policy.toml"].decode())[
        "rule"
    ]
    return found


def overlay(home: Path, options: Options | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(launch(home, options).files["gemini.json"])
    return found


# ---------------------------------------------------------------- starting it


def test_it_is_started_in_a_home_of_its_own_with_the_prompt_on_stdin(home: Path) -> None:
    made = launch(home, prompt="dö it")
    assert made.argv[1:] == (
        "-I",
        "-S",
        gemini_home.__file__,
        str(home / "run" / "gemini.json"),
        str(home / "bin" / "gemini"),
        "-o",
        "stream-json",
        "--skip-trust",
        "--approval-mode=auto_edit",
        f"--policy={home}/run/gemini-policy.toml",
        f"--session-id={HERE}",
    )
    assert made.stdin == "dö it".encode()
    assert made.env == {"GEMINI_CLI_NO_RELAUNCH": "true"}


def test_options_become_its_own_words(home: Path) -> None:
    options = Options(model="gemini-2.5-pro", permissions=Permissions.BYPASS, only_our_mcp=True)
    made = launch(home, options, session=Session(HERE, resumed=True), command=("--debug",))
    for word in (
        "--model=gemini-2.5-pro",
        "--approval-mode=yolo",
        "--allowed-mcp-server-names=headcount",
        f"--resume={HERE}",
    ):
        assert word in made.argv
    assert made.argv[-1] == "--debug"
    assert not any(word.startswith("--session-id") for word in made.argv)


def test_our_server_is_named_with_what_it_needs_by_name_only(home: Path) -> None:
    found = overlay(home, Options(max_turns=7, system_prompt="Be brief."))
    server = found["over"]["mcpServers"]["headcount"]
    assert (server["command"], server["args"]) == ("/opt/bin/headcount", ["mcp"])
    assert server["env"]["HEADCOUNT_TOKEN"] == "$HEADCOUNT_TOKEN"
    assert server["env"]["PATH"] == "$PATH"  # and all else that its children may need
    assert found["over"]["model"] == {"maxSessionTurns": 7}
    assert found["context"] == "Be brief."
    assert found["under"] == {"general": {"maxAttempts": 3}}
    assert "model" not in overlay(home)["over"]


def test_rules_about_tools_become_its_policy_and_what_is_denied_wins(home: Path) -> None:
    found = rules(
        home, Options(allowed_tools=("shell(git log)", "shell"), denied_tools=("web", "mcp_x_*", "shell(rm)"))
    )
    ours, prefix, shell, web, other, removing = found
    assert (ours["mcpName"], ours["decision"]) == ("headcount", "allow")
    assert (prefix["toolName"], prefix["commandPrefix"]) == (["run_shell_command"], "git log")
    assert "allowRedirection" not in prefix
    assert (shell["toolName"], shell["allowRedirection"]) == (["run_shell_command"], True)
    assert (web["toolName"], web["decision"]) == (["web_fetch", "google_web_search"], "deny")
    assert other["toolName"] == ["mcp_x_*"]
    assert (removing["commandPrefix"], removing["decision"]) == ("rm", "deny")
    assert {each["priority"] for each in (web, other, removing)} == {999}
    assert all(each["priority"] < 999 for each in (ours, prefix, shell))


def test_who_may_only_look_has_no_tool_that_changes_anything(home: Path) -> None:
    _, denied = rules(home, Options(permissions=Permissions.READ))
    assert denied["decision"] == "deny"
    assert {"write_file", "replace", "run_shell_command"} <= set(denied["toolName"])
    assert "--approval-mode=default" in launch(home, Options(permissions=Permissions.READ)).argv


def test_a_prefix_with_quotes_and_a_delete_is_one_string_of_toml(home: Path) -> None:
    (_, rule) = rules(home, Options(allowed_tools=('shell(say "ü\x7f\\)',)))
    assert rule["commandPrefix"] == 'say "ü\x7f\\'


@pytest.mark.parametrize("rule", ["shell()", "edit(x)", "write_file(x)", "a b"])
def test_a_rule_that_it_has_not_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        GEMINI.check(prompt="", command=(), options=Options(denied_tools=(rule,)))
    assert caught.value.hint


def test_the_users_own_policies_stay_in_force(home: Path) -> None:
    (home / ".gemini" / "policies").mkdir(parents=True)
    assert f"--policy={home}/.gemini/policies" in launch(home).argv


def test_what_belongs_to_the_session_that_deploys_is_emptied(home: Path) -> None:
    made = launch(home, env={"GEMINI_CLI": "1", "GEMINI_CLI_IDE_SERVER_PORT": "7"})
    assert (made.env["GEMINI_CLI"], made.env["GEMINI_CLI_IDE_SERVER_PORT"]) == ("", "")


def test_it_is_opened_for_a_person_without_the_stream(home: Path) -> None:
    env = {"PATH": str(home / "bin"), "HOME": str(home), "GEMINI_API_KEY": "k"}
    made = GEMINI.interactive(spec(home, env=env, session=Session(HERE, resumed=True)))
    assert made.stdin is None
    assert "-o" not in made.argv
    assert f"--resume={HERE}" in made.argv


def test_it_is_missed_too_old_or_nobody_is_logged_in(home: Path, tmp_path: Path) -> None:
    env = {"PATH": str(home / "bin"), "HOME": str(home)}
    with pytest.raises(PlacementFailed, match="not logged in") as caught:
        GEMINI.command(spec(home, env=env))
    assert "GEMINI_API_KEY" in caught.value.hint
    (home / ".gemini").mkdir()
    (home / ".gemini" / "settings.json").write_text("{}")
    GEMINI.command(spec(home, env=env))
    (home / "package.json").write_text('{"version": "0.9.0", "bin": {"gemini": "bin/gemini"}}')
    with pytest.raises(PlacementFailed, match="too old"):
        GEMINI.command(spec(home, env=env))
    with pytest.raises(PlacementFailed, match="not found"):
        GEMINI.command(spec(home, env={**env, "PATH": str(tmp_path / "none")}))


# ---------------------------------------------------------------- its home


def make(home: Path, **overlay: object) -> Path:
    return Path(gemini_home.make_home(str(home / "run" / "gemini-home"), str(home), overlay))


def settings(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / ".gemini" / "settings.json").read_text())
    return found


def test_the_home_is_the_users_but_for_the_settings(home: Path) -> None:
    theirs = home / ".gemini"
    theirs.mkdir()
    (theirs / "oauth_creds.json").write_text("creds")
    commented = '{ // mine\n "a": "//x,}", "general": {"maxAttempts": 9,}, "mcpServers": {"y": {}} /* */ }'
    (theirs / "settings.json").write_text(commented)
    made = make(
        home,
        over={"mcpServers": {"headcount": {}}},
        under={"general": {"maxAttempts": 3, "b": 1}},
        context=None,
    )
    assert settings(made) == {
        "a": "//x,}",
        "general": {"maxAttempts": 9, "b": 1},
        "mcpServers": {"y": {}, "headcount": {}},
    }
    assert (theirs / "settings.json").read_text() == commented
    assert (made / ".gemini" / "oauth_creds.json").read_text() == "creds"
    assert os.path.samefile(made / ".gemini" / "tmp", theirs / "tmp")
    assert (made / ".gemini" / "settings.json").stat().st_mode & 0o777 == 0o600


def test_a_system_prompt_stands_behind_what_the_user_says_in_every_conversation(home: Path) -> None:
    (home / ".gemini").mkdir()
    (home / ".gemini" / "AGENTS.md").write_text("Mine.")
    (home / ".gemini" / "settings.json").write_text('{"context": {"fileName": ["AGENTS.md", "GEMINI.md"]}}')
    made = make(home, context="Be brief.")
    assert (made / ".gemini" / "AGENTS.md").read_text() == "Mine.\n\nBe brief."
    assert (home / ".gemini" / "AGENTS.md").read_text() == "Mine."


def test_the_home_of_an_agents_agent_links_to_the_users_own(home: Path) -> None:
    made = make(home)
    assert gemini_home.find_origin({"GEMINI_CLI_HOME": str(made), "HOME": "/"}) == str(home)
    assert gemini_home.find_origin({"GEMINI_CLI_HOME": "/mine", "HOME": "/"}) == "/mine"
    again = make(home)
    assert settings(again) == settings(made)


def test_settings_that_cannot_be_read_end_it_before_it_begins(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".gemini").mkdir()
    (home / ".gemini" / "settings.json").write_text("{")
    (home / "gemini.json").write_text("{}")
    monkeypatch.setenv("GEMINI_CLI_HOME", str(home))
    with pytest.raises(SystemExit) as caught:
        gemini_home.main([str(home / "gemini.json"), "/bin/true"])
    assert caught.value.code == 52
    assert "settings" in capsys.readouterr().err


# ---------------------------------------------------------------- reading it


def test_a_stream_is_read_as_entries() -> None:
    entries = read(INIT, PROMPT, said("I wr"), CALL, CALLED, MISSED, DENIED, result())
    assert [str(entry.kind) for entry in entries] == [
        "session",
        "text",
        "tool_call",
        "file_change",
        "tool_result",
        "tool_result",
        "tool_result",
        "permission_denied",
        "usage",
        "result",
    ]
    session, text, call, change, *_, denied, usage, _ = entries
    assert session.data == {"session_id": "6f1a", "model": "gemini-2.5-pro"}
    assert text.data == {"delta": True}
    assert call.data["arguments"] == {"file_path": "made.txt", "content": "x"}
    assert change.data == {"path": "made.txt", "id": "write_file__c1"}
    assert denied.data == {"tool": "run_shell_command"}
    assert usage.data == {
        "input": 3000,
        "output": 60,
        "cached": 500,
        "scope": "run",
        "model": "gemini-2.5-pro",
    }


def test_the_account_has_the_answer_the_files_and_the_tokens() -> None:
    made = account(INIT, PROMPT, said("no"), CALL, CALLED, said("All "), said("done."), result())
    assert (made.answer, made.files, made.tool_calls) == ("All done.", ("made.txt",), 1)
    assert (made.input, made.output, made.cost_usd) == (3000, 60, None)
    assert (made.session_id, made.model) == ("6f1a", "gemini-2.5-pro")


def test_what_a_failed_run_did_not_count_is_unknown() -> None:
    made = account(INIT, failed("[API Error: slow down]"))
    assert (made.input, made.output, made.errors) == (None, None, 1)


@pytest.mark.parametrize("line", [b"", b"{", b"Warning: x", b'{"type":"news"}', b'{"type":["init"]}'])
def test_what_it_does_not_know_is_unknown(line: bytes) -> None:
    assert [entry.kind for entry in GEMINI.read(line)] == [EntryKind.UNKNOWN]


def test_a_warning_of_its_own_is_an_error_and_an_overload_a_limit() -> None:
    warning = b'{"type":"error","timestamp":"T","severity":"warning","message":"Loop detected"}'
    (error,) = read(warning)
    assert (error.kind, error.data["severity"]) == (EntryKind.ERROR, "warning")
    (limited,) = read(failed('[API Error: {"error":{"code":503,"message":"busy"}}]'))
    assert (limited.kind, limited.data) == (EntryKind.RATE_LIMITED, {"status": 503})


# ---------------------------------------------------------------- judging it


def test_a_finished_run_says_what_the_model_said_last() -> None:
    tail = b"\n".join((INIT, said("no"), CALL, CALLED, said("All "), said("done."), result()))
    verdict = GEMINI.verdict(record(), tail)
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.result == {"text": "All done.", "session_id": "6f1a", "status": "success"}
    assert verdict.usage == {"input": 3000, "output": 60, "cached": 500}


@pytest.mark.parametrize(
    ("code", "message", "ending"),
    [
        (145, '[API Error: {"error":{"code":401,"message":"no key"}}]', Ending.AUTH_FAILED),
        (144, '[API Error: {"error":{"code":400,"message":"too long"}}]', Ending.API_ERROR),
        (173, "[API Error: slow down]", Ending.RATE_LIMITED),
        (244, '[API Error: {"error":{"code":500,"message":"x"}}]', Ending.API_ERROR),
        (1, "[API Error: terminated]", Ending.API_ERROR),
        (1, "something else", None),
        (53, "Reached max session turns for this session.", Ending.TURN_LIMIT),
    ],
)
def test_a_failed_run_says_why_in_a_word(code: int, message: str, ending: Ending | None) -> None:
    verdict = GEMINI.verdict(record(code=code), b"\n".join((INIT, failed(message))))
    assert (verdict.outcome, verdict.reason, verdict.ending) == (Outcome.FAILED, message, ending)


def test_nobody_logged_in_is_known_by_the_code_alone() -> None:
    verdict = GEMINI.verdict(record(code=41), b"")
    assert (verdict.ending, verdict.reason) == (Ending.AUTH_FAILED, "nobody is logged in (exit code 41)")


def test_exit_code_0_without_a_result_has_failed() -> None:
    verdict = GEMINI.verdict(record(), b"\n".join((INIT, said("All"))))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "ended without a result (exit code 0)")
    verdict = GEMINI.verdict(record(), b"\n".join((INIT, result(status="error"))))
    assert verdict.outcome is Outcome.FAILED
