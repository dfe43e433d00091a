"""Codex: its flags, its stream as it was recorded, and what its last words mean."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.account import Account, Ending, Tally
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Effort, Options, Permissions
from headcount.harnesses.base import Launch, Session
from headcount.harnesses.catalogue import find
from tests.support import streams
from tests.support.harness_facts import program, record, spec

CODEX = find("codex")


def launch(tmp_path: Path, **given: object) -> Launch:
    program(tmp_path, "codex")
    return CODEX.command(spec(tmp_path, **given))


def settings(made: Launch) -> dict[str, Any]:
    """Return what its `-c` flags say, as it reads them."""
    pairs = [value for flag, value in zip(made.argv, made.argv[1:], strict=False) if flag == "-c"]
    return tomllib.loads("\n".join(pairs))


def entries(case: str) -> list[Entry]:
    return [entry for line in streams.load("codex", case).lines for entry in CODEX.read(line)]


def account(case: str, before: Account | None = None) -> Account:
    tally = Tally()
    for entry in entries(case):
        tally.add(entry)
    return tally.account(before=before.session_usage if before else {})


# ---------------------------------------------------------------- starting it


def test_it_is_started_headless_with_the_prompt_on_stdin(tmp_path: Path) -> None:
    made = launch(tmp_path, prompt="-- fix {this}")
    assert made.argv[:4] == (str(tmp_path / "bin" / "codex"), "exec", "--json", "--skip-git-repo-check")
    assert made.argv[-1] == "-"
    assert made.stdin == b"-- fix {this}"
    assert (made.env, made.files) == ({}, {})


def test_our_server_is_beside_the_users_own_and_gets_variables_by_name_alone(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path / "bin"), "OPENAI_API_KEY": "s3cret"}
    server = settings(launch(tmp_path, headcount=("/py", "-m", "headcount"), env=env))["mcp_servers"]
    assert set(server) == {"headcount"}
    ours = server["headcount"]
    assert (ours["command"], ours["args"]) == ("/py", ["-m", "headcount", "mcp"])
    assert {"HEADCOUNT_TOKEN", "HEADCOUNT_SOCKET", "OPENAI_API_KEY", "PATH"} <= set(ours["env_vars"])
    assert (ours["required"], ours["default_tools_approval_mode"]) == (True, "approve")
    assert "env" not in ours


@pytest.mark.parametrize(
    ("permissions", "sandbox", "network"),
    [
        (Permissions.READ, "read-only", None),
        (Permissions.EDIT, "workspace-write", {"network_access": True}),
        (Permissions.BYPASS, "danger-full-access", None),
    ],
)
def test_permissions_are_its_sandboxes(
    permissions: Permissions, sandbox: str, network: object, tmp_path: Path
) -> None:
    made = launch(tmp_path, options=Options(permissions=permissions))
    assert f"--sandbox={sandbox}" in made.argv
    assert settings(made).get("sandbox_workspace_write") == network


def test_its_retries_end_and_its_shell_keeps_the_callers_path(tmp_path: Path) -> None:
    told = settings(launch(tmp_path))
    assert told["features"] == {"unbounded_connection_retries": False}
    assert told["allow_login_shell"] is False


def test_model_effort_and_words_are_told_as_they_are(tmp_path: Path) -> None:
    words = 'Say "ü" \\o/\n\x7f\x01 \N{GRINNING FACE}'
    options = Options(model="--gpt", effort=Effort.XHIGH, system_prompt=words)
    made = launch(tmp_path, options=options)
    assert "--model=--gpt" in made.argv
    told = settings(made)
    assert (told["model_reasoning_effort"], told["developer_instructions"]) == ("xhigh", words)


def test_words_that_no_argument_can_hold_are_refused() -> None:
    with pytest.raises(InvalidInput, match="system_prompt"):
        CODEX.check(prompt="", command=(), options=Options(system_prompt="\n" * 70_000))


def test_a_schema_goes_into_a_file(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"ü": {"type": "boolean"}}}
    made = launch(tmp_path, options=Options(result_schema=schema))
    assert f"--output-schema={tmp_path / 'run' / 'schema.json'}" in made.argv
    assert json.loads(made.files["schema.json"]) == schema


def test_a_conversation_is_resumed_after_all_flags(tmp_path: Path) -> None:
    made = launch(tmp_path, session=Session("01a2", resumed=True), command=("--ephemeral",))
    assert made.argv[-4:] == ("--ephemeral", "resume", "01a2", "-")


def test_a_person_opens_the_same_conversation_with_the_same_sandbox(tmp_path: Path) -> None:
    program(tmp_path, "codex")
    made = CODEX.interactive(spec(tmp_path, session=Session("01a2", resumed=True)))
    assert made.argv[1:4] == ("resume", "01a2", "--sandbox=workspace-write")
    assert made.stdin is None
    assert "headcount" in settings(made)["mcp_servers"]


def test_variables_of_a_codex_that_deploys_do_not_reach_it() -> None:
    assert not any("CODEX_THREAD_ID".startswith(prefix) for prefix in CODEX.env_prefixes)
    assert not {"CODEX_THREAD_ID", "CODEX_SANDBOX_NETWORK_DISABLED"} & set(CODEX.env_names)


def test_a_missing_one_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(PlacementFailed, match="codex") as caught:
        CODEX.command(spec(tmp_path))
    assert "npm install" in caught.value.hint


def test_it_is_refused_only_where_it_is_certain_that_nobody_is_logged_in(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}
    with pytest.raises(PlacementFailed, match="not logged in"):
        launch(tmp_path, env=env)
    launch(tmp_path, env={**env, "CODEX_API_KEY": "x"})
    launch(tmp_path, env=env, command=("-c", "model_provider=house"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.toml").write_text("model_provider = 'house'")
    launch(tmp_path, env={**env, "CODEX_HOME": str(tmp_path / "own")})


# ---------------------------------------------------------------- reading it


@pytest.mark.parametrize("stream", streams.every("codex"), ids=str)
def test_all_that_it_was_heard_to_say_is_known(stream: streams.Stream) -> None:
    said = [entry for line in stream.lines for entry in CODEX.read(line)]
    assert not [entry for entry in said if entry.kind is EntryKind.UNKNOWN]
    assert said[0].kind is EntryKind.SESSION


def test_a_run_at_work_is_read_whole() -> None:
    made = account("work")
    assert made.files == ("/work/made.txt", "/work/old.txt")
    assert (made.tool_calls, made.failed_calls, made.errors) == (6, 1, 0)
    assert (made.input, made.output, made.cached, made.cost_usd) == (7070, 170, 0, None)
    assert made.answer == "All is done."
    (call,) = [each for each in entries("work") if each.data.get("tool") == "small.update_agent_progress"]
    assert call.text == 'small.update_agent_progress {"status":"at work"}'


def test_what_a_resumed_conversation_had_used_before_is_not_counted_again() -> None:
    first = Tally()
    used = {"input_tokens": 1000, "output_tokens": 20}
    for entry in CODEX.read(json.dumps({"type": "turn.completed", "usage": used}).encode()):
        first.add(entry)
    made = account("resumed", first.account(before={}))
    assert (made.input, made.output) == (3000 - 1000, 60 - 20)


def test_a_call_that_was_declined_is_a_denial() -> None:
    item = {"id": "i", "type": "command_execution", "command": "rm x", "status": "declined"}
    denied, answer = CODEX.read(json.dumps({"type": "item.completed", "item": item}).encode())
    assert (denied.kind, denied.data) == (EntryKind.PERMISSION_DENIED, {"tool": "shell"})
    assert answer.data == {"id": "i", "is_error": True}


def test_its_plan_is_what_it_thinks() -> None:
    steps = [{"text": "a", "completed": True}, {"text": "b", "completed": False}]
    item = {"id": "i", "type": "todo_list", "items": steps}
    (entry,) = CODEX.read(json.dumps({"type": "item.updated", "item": item}).encode())
    assert (entry.kind, entry.text) == (EntryKind.REASONING, "[x] a\n[ ] b")


# ---------------------------------------------------------------- judging it


@pytest.mark.parametrize(
    ("case", "outcome", "ending"),
    [
        ("work", Outcome.COMPLETED, None),
        ("resumed", Outcome.COMPLETED, None),
        ("limited-once", Outcome.COMPLETED, None),
        ("limited", Outcome.FAILED, Ending.RATE_LIMITED),
        ("unauthorised", Outcome.FAILED, Ending.AUTH_FAILED),
        ("invalid", Outcome.FAILED, Ending.TOKEN_LIMIT),
        ("broken", Outcome.FAILED, Ending.API_ERROR),
        ("cut", Outcome.FAILED, Ending.API_ERROR),
        ("max-tokens", Outcome.FAILED, Ending.TOKEN_LIMIT),
        ("refusal", Outcome.FAILED, Ending.REFUSED),
        ("terminated", Outcome.FAILED, None),
    ],
)
def test_how_it_ended_is_known(case: str, outcome: Outcome, ending: Ending | None) -> None:
    stream = streams.load("codex", case)
    verdict = CODEX.verdict(record(code=stream.code, signal=stream.signal), stream.output)
    assert (verdict.outcome, verdict.ending) == (outcome, ending)
    assert verdict.result is not None
    assert verdict.result["session_id"] == "00000000-0000-4000-8000-000000000001"


def test_a_failed_turn_has_failed_whatever_the_exit_code_says() -> None:
    verdict = CODEX.verdict(record(), streams.load("codex", "unauthorised").output)
    assert verdict.outcome is Outcome.FAILED
    assert "no such key" in verdict.reason


def test_without_the_end_of_a_turn_exit_code_0_is_no_success() -> None:
    verdict = CODEX.verdict(record(), streams.load("codex", "terminated").output)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "ended without a result (exit code 0)")


def test_what_it_used_is_said_to_be_that_of_its_conversation() -> None:
    verdict = CODEX.verdict(record(), streams.load("codex", "work").output)
    assert verdict.usage == {"input": 7070, "cached": 0, "output": 170, "reasoning": 0, "scope": "session"}
