"""Pi: its flags, what it is held to, its stream (lines as 0.73.1 wrote them) and how its runs end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

PI = find("pi")


def argv(directory: Path, **given: object) -> tuple[str, ...]:
    program(directory, "pi")
    return PI.command(spec(directory, **given)).argv


def flag(directory: Path, name: str, **options: object) -> str | None:
    """Return the value of a flag, which stands behind it."""
    found = argv(directory, options=Options(**options))  # type: ignore[arg-type]  # as a test names them
    return found[found.index(name) + 1] if name in found else None


def policy(directory: Path, **options: object) -> Mapping[str, Any]:
    """Return what the guard goes by."""
    program(directory, "pi")
    asked = spec(directory, options=Options(**options))  # type: ignore[arg-type]  # as above
    first, _, code = PI.command(asked).files["guard.js"].partition(b"\n")
    assert b"export default function guard" in code
    found: Mapping[str, Any] = json.loads(first.removeprefix(b"const POLICY = ").removesuffix(b";"))
    return found


# ---------------------------------------------------------------- starting it


def test_pi_is_started_headless_with_the_prompt_on_stdin(tmp_path: Path) -> None:
    found = program(tmp_path, "pi")
    launch = PI.command(spec(tmp_path, prompt="@file -p {this}"))
    run = tmp_path / "run"
    assert launch.argv == (
        str(found),
        "-p",
        "--mode",
        "json",
        "--append-system-prompt",
        str(run / "system.md"),
        "--extension",
        str(run / "guard.js"),
        "--tools",
        "bash,edit,write,read,grep,find,ls",
    )
    assert launch.stdin == b"@file -p {this}"


def test_an_agent_without_mcp_is_told_which_commands_to_use_instead(tmp_path: Path) -> None:
    program(tmp_path, "pi")
    launch = PI.command(spec(tmp_path, options=Options(system_prompt="Be brief.")))
    told = launch.files["system.md"].decode()
    for words in ("no MCP tools", "headcount report", "headcount finding", "headcount spawn", "Be brief."):
        assert words in told


def test_model_and_effort_are_passed_as_they_are(tmp_path: Path) -> None:
    assert flag(tmp_path, "--model", model="house/m:1") == "house/m:1"
    assert flag(tmp_path, "--thinking", effort=Effort.XHIGH) == "xhigh"
    assert Effort.MAX not in PI.efforts


def test_a_conversation_is_resumed_by_its_id_and_a_new_one_has_pis_own(tmp_path: Path) -> None:
    assert argv(tmp_path, session=Session("01a2", resumed=True))[-2:] == ("--session", "01a2")
    assert "--session" not in argv(tmp_path)


def test_a_person_takes_the_conversation_over_held_to_the_same(tmp_path: Path) -> None:
    program(tmp_path, "pi")
    asked = spec(tmp_path, prompt="x", session=Session("01a2", resumed=True))
    launch, headless = PI.interactive(asked), PI.command(asked)
    assert launch.stdin is None
    assert launch.argv == (headless.argv[0], *headless.argv[4:])
    assert launch.files == headless.files


def test_what_stands_behind_the_dashes_is_added_to_pis_flags(tmp_path: Path) -> None:
    assert argv(tmp_path, command=("--provider", "house"))[-2:] == ("--provider", "house")


def test_a_pi_that_is_missing_or_too_old_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(PlacementFailed, match="pi") as caught:
        PI.command(spec(tmp_path))
    assert "npm install" in caught.value.hint
    (tmp_path / "package.json").write_text(json.dumps({"bin": {"pi": "x"}, "version": "0.12.0"}))
    with pytest.raises(PlacementFailed, match=r"0\.12\.0 is too old"):
        argv(tmp_path)


def test_a_pi_without_any_provider_is_refused_with_what_to_do(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    own = tmp_path / ".pi" / "agent"
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(PlacementFailed, match="not logged in") as caught:
        argv(tmp_path, env=env, cwd=str(work))
    assert "/login" in caught.value.hint
    assert argv(tmp_path, env={**env, "OPENAI_API_KEY": "x"}, cwd=str(work))
    own.mkdir(parents=True)
    (own / "auth.json").write_text("{}")
    with pytest.raises(PlacementFailed, match="not logged in"):
        argv(tmp_path, env=env, cwd=str(work))
    (own / "auth.json").write_text('{"anthropic": {}}')
    assert argv(tmp_path, env=env, cwd=str(work))
    assert argv(tmp_path, env={**env, "PI_CODING_AGENT_DIR": str(own)}, cwd=str(work))


# ---------------------------------------------------------------- what it is held to


def test_reading_offers_no_tool_that_writes(tmp_path: Path) -> None:
    assert flag(tmp_path, "--tools", permissions=Permissions.READ) == "bash,read,grep,find,ls"
    assert policy(tmp_path, permissions=Permissions.READ)["shell"] is False


def test_editing_is_held_to_the_directory_and_its_shell_to_our_commands(tmp_path: Path) -> None:
    held = policy(tmp_path)
    assert (held["write"], held["shell"], held["allowed"], held["denied"]) == ("here", False, [], [])


def test_bypass_is_held_to_nothing_but_what_is_denied(tmp_path: Path) -> None:
    program(tmp_path, "pi")
    launch = PI.command(spec(tmp_path, options=Options(permissions=Permissions.BYPASS)))
    assert not {"--tools", "--extension"} & set(launch.argv)
    assert "guard.js" not in launch.files
    held = policy(tmp_path, permissions=Permissions.BYPASS, denied_tools=("shell(git push)", "edit", "mine"))
    assert (held["write"], held["shell"], held["denied"]) == ("anywhere", True, [["git", "push"]])
    assert held["tools"] == ["edit", "write", "mine"]


def test_rules_about_tools_are_pis_tools_and_the_guards_prefixes(tmp_path: Path) -> None:
    rules = {"allowed_tools": ("shell(git log)", "mine"), "denied_tools": ("search",)}
    assert flag(tmp_path, "--tools", **rules) == "bash,edit,write,read,mine"
    assert policy(tmp_path, **rules)["allowed"] == [["git", "log"]]
    assert policy(tmp_path, allowed_tools=("shell",))["shell"] is True
    assert policy(tmp_path, allowed_tools=("shell",), denied_tools=("shell",))["shell"] is False


@pytest.mark.parametrize("rule", ["web", "shell(", "edit(src)"])
def test_a_rule_that_pi_cannot_keep_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInput):
        PI.check(prompt="", command=(), options=Options(denied_tools=(rule,)))


# ---------------------------------------------------------------- reading it


def one(**found: object) -> Entry:
    (entry,) = PI.read(json.dumps(found, separators=(",", ":")).encode())
    return entry


def message(stop: str = "stop", **given: object) -> bytes:
    facts = {
        "role": "assistant",
        "content": [{"type": "text", "text": "hello"}],
        "model": "m",
        "usage": {"input": 50, "output": 30, "cacheRead": 20, "cacheWrite": 5, "cost": {"total": 0.5}},
        "stopReason": stop,
        **given,
    }
    return json.dumps({"type": "message_end", "message": facts}, separators=(",", ":")).encode()


def account(*lines: bytes) -> Account:
    tally = Tally()
    for line in lines:
        for entry in PI.read(line):
            tally.add(entry)
    return tally.account(before={})


def test_what_came_from_a_cache_is_part_of_the_input() -> None:
    made = account(message(), message())
    assert (made.input, made.cached, made.output, made.cost_usd) == (150, 40, 60, 1.0)
    assert (made.model, made.turns) == ("m", 2)


def test_a_price_of_nothing_is_one_that_nobody_knows() -> None:
    made = account(message(usage={"input": 50, "output": 30, "cost": {"total": 0}}))
    assert (made.input, made.cached, made.cost_usd) == (50, None, None)


def test_a_message_that_failed_used_nothing_that_is_known() -> None:
    made = account(message("error", usage={"input": 0, "output": 0}, errorMessage="401 no"))
    assert (made.input, made.output, made.cost_usd, made.errors) == (None, None, None, 1)


def test_a_call_of_a_tool_that_our_guard_refused_was_denied() -> None:
    answer = {"content": [{"type": "text", "text": "not permitted here: this command"}]}
    line = {
        "type": "tool_execution_end",
        "toolCallId": "c",
        "toolName": "bash",
        "result": answer,
        "isError": True,
    }
    made = PI.read(json.dumps(line).encode())
    assert [each.kind for each in made] == [EntryKind.TOOL_RESULT, EntryKind.PERMISSION_DENIED]
    assert made[1].data == {"tool": "bash"}


def test_a_limit_that_is_waited_out_is_seen() -> None:
    facts = {"type": "auto_retry_start", "attempt": 1, "delayMs": 2000}
    limited = one(**facts, errorMessage="429 slow down")
    assert (limited.kind, limited.data) == (EntryKind.RATE_LIMITED, {"status": 429, "retry_after_s": 2.0})
    assert one(**facts, errorMessage="500 no").kind is EntryKind.UNKNOWN


# ---------------------------------------------------------------- judging it


def end(*messages: object) -> bytes:
    return json.dumps({"type": "agent_end", "messages": messages}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("stop", "words", "ending"),
    [
        ("error", "401 no such key", Ending.AUTH_FAILED),
        ("error", "403 not you", Ending.AUTH_FAILED),
        ("error", "429 slow down", Ending.RATE_LIMITED),
        ("error", "500 it is us", Ending.API_ERROR),
        ("error", "terminated", Ending.API_ERROR),
        ("error", "400 prompt is too long", Ending.TOKEN_LIMIT),
        ("error", "Provider finish_reason: content_filter", Ending.REFUSED),
        ("length", None, Ending.TOKEN_LIMIT),
    ],
)
def test_exit_code_0_after_a_message_that_failed_is_a_failure(stop: str, words: str, ending: Ending) -> None:
    tail = b"\n".join((message(stop, errorMessage=words), end({"role": "user"})))
    verdict = PI.verdict(record(), tail)
    assert (verdict.outcome, verdict.ending) == (Outcome.FAILED, ending)
    assert verdict.reason == (words or stop)


def test_exit_code_0_without_an_end_is_no_success() -> None:
    verdict = PI.verdict(record(), message("toolUse"))
    assert verdict.outcome is Outcome.FAILED
    assert "without a result" in verdict.reason


def test_what_it_does_about_its_memory_after_the_end_changes_nothing() -> None:
    tail = b"\n".join((message(), end({"role": "user"}), b'{"type":"compaction_start","reason":"threshold"}'))
    assert PI.verdict(record(), tail).outcome is Outcome.COMPLETED


@pytest.mark.parametrize(("stop", "outcome"), [("stop", Outcome.COMPLETED), ("error", Outcome.FAILED)])
def test_a_last_line_that_is_longer_than_the_tail_is_judged_by_its_end(stop: str, outcome: Outcome) -> None:
    long = {"role": "toolResult", "content": [{"type": "text", "text": '{"role":"assistant"}]}' * 50_000}]}
    last = {
        "role": "assistant",
        "content": [{"type": "text", "text": "the end"}],
        "stopReason": stop,
        "errorMessage": "500 no",
    }
    tail = end(long, last)[-256 * 1024 :] + b"\n"
    verdict = PI.verdict(record(), tail)
    assert verdict.outcome is outcome
    assert verdict.result is not None
    assert verdict.result["text"] == "the end"


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
    stream = streams.load("pi", case)
    verdict = PI.verdict(record(code=stream.code, signal=stream.signal), stream.output)
    assert (verdict.outcome, verdict.ending) == (outcome, ending)


def test_a_recorded_run_is_accounted_for() -> None:
    made = account(*streams.load("pi", "work").lines)
    assert (made.files, made.failed_calls, made.unknown) == (("/work/made.txt", "/work/old.txt"), 1, 0)
    assert (made.input, made.output, made.turns, made.answer) == (5070, 130, 6, "All is done.")
    assert made.session_id is not None
