"""Qwen Code: its flags and files, its stream (lines as 0.24.4 wrote them) and what its ends mean."""

import json
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.account import Account, Ending, Tally
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Options, Permissions
from headcount.harnesses.base import Launch, Session
from headcount.harnesses.catalogue import find
from tests.support.harness_facts import program, record, spec

QWEN = find("qwen")
HERE = "00000000-0000-4000-8000-000000000001"


def line(**facts: object) -> bytes:
    return json.dumps({"session_id": "6f1a", **facts}).encode()


def message(*blocks: dict[str, object], used: int = 1000) -> bytes:
    usage = {
        "input_tokens": used,
        "output_tokens": 20 if used else 0,
        "cache_read_input_tokens": 100 if used else 0,
    }
    return line(type="assistant", message={"model": "gpt-5.4", "content": blocks, "usage": usage})


def result(**given: object) -> bytes:
    facts = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "num_turns": 2,
        "result": "All done.",
        "usage": {"input_tokens": 7000, "output_tokens": 140, "cache_read_input_tokens": 500},
        "permission_denials": [],
    }
    return line(**{**facts, **given})


INIT = line(
    type="system",
    subtype="init",
    cwd="/repo",
    mcp_servers=[{"name": "headcount", "status": "connected"}],
    model="gpt-5.4",
)
EVENT = line(type="stream_event", event={"type": "goal_state"})
THINK = message({"type": "thinking", "thinking": "hm", "signature": ""}, used=0)
SAY = message({"type": "text", "text": "go"})
WRITE = message(
    {
        "type": "tool_use",
        "id": "c1",
        "name": "write_file",
        "input": {"file_path": "/repo/a", "content": "x"},
    }
)
OURS = message(
    {
        "type": "tool_use",
        "id": "c2",
        "name": "tool_call",
        "input": {"name": "mcp__headcount__report", "arguments": {"a": 1}},
    }
)


def answered(call: str, *, failed: bool = False) -> bytes:
    block = {"type": "tool_result", "tool_use_id": call, "is_error": failed, "content": "so"}
    return line(type="user", message={"role": "user", "content": [block]})


def account(*lines: bytes) -> Account:
    tally = Tally()
    for each in lines:
        for entry in QWEN.read(each):
            tally.add(entry)
    return tally.account()


def read(*lines: bytes) -> list[Entry]:
    return [entry for each in lines for entry in QWEN.read(each)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which Qwen Code is installed as npm does it."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "package.json").write_text('{"version": "0.24.4", "bin": {"qwen": "cli-entry.js"}}')
    for name in ("cli-entry.js", "cli.js"):
        (package / name).write_text("#!/usr/bin/env node\n")
        (package / name).chmod(0o755)
    program(tmp_path, "node")
    (tmp_path / "bin" / "qwen").symlink_to(package / "cli-entry.js")
    return tmp_path


def launch(home: Path, options: Options | None = None, **given: Any) -> Launch:
    env = {"PATH": str(home / "bin"), "HOME": str(home), "OPENAI_API_KEY": "s3cret", **given.pop("env", {})}
    return QWEN.command(spec(home, env=env, options=options or Options(), **given))


# ---------------------------------------------------------------- starting it


def test_the_agent_is_started_and_not_what_waits_for_it(home: Path) -> None:
    made = launch(home, prompt="dö it")
    assert made.argv == (
        str(home / "bin" / "node"),
        "--expose-gc",
        str(home / "package" / "cli.js"),
        "--output-format=stream-json",
        "--approval-mode=auto-edit",
        f"--mcp-config={home}/run/mcp.json",
        f"--session-id={HERE}",
        "--exclude-tools=send_message",
        "--exclude-tools=list_agents",
    )
    assert made.stdin == "dö it".encode()
    assert made.env["QWEN_CODE_NO_RELAUNCH"] == "true"
    (server,) = json.loads(made.files["mcp.json"])["mcpServers"].values()
    assert server == {"command": "/opt/bin/headcount", "args": ["mcp"], "trust": True}


def test_options_become_its_own_words(home: Path) -> None:
    options = Options(
        model="m",
        permissions=Permissions.BYPASS,
        max_turns=7,
        system_prompt="Be brief.",
        result_schema={"type": "object"},
        only_our_mcp=True,
        peers=True,
        allowed_tools=("shell(git log)",),
        denied_tools=("web", "edit"),
    )
    made = launch(home, options, session=Session(HERE, resumed=True), command=("--debug",))
    assert made.argv[3:] == (
        "--output-format=stream-json",
        f"--json-schema=@{home}/run/schema.json",
        "--approval-mode=yolo",
        f"--mcp-config={home}/run/mcp.json",
        f"--resume={HERE}",
        "--model=m",
        "--append-system-prompt=Be brief.",
        "--max-session-turns=7",
        "--allowed-mcp-server-names=headcount",
        "--allowed-tools=run_shell_command(git log)",
        "--exclude-tools=web_fetch",
        "--exclude-tools=write_file",
        "--exclude-tools=edit",
        "--exclude-tools=notebook_edit",
        "--debug",
    )
    assert json.loads(made.files["schema.json"]) == {"type": "object"}


def test_who_may_only_look_has_no_tool_that_changes_anything(home: Path) -> None:
    argv = launch(home, Options(permissions=Permissions.READ)).argv
    assert "--approval-mode=default" in argv
    assert {f"--exclude-tools={name}" for name in ("write_file", "edit", "run_shell_command")} <= set(argv)


def test_a_wrapper_that_is_not_known_is_started_as_it_is(tmp_path: Path) -> None:
    found = program(tmp_path, "qwen")
    assert launch(tmp_path).argv[0] == str(found)


@pytest.mark.parametrize("rule", ["shell()", "edit(x)", "shell(a,b)", "shell(a(b)", "a b"])
def test_a_rule_that_it_has_not_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        QWEN.check(prompt="", command=(), options=Options(allowed_tools=(rule,)))
    assert caught.value.hint


def test_what_belongs_to_the_session_that_deploys_is_emptied(home: Path) -> None:
    assert launch(home, env={"QWEN_CODE_SESSION_ID": "x"}).env["QWEN_CODE_SESSION_ID"] == ""


def test_it_is_opened_for_a_person_without_the_stream(home: Path) -> None:
    env = {"PATH": str(home / "bin"), "HOME": str(home), "OPENAI_API_KEY": "k"}
    made = QWEN.interactive(spec(home, env=env, session=Session(HERE, resumed=True)))
    assert (made.stdin, f"--resume={HERE}" in made.argv) == (None, True)
    assert "--output-format=stream-json" not in made.argv


def test_it_is_too_old_or_nobody_is_logged_in(home: Path) -> None:
    with pytest.raises(PlacementFailed, match="not logged in"):
        launch(home, env={"OPENAI_API_KEY": ""})
    (home / "package" / "package.json").write_text('{"version": "0.9.0", "bin": {"qwen": "cli-entry.js"}}')
    with pytest.raises(PlacementFailed, match="too old"):
        launch(home)


# ---------------------------------------------------------------- reading it


def test_a_stream_is_read_as_entries() -> None:
    entries = read(
        INIT, EVENT, THINK, SAY, WRITE, answered("c1"), OURS, answered("c2", failed=True), result()
    )
    assert [str(entry.kind) for entry in entries] == [
        "session",
        "reasoning",
        "text",
        "usage",
        "tool_call",
        "file_change",
        "usage",
        "tool_result",
        "tool_call",
        "usage",
        "tool_result",
        "usage",
        "result",
    ]
    assert entries[0].data == {
        "session_id": "6f1a",
        "model": "gpt-5.4",
        "cwd": "/repo",
        "mcp_servers": {"headcount": "connected"},
    }
    assert entries[5].data == {"path": "/repo/a", "id": "c1"}
    assert entries[8].data == {"id": "c2", "tool": "mcp__headcount__report", "arguments": {"a": 1}}
    assert entries[-2].data == {"input": 7000, "output": 140, "cached": 500, "scope": "session"}
    assert entries[-1].data == {"session_id": "6f1a", "turns": 2, "text": "All done."}


def test_tokens_are_this_runs_and_those_of_the_steps_if_it_was_cut_short() -> None:
    tally = Tally()
    for each in (INIT, SAY, WRITE, answered("c1"), result()):
        for entry in QWEN.read(each):
            tally.add(entry)
    made = tally.account(before={"input": 5000.0, "output": 100.0, "cached": 0.0})
    assert (made.input, made.output, made.cached, made.turns) == (2000, 40, 500, 2)
    assert (made.answer, made.files) == ("All done.", ("/repo/a",))
    short = account(INIT, SAY, WRITE)
    assert (short.input, short.output, short.turns) == (2000, 40, 2)


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ("[API Error: 401 no key]", EntryKind.ERROR, {"status": 401}),
        ("[API Error: 429 slow]", EntryKind.RATE_LIMITED, {"status": 429}),
        ("[API Error: terminated]", EntryKind.ERROR, {}),
    ],
)
def test_what_stands_in_the_place_of_an_answer_is_an_error(
    text: str, kind: EntryKind, data: dict[str, object]
) -> None:
    (entry,) = read(message({"type": "text", "text": text}, used=0))
    assert (entry.kind, entry.data) == (kind, data)


def test_what_was_denied_is_said_at_the_end() -> None:
    denied = [{"tool_name": "run_shell_command", "tool_use_id": "c", "tool_input": {"command": "ls"}}]
    assert account(result(permission_denials=denied)).denied == ("run_shell_command",)


@pytest.mark.parametrize("text", [b"", b"{", b'{"type":"news"}', b'{"type":"system","subtype":"news"}'])
def test_what_it_does_not_know_is_unknown(text: bytes) -> None:
    assert [entry.kind for entry in QWEN.read(text)] == [EntryKind.UNKNOWN]


# ---------------------------------------------------------------- judging it


def test_a_finished_run_has_its_result() -> None:
    verdict = QWEN.verdict(record(), result(structured_result={"a": 1}))
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.result is not None
    assert (verdict.result["text"], verdict.result["session_id"]) == ("All done.", "6f1a")
    assert verdict.result["structured_result"] == {"a": 1}


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        ("[API Error: 401 no]", Ending.AUTH_FAILED),
        ("[API Error: 429 no]", Ending.RATE_LIMITED),
        ("[API Error: 500 no]", Ending.API_ERROR),
        ("[API Error: terminated]", Ending.API_ERROR),
        ("Model produced plain text", None),
    ],
)
def test_a_failed_run_says_why_in_a_word(words: str, ending: Ending | None) -> None:
    failed = result(subtype="error_during_execution", is_error=True, error={"message": words})
    for code in (0, 1):
        verdict = QWEN.verdict(record(code=code), failed)
        assert (verdict.outcome, verdict.reason, verdict.ending) == (Outcome.FAILED, words, ending)


def test_a_limit_is_known_by_the_code_for_there_is_no_result() -> None:
    verdict = QWEN.verdict(record(code=53), b"")
    assert (verdict.outcome, verdict.ending) == (Outcome.FAILED, Ending.TURN_LIMIT)


def test_exit_code_0_without_a_result_has_failed() -> None:
    assert QWEN.verdict(record(), INIT).outcome is Outcome.FAILED
