"""One suite over every harness: whatever a program writes and however it ends, it can be read and judged.

Those of other packages are tested by name: HARNESSES="parrot" pytest tests/contract/test_harnesses.py
"""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Effort, Options
from headcount.harnesses.base import Harness
from headcount.harnesses.catalogue import find, names
from tests.support.examples import few
from tests.support.harness_facts import program, record, spec

NAMES = tuple(os.environ.get("HARNESSES", "").split()) or names()
every_harness = pytest.mark.parametrize("harness", [find(name) for name in NAMES], ids=NAMES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
stream_words = st.sampled_from(
    ["system", "assistant", "user", "result", "session", "text", "tool_call", "tool_result", "error", "init"]
)
stream_keys = st.sampled_from(
    [
        "subtype",
        "message",
        "content",
        "is_error",
        "errors",
        "usage",
        "result",
        "text",
        "mcp_servers",
        "error",
        "failed",
    ]
)
stream_objects = st.builds(
    lambda kind, facts: {"type": kind, **facts},
    stream_words,
    st.dictionaries(stream_keys, json_values | stream_words, max_size=5)
    | st.builds(lambda blocks: {"message": {"content": blocks}}, st.lists(json_values)),
)
lines = (
    st.binary(max_size=300)
    | (stream_objects | json_values).map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [
            b"",
            b"{",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"type":"text","text":"\\ud800"}',
            b"{}",
            b"9" * 5000,
        ]
    )
)


@every_harness
@few
@given(line=lines)
def test_any_line_can_be_read_and_shown(harness: Harness, line: bytes) -> None:
    for entry in harness.read(line):
        assert isinstance(entry, Entry)
        assert isinstance(entry.kind, EntryKind)
        entry.text.encode()
        json.dumps(dict(entry.data), allow_nan=False, ensure_ascii=False).encode()


@every_harness
@few
@given(
    tail=st.binary(max_size=200) | st.lists(lines, max_size=4).map(b"\n".join),
    end=st.sampled_from(
        [
            {},
            {"code": 3},
            {"code": 143},
            {"code": None, "signal": 9},
            {"code": None, "signal": 250},
            {"stopped": True},
        ]
    ),
)
def test_any_end_can_be_judged(harness: Harness, tail: bytes, end: dict[str, object]) -> None:
    verdict = harness.verdict(record(**end), tail)
    assert isinstance(verdict.outcome, Outcome)
    assert verdict.reason
    json.dumps([verdict.reason, verdict.result, verdict.usage], allow_nan=False)


@every_harness
def test_a_run_that_was_asked_to_stop_is_stopped_even_with_exit_code_0(harness: Harness) -> None:
    assert harness.verdict(record(stopped=True), b"").outcome is Outcome.STOPPED
    assert harness.verdict(record(stopped=True, code=None, signal=9), b"").outcome is Outcome.STOPPED


@every_harness
def test_a_program_that_never_began_is_start_failed_with_the_reason(harness: Harness) -> None:
    verdict = harness.verdict(record(code=None, error="no such directory"), b"")
    assert (verdict.outcome, verdict.reason) == (Outcome.START_FAILED, "no such directory")


@every_harness
def test_a_killed_program_has_failed_and_the_signal_is_named(harness: Harness) -> None:
    verdict = harness.verdict(record(code=None, signal=9), b"")
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "killed by SIGKILL")


@every_harness
def test_no_secret_reaches_the_command_line_or_a_file(harness: Harness, tmp_path: Path) -> None:
    programs = [harness.probe.program] if harness.probe else []
    for name in {*names(), *programs, "node", "tool"}:
        program(tmp_path, name)
    command = ("tool",) if harness.needs_command else ()
    env = {"PATH": str(tmp_path / "bin"), "HEADCOUNT_TOKEN": "s3cret", "ANTHROPIC_API_KEY": "s3cret"}
    env |= {"GEMINI_API_KEY": "s3cret", "OPENAI_API_KEY": "s3cret", "COPILOT_GITHUB_TOKEN": "s3cret"}
    launch = harness.command(spec(tmp_path, command=command, env=env))
    assert "s3cret" not in repr(launch)


def test_an_unknown_harness_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        find("x" * 1000)
    assert len(caught.value.message) < 200
    assert all(name in caught.value.hint for name in ("claude", "command", "script"))


# ---------------------------------------------------------------- command


def test_a_command_is_run_as_it_is_with_the_raw_prompt_on_stdin(tmp_path: Path) -> None:
    found = program(tmp_path, "tool")
    launch = find("command").command(spec(tmp_path, command=("tool", "$(a b)", "{}"), prompt="do {it} ünd"))
    assert launch.argv == (str(found), "$(a b)", "{}")
    assert launch.stdin == "do {it} ünd".encode()


def test_a_command_may_have_no_prompt(tmp_path: Path) -> None:
    program(tmp_path, "tool")
    assert find("command").command(spec(tmp_path, command=("tool",))).stdin is None


def test_a_relative_command_begins_in_the_agents_directory(tmp_path: Path) -> None:
    found = program(tmp_path, "tool")
    assert find("command").command(spec(tmp_path, command=("bin/tool",))).argv == (str(found),)


def test_a_command_that_is_not_there_fails_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    for name in ("missing", "./missing"):
        with pytest.raises(PlacementFailed, match="missing") as caught:
            find("command").command(spec(tmp_path, command=(name,)))
        assert caught.value.hint


def test_a_command_that_cannot_be_executed_fails_at_once(tmp_path: Path) -> None:
    path = program(tmp_path, "tool", mode=0o644)
    with pytest.raises(PlacementFailed, match="not executable") as caught:
        find("command").command(spec(tmp_path, command=(str(path),)))
    assert "chmod +x" in caught.value.hint
    with pytest.raises(PlacementFailed, match="directory"):
        find("command").command(spec(tmp_path, command=(str(tmp_path),)))


@pytest.mark.parametrize("command", [(), ("",), ("tool", "a\0b"), ("tool", "\ud800")])
def test_a_command_without_words_or_with_a_nul_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    program(tmp_path, "tool")
    with pytest.raises(InvalidInput):
        find("command").command(spec(tmp_path, command=command))


def test_the_exit_code_of_a_command_is_its_verdict() -> None:
    assert find("command").verdict(record(), b"").outcome is Outcome.COMPLETED
    verdict = find("command").verdict(record(code=3), b"")
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "exit code 3")
    assert "SIGTERM" in find("command").verdict(record(code=143), b"").reason


# ---------------------------------------------------------------- refused by the words alone


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("command", {"command": ()}),
        ("command", {"command": ("a\0b",)}),
        ("command", {"command": ("cat",), "prompt": "\ud800"}),
        ("script", {"prompt": "fix the bug"}),
        ("script", {"prompt": "[]", "command": ("steps.json",)}),
        ("script", {"command": ("a.json", "b.json")}),
        ("claude", {"command": ("--max-turns", "\0")}),
        ("claude", {"prompt": "\udfff"}),
    ],
)
def test_what_can_never_start_is_refused_before_anything_is_reserved(
    name: str, asked: dict[str, object]
) -> None:
    facts: dict[str, object] = {"prompt": "", "command": (), "options": Options(), **asked}
    with pytest.raises(InvalidInput) as caught:
        find(name).check(**facts)  # type: ignore[arg-type]  # as above
    assert caught.value.hint


@every_harness
def test_what_can_start_is_not_refused(harness: Harness) -> None:
    harness.check(prompt="", command=("tool",), options=Options(model="m", effort=Effort.LOW))
