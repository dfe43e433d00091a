"""OpenCode: its flags and configuration, its stream as it was recorded, and what its last words mean."""

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
from tests.support import streams
from tests.support.harness_facts import program, record, spec

OPENCODE = find("opencode")


def launch(tmp_path: Path, **given: object) -> Launch:
    program(tmp_path, "opencode")
    env = {"PATH": str(tmp_path / "bin"), **given.pop("more_env", {})}  # type: ignore[dict-item]
    return OPENCODE.command(spec(tmp_path, env=env, **given))


def config(made: Launch) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.env["OPENCODE_CONFIG_CONTENT"])
    return found


def rules(tmp_path: Path, **options: Any) -> list[tuple[str, object]]:
    """Return what it may do, in the order that counts."""
    return list(config(launch(tmp_path, options=Options(**options)))["permission"].items())


def entries(case: str) -> list[Entry]:
    return [entry for line in streams.load("opencode", case).lines for entry in OPENCODE.read(line)]


def account(case: str) -> Account:
    tally = Tally()
    for entry in entries(case):
        tally.add(entry)
    return tally.account(before={})


# ---------------------------------------------------------------- starting it


def test_it_is_started_headless_with_the_prompt_on_stdin(tmp_path: Path) -> None:
    made = launch(tmp_path, prompt="-- fix {this}", options=Options(model="house/m"), command=("--pure",))
    assert made.argv == (
        str(tmp_path / "bin" / "opencode"),
        "run",
        "--format=json",
        "--thinking",
        "--auto",
        "--model=house/m",
        "--pure",
    )
    assert made.stdin == b"-- fix {this}"


def test_our_server_is_named_in_its_environment_and_nothing_secret(tmp_path: Path) -> None:
    server = config(launch(tmp_path, headcount=("/py", "-m", "headcount")))["mcp"]["headcount"]
    assert (server["type"], server["command"]) == ("local", ["/py", "-m", "headcount", "mcp"])
    assert "environment" not in server


def test_permissions_are_its_rules_and_hold_for_its_agent_too(tmp_path: Path) -> None:
    assert rules(tmp_path) == [
        ("headcount_*", "allow"),
        ("edit", "allow"),
        ("bash", "deny"),
        ("external_directory", "deny"),
    ]
    assert ("edit", "deny") in rules(tmp_path, permissions=Permissions.READ)
    assert ("task", "deny") in rules(tmp_path, permissions=Permissions.READ)
    assert {action for _, action in rules(tmp_path, permissions=Permissions.BYPASS)} == {"allow"}
    found = config(launch(tmp_path))
    assert found["agent"]["build"]["permission"] == found["permission"]
    assert found["default_agent"] == "build"


def test_rules_about_tools_come_after_and_what_is_denied_last(tmp_path: Path) -> None:
    found = dict(
        rules(tmp_path, allowed_tools=("shell(git log)", "web"), denied_tools=("shell(git log -p)",))
    )
    assert list(found["bash"].items()) == [  # type: ignore[attr-defined]
        ("*", "deny"),
        ("git log *", "allow"),
        ("git log -p *", "deny"),
    ]
    assert (found["webfetch"], found["websearch"]) == ("allow", "allow")
    assert ("bash", "allow") in rules(tmp_path, allowed_tools=("shell",))
    assert rules(tmp_path, denied_tools=("todowrite",))[-1] == ("todowrite", "deny")
    with pytest.raises(InvalidInput, match="no rule"):
        rules(tmp_path, allowed_tools=("bash(git *)",))


def test_a_system_prompt_is_a_file_beside_the_users_own(tmp_path: Path) -> None:
    given = json.dumps({"instructions": ["mine.md"], "provider": {"house": {"x": 1}}})
    made = launch(tmp_path, options=Options(system_prompt="Bé."), more_env={"OPENCODE_CONFIG_CONTENT": given})
    assert config(made)["instructions"] == ["mine.md", str(tmp_path / "run" / "opencode-system.md")]
    assert config(made)["provider"] == {"house": {"x": 1}}
    assert made.files == {"opencode-system.md": "Bé.".encode()}


def test_the_callers_configuration_counts_less_than_ours(tmp_path: Path) -> None:
    given = json.dumps({"permission": {"bash": "allow", "webfetch": "deny"}, "mcp": {"mine": {}}})
    found = config(launch(tmp_path, more_env={"OPENCODE_CONFIG_CONTENT": given}))
    assert (found["permission"]["bash"], found["permission"]["webfetch"]) == ("deny", "deny")
    assert set(found["mcp"]) == {"mine", "headcount"}


def test_a_child_does_not_inherit_what_its_parent_was_told(tmp_path: Path) -> None:
    options = Options(system_prompt="For the parent.", denied_tools=("web",))
    parent = launch(tmp_path, options=options).env["OPENCODE_CONFIG_CONTENT"]
    child = config(launch(tmp_path, more_env={"OPENCODE_CONFIG_CONTENT": parent}))
    assert child["permission"] == config(launch(tmp_path))["permission"]
    assert child["instructions"] == []


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="OPENCODE_CONFIG_CONTENT"):
        launch(tmp_path, more_env={"OPENCODE_CONFIG_CONTENT": "{ // mine\n}"})


def test_the_session_that_deploys_is_not_taken_for_its_own(tmp_path: Path) -> None:
    made = launch(tmp_path, more_env={"OPENCODE_PID": "7", "OPENCODE_DISABLE_AUTOUPDATE": "0"})
    assert made.env["OPENCODE_PID"] == ""
    assert "OPENCODE_DISABLE_AUTOUPDATE" not in made.env
    assert launch(tmp_path).env["OPENCODE_DISABLE_AUTOUPDATE"] == "1"


def test_a_conversation_is_resumed_by_its_name_headless_and_by_a_person(tmp_path: Path) -> None:
    session = Session("ses_1", resumed=True)
    assert launch(tmp_path, session=session).argv[-1] == "--session=ses_1"
    made = OPENCODE.interactive(spec(tmp_path, session=session))
    assert made.argv == (str(tmp_path / "bin" / "opencode"), "--session=ses_1")
    assert "headcount" in config(made)["mcp"]


def test_a_model_without_its_provider_is_refused(tmp_path: Path) -> None:
    for model in ("gpt-5.4", "/m", "house/"):
        with pytest.raises(InvalidInput, match="no model") as caught:
            launch(tmp_path, options=Options(model=model))
        assert "opencode models" in caught.value.hint


def test_a_missing_one_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(PlacementFailed, match="opencode") as caught:
        OPENCODE.command(spec(tmp_path))
    assert "npm install" in caught.value.hint


# ---------------------------------------------------------------- reading it


@pytest.mark.parametrize("stream", streams.every("opencode"), ids=str)
def test_all_that_it_was_heard_to_say_is_known(stream: streams.Stream) -> None:
    said = [entry for line in stream.lines for entry in OPENCODE.read(line)]
    unknown = [entry for entry in said if entry.kind is EntryKind.UNKNOWN]
    assert [entry.data for entry in unknown] in ([], [{"role": "user"}])
    assert not said or said[0].kind is EntryKind.SESSION


def test_a_run_at_work_is_read_whole() -> None:
    made = account("work")
    assert made.files == ("/work/made.txt", "/work/old.txt")
    assert (made.session_id, made.answer) == ("ses_0000000000000000000001", "All is done.")
    assert made.cost_usd is None  # its model has no price
    assert made.tool_calls >= 5


def test_tokens_are_counted_as_everywhere() -> None:
    tokens = {"input": 40, "output": 5, "reasoning": 4, "cache": {"read": 10, "write": 3}}
    part = {"type": "step-finish", "reason": "stop", "tokens": tokens, "cost": 0.5}
    line = json.dumps({"type": "step_finish", "sessionID": "s", "part": part}).encode()
    used, _ = OPENCODE.read(line)
    assert used.data == {
        "input": 53,
        "output": 9,
        "cached": 10,
        "reasoning": 4,
        "cost_usd": 0.5,
        "scope": "step",
    }


def test_a_call_that_a_rule_denies_is_a_denial() -> None:
    words = "The user has specified a rule which prevents you from using this specific tool call. Here ..."
    state = {"status": "error", "input": {"command": "x"}, "error": words}
    part = {"type": "tool", "tool": "bash", "callID": "c", "state": state}
    kinds = [each.kind for each in OPENCODE.read(json.dumps({"type": "tool_use", "part": part}).encode())]
    assert kinds == [EntryKind.TOOL_CALL, EntryKind.PERMISSION_DENIED, EntryKind.TOOL_RESULT]


# ---------------------------------------------------------------- judging it


@pytest.mark.parametrize(
    ("case", "outcome", "ending"),
    [
        ("work", Outcome.COMPLETED, None),
        ("resumed", Outcome.COMPLETED, None),
        ("limited-once", Outcome.COMPLETED, None),
        ("invalid", Outcome.COMPLETED, None),  # it made its memory shorter and went on
        ("limited", Outcome.FAILED, Ending.RATE_LIMITED),
        ("unauthorised", Outcome.FAILED, Ending.AUTH_FAILED),
        ("broken", Outcome.FAILED, Ending.API_ERROR),
        ("cut", Outcome.FAILED, Ending.API_ERROR),
        ("max-tokens", Outcome.FAILED, Ending.TOKEN_LIMIT),
        ("refusal", Outcome.FAILED, Ending.REFUSED),
        ("terminated", Outcome.FAILED, None),
    ],
)
def test_how_it_ended_is_known(case: str, outcome: Outcome, ending: Ending | None) -> None:
    stream = streams.load("opencode", case)
    verdict = OPENCODE.verdict(record(code=stream.code, signal=stream.signal), stream.output)
    assert (verdict.outcome, verdict.ending) == (outcome, ending), verdict


def test_an_end_in_the_middle_of_its_work_is_no_success() -> None:
    part = {"reason": "tool-calls", "tokens": {"input": 1, "output": 1}}
    line = json.dumps({"type": "step_finish", "sessionID": "s", "part": part}).encode()
    assert OPENCODE.verdict(record(), line).outcome is Outcome.FAILED
    assert OPENCODE.verdict(record(), b"").reason == "ended without a result (exit code 0)"


def test_what_it_used_is_not_guessed_from_a_part_of_its_output() -> None:
    output = streams.load("opencode", "work").output
    whole = OPENCODE.verdict(record(output_bytes=len(output)), output)
    assert whole.usage is not None
    assert whole.usage["output"] == account("work").output
    assert OPENCODE.verdict(record(output_bytes=len(output) + 1), output).usage is None
