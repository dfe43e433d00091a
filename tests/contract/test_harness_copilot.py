"""Copilot CLI: its flags and files, its stream as 1.0.102 wrote it, and what its ends mean."""

import json
import os
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

COPILOT = find("copilot")
HERE = "00000000-0000-4000-8000-000000000001"


def line(kind: str, **data: object) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode()


def result(code: int = 0) -> bytes:
    return json.dumps({"type": "result", "sessionId": "6f1a", "exitCode": code, "usage": {}}).encode()


CALL = line("tool.execution_start", toolCallId="c1", toolName="bash", arguments={"command": "ls"})
PATCHED = line(
    "tool.execution_complete",
    toolCallId="c2",
    success=True,
    fileEdits=[{"path": "/repo/a", "kind": "create"}],
    result={"content": "Added 1 file(s)"},
)
FAILED = line(
    "tool.execution_complete",
    toolCallId="c1",
    success=True,
    shellExecution={"exitCode": 3},
    result={"content": "no"},
)
DENIED = line(
    "tool.execution_complete",
    toolCallId="c3",
    success=False,
    error={"message": "Permission denied", "code": "denied"},
)


def read(*lines: bytes) -> list[Entry]:
    return [entry for each in lines for entry in COPILOT.read(each)]


def account(*lines: bytes) -> Account:
    tally = Tally()
    for entry in read(*lines):
        tally.add(entry)
    return tally.account()


def launch(home: Path, options: Options | None = None, **given: Any) -> Launch:
    env = {"PATH": str(home / "bin"), "HOME": str(home), **given.pop("env", {})}
    return COPILOT.command(spec(home, env=env, options=options or Options(), **given))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    program(tmp_path, "copilot")
    return tmp_path


# ---------------------------------------------------------------- starting it


def test_it_is_started_with_the_least_that_lets_it_work_and_the_prompt_on_stdin(home: Path) -> None:
    made = launch(home, prompt="dö it")
    assert made.argv == (
        str(home / "bin" / "copilot"),
        "--output-format=json",
        "--no-ask-user",
        f"--usage-output-file={home}/run/usage.json",
        "--no-auto-update",
        "--allow-tool=write",
        "--allow-tool=headcount",
        f"--additional-mcp-config=@{home}/run/mcp.json",
        f"--session-id={HERE}",
    )
    assert made.stdin == "dö it".encode()
    (server,) = json.loads(made.files["mcp.json"])["mcpServers"].values()
    assert server.pop("env")["PATH"] == "${PATH}"  # by name: it would keep what looks like a key
    assert server == {"type": "local", "command": "/opt/bin/headcount", "args": ["mcp"], "tools": ["*"]}


def test_the_agent_is_started_and_not_what_waits_for_it(tmp_path: Path) -> None:
    machine = os.uname()
    system = {"Linux": "linux", "Darwin": "darwin"}[machine.sysname]
    arch = {"x86_64": "x64", "aarch64": "arm64"}.get(machine.machine, machine.machine)
    loader = tmp_path / "@github" / "copilot" / "npm-loader.js"
    native = tmp_path / "@github" / f"copilot-{system}-{arch}" / "copilot"
    for path in (loader, native):
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "copilot").symlink_to(loader)
    assert launch(tmp_path).argv[0] == str(native)
    native.unlink()
    assert launch(tmp_path).argv[0] == str(tmp_path / "bin" / "copilot")


def test_options_become_its_own_words(home: Path) -> None:
    options = Options(
        model="m",
        effort=Effort.XHIGH,
        permissions=Permissions.BYPASS,
        allowed_tools=("shell(git log)", "read", "web", "github(get_issue)"),
        denied_tools=("shell(rm)", "edit", "search", "task", "github(x)"),
    )
    made = launch(home, options, session=Session(HERE, resumed=True), command=("--trust-folder",))
    assert made.argv[5:] == (
        "--allow-all",
        "--allow-tool=headcount",
        f"--additional-mcp-config=@{home}/run/mcp.json",
        f"--resume={HERE}",
        "--model=m",
        "--reasoning-effort=xhigh",
        "--allow-tool=shell(git log:*)",
        "--allow-tool=url",
        "--allow-tool=github(get_issue)",
        "--deny-tool=shell(rm:*)",
        "--deny-tool=write",
        "--excluded-tools=glob",
        "--excluded-tools=rg",
        "--excluded-tools=grep",
        "--excluded-tools=task",
        "--deny-tool=github(x)",
        "--trust-folder",
    )


def test_who_may_only_look_is_denied_what_changes_anything(home: Path) -> None:
    argv = launch(home, Options(permissions=Permissions.READ)).argv
    assert {"--deny-tool=write", "--deny-tool=shell"} <= set(argv)
    assert "--allow-tool=write" not in argv


@pytest.mark.parametrize("rule", ["shell()", "edit(x)", "shell(a,b)", "a b", "x(y(z))"])
def test_a_rule_that_it_has_not_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        COPILOT.check(prompt="", command=(), options=Options(denied_tools=(rule,)))
    assert caught.value.hint


def test_what_belongs_to_the_session_that_deploys_is_emptied(home: Path) -> None:
    assert launch(home, env={"COPILOT_ALLOW_ALL": "true"}).env == {"COPILOT_ALLOW_ALL": ""}


def test_it_is_opened_for_a_person_without_the_stream(home: Path) -> None:
    made = COPILOT.interactive(spec(home, session=Session(HERE, resumed=True)))
    assert (made.stdin, f"--resume={HERE}" in made.argv) == (None, True)
    assert "--output-format=json" not in made.argv


def test_it_is_missed_or_too_old(home: Path) -> None:
    with pytest.raises(PlacementFailed, match="not found"):
        launch(home, env={"PATH": "/nowhere"})
    (home / "package.json").write_text('{"version": "0.0.330", "bin": {"copilot": "bin/copilot"}}')
    with pytest.raises(PlacementFailed, match="too old"):
        launch(home)


# ---------------------------------------------------------------- reading it


def test_a_call_its_answer_and_what_it_changed_are_read() -> None:
    entries = read(CALL, FAILED, PATCHED, DENIED, result())
    assert [str(entry.kind) for entry in entries] == [
        "tool_call",
        "tool_result",
        "tool_result",
        "file_change",
        "tool_result",
        "permission_denied",
        "result",
    ]
    assert entries[0].data == {"id": "c1", "tool": "bash", "arguments": {"command": "ls"}}
    assert entries[1].data == {"id": "c1", "is_error": True}
    assert entries[3].data == {"path": "/repo/a", "change": "add"}
    made = account(CALL, FAILED, PATCHED, DENIED, result())
    assert (made.files, made.failed_calls, made.session_id) == (("/repo/a",), 2, "6f1a")
    assert (made.input, made.output, made.cost_usd) == (None, None, None)


@pytest.mark.parametrize("stream", streams.every("copilot"), ids=str)
def test_of_what_it_was_heard_to_say_nothing_is_unknown(stream: streams.Stream) -> None:
    told = [entry for entry in read(*stream.lines) if entry.kind is EntryKind.UNKNOWN]
    assert [entry.text for entry in told if not entry.text.startswith("Operation cancelled")] == []


def test_a_recorded_run_has_its_answer_and_its_model() -> None:
    made = account(*streams.load("copilot", "work").lines)
    assert (made.answer, made.model) == ("All is done.", "gpt-5.4")
    assert made.tool_calls > 3
    assert any(path.endswith("made.txt") for path in made.files)


@pytest.mark.parametrize("text", [b"", b"{", b'{"type":"news"}', b'{"type":7}'])
def test_what_it_does_not_know_is_unknown(text: bytes) -> None:
    assert [entry.kind for entry in COPILOT.read(text)] == [EntryKind.UNKNOWN]


# ---------------------------------------------------------------- judging it


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
        ("invalid", Outcome.FAILED, Ending.API_ERROR),
    ],
)
def test_a_recorded_run_ends_as_it_did(case: str, outcome: Outcome, ending: Ending | None) -> None:
    stream = streams.load("copilot", case)
    verdict = COPILOT.verdict(record(code=stream.code, signal=stream.signal), stream.output)
    assert (verdict.outcome, verdict.ending) == (outcome, ending), verdict
    assert verdict.usage is None


def test_one_that_was_told_to_end_has_not_finished_although_it_says_so() -> None:
    abort = line("abort", reason="user_abort")
    verdict = COPILOT.verdict(record(), b"\n".join((CALL, abort, result())))
    assert (verdict.outcome, verdict.ending) == (Outcome.FAILED, Ending.KILLED)
    assert COPILOT.verdict(record(stopped=True), b"\n".join((abort, result()))).outcome is Outcome.STOPPED


def test_exit_code_0_without_a_result_has_failed_and_so_has_a_result_that_says_so() -> None:
    assert COPILOT.verdict(record(), CALL).outcome is Outcome.FAILED
    assert COPILOT.verdict(record(), result(1)).outcome is Outcome.FAILED
