"""The driver with an agent that speaks ACP: every branch of the conversation."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.account import Ending, Tally
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from tests.support.drivers import Drive, play
from tests.support.waiting import until


def answered(drive: Drive, number: int, kind: str, text: str = "") -> dict[str, Any]:
    done = drive.post(number, kind, text)
    until(done, what=f"letter {number} is answered")
    found = done()
    assert found is not None
    return found


def test_a_prompt_is_worked_on_and_its_answer_is_the_result(tmp_path: Path) -> None:
    path = tmp_path / "work" / "made.txt"
    drive = Drive(
        tmp_path, play({"think": "hm"}, {"say": "I write."}, {"edit": str(path)}, {"say": "All done."})
    )
    verdict = drive.end()
    assert (verdict.outcome, verdict.reason) == (Outcome.COMPLETED, "exit code 0")
    assert verdict.result is not None
    assert verdict.result["text"] == "All done."
    assert verdict.usage == {"input": 10, "output": 2}
    assert path.read_text() == "made\n"
    tally = Tally()
    for entry in drive.entries:
        tally.add(entry)
    account = tally.account()
    assert (account.answer, account.files, account.tool_calls) == ("All done.", (str(path),), 1)
    assert (account.input, account.output, account.unknown, account.model) == (10, 2, 0, "m1")
    assert account.session_id == verdict.result["session_id"]


def test_a_prompt_of_a_megabyte_arrives_whole(tmp_path: Path) -> None:
    drive = Drive(tmp_path, "ü" * 500_000 + "\n" + play({"say": "read"}))
    assert drive.end().outcome is Outcome.COMPLETED
    session = next(tmp_path.glob("session-*"))
    assert len(json.loads(session.read_text())[1][1]) > 500_000


def test_our_server_and_the_model_reach_the_agent(tmp_path: Path) -> None:
    server = {"name": "headcount", "command": "/bin/hc", "args": ["mcp"], "env": []}
    drive = Drive(tmp_path, play({"say": "x"}), mcp_servers=[server], model="m2")
    assert drive.end().outcome is Outcome.COMPLETED
    kept = json.loads(next(tmp_path.glob("session-*")).read_text())
    ours = [{"name": name, "value": value} for name, value in os.environ.items() if "HEADCOUNT_" in name]
    assert kept[0] == {"cwd": str(tmp_path / "work"), "mcpServers": [{**server, "env": ours}]}
    assert kept[1] == ["model", "m2"]


# ---------------------------------------------------------------- an earlier conversation


def test_an_earlier_conversation_goes_on_and_its_replay_is_not_this_runs_work(tmp_path: Path) -> None:
    first = Drive(tmp_path, play({"say": "one"}))
    session = (first.end().result or {})["session_id"]
    second = Drive(tmp_path, play({"say": "two"}), resume=session)
    verdict = second.end()
    assert verdict.result == {"text": "two", "session_id": session}
    assert b"of old" not in second.output
    assert [entry.text for entry in second.entries if entry.kind is EntryKind.TEXT] == ["tw", "o"]


@pytest.mark.parametrize(
    ("option", "resume", "ending", "words"),
    [
        ("no-load", "s", Ending.ERROR, "cannot go on with an earlier conversation"),
        ("x", "s", Ending.ERROR, "session/load failed: Internal error: no such session"),
        ("no-login", None, Ending.AUTH_FAILED, "session/new failed: Authentication required"),
        ("old", None, Ending.ERROR, "speaks version 99"),
    ],
)
def test_a_conversation_that_cannot_begin_fails_with_the_reason(
    option: str, resume: str | None, ending: Ending, words: str, tmp_path: Path
) -> None:
    verdict = Drive(tmp_path, play({"say": "x"}), option, resume=resume).end()
    assert (verdict.outcome, verdict.ending) == (Outcome.FAILED, ending)
    assert words in verdict.reason


# ---------------------------------------------------------------- how a turn ends


@pytest.mark.parametrize(
    ("step", "ending", "words"),
    [
        ({"stop": "max_tokens"}, Ending.TOKEN_LIMIT, "limit of tokens"),
        ({"stop": "max_turn_requests"}, Ending.TURN_LIMIT, "limit of turns"),
        ({"stop": "refusal"}, Ending.REFUSED, "refused"),
        ({"stop": "cancelled"}, Ending.ERROR, "cancelled its turn"),
        ({"stop": "boredom"}, Ending.ERROR, "boredom"),
        ({"error": {"code": 500, "message": "HTTP 401: no such key"}}, Ending.AUTH_FAILED, "no such key"),
        ({"error": {"code": 500, "message": "429 slow down"}}, Ending.RATE_LIMITED, "slow down"),
        ({"error": {"code": 500, "message": "500"}}, Ending.API_ERROR, "500"),
        ({"error": "nonsense"}, Ending.ERROR, "nonsense"),
        ({"crash": 7}, Ending.ERROR, "exit code 7"),
        ({"crash": 0}, Ending.ERROR, "exit code 0"),
    ],
    ids=str,
)
def test_a_turn_that_ends_badly_is_a_failure_with_its_reason(
    step: dict[str, Any], ending: Ending, words: str, tmp_path: Path
) -> None:
    drive = Drive(tmp_path, play({"say": "so far"}, step))
    verdict = drive.end()
    assert (verdict.outcome, verdict.ending) == (Outcome.FAILED, ending)
    assert words in verdict.reason
    assert drive.process.returncode != 0


def test_lines_that_are_no_messages_are_passed_on_and_survived(tmp_path: Path) -> None:
    raw = [
        "Welcome!",
        "{",
        "[]",
        '{"jsonrpc": "2.0", "id": 77, "result": {}}',
        "{}",
        '{"method": 3}',
        "\udcff",
    ]
    raw += ['{"jsonrpc": "2.0", "method": "session/update", "params": {"update": {"sessionUpdate": "new"}}}']
    raw += ["x" * 2_000_000]
    drive = Drive(tmp_path, play(*({"raw": each} for each in raw), {"say": "done"}))
    assert drive.end().outcome is Outcome.COMPLETED
    lines = drive.output.splitlines()
    assert {b"Welcome!", b"{", b"\xff", b"x" * 2_000_000} <= set(lines)
    assert sum(entry.kind is EntryKind.UNKNOWN for entry in drive.entries) == 8


def test_what_the_client_cannot_do_is_refused(tmp_path: Path) -> None:
    drive = Drive(tmp_path, play({"ask": "fs/read_text_file"}))
    assert "not supported" in str((drive.end().result or {})["text"])


def test_an_agent_that_does_not_end_is_ended_after_its_work(tmp_path: Path) -> None:
    drive = Drive(tmp_path, play({"say": "done"}), "stubborn")
    verdict = drive.end()
    assert (verdict.outcome, verdict.reason) == (Outcome.COMPLETED, "exit code 0")


# ---------------------------------------------------------------- permissions


SHELL = {"shell": "echo ran"}


@pytest.mark.parametrize(
    ("permissions", "allowed", "denied", "may_edit", "may_run"),
    [
        ("read", [], [], False, False),
        ("edit", [], [], True, False),
        ("bypass", [], [], True, True),
        ("bypass", [], ["shell"], True, False),
        ("edit", ["shell(echo)"], [], True, True),
        ("edit", ["shell(rm)"], [], True, False),
        ("edit", ["shell"], ["shell(echo ran)"], True, False),
        ("read", ["edit"], [], True, False),
        ("edit", [], ["edit"], False, False),
    ],
)
def test_what_the_agent_asks_for_is_decided_by_its_permissions(
    permissions: str, allowed: list[str], denied: list[str], may_edit: bool, may_run: bool, tmp_path: Path
) -> None:
    path = tmp_path / "work" / "made.txt"
    prompt = play({"edit": str(path)}, SHELL, {"say": "done"})
    drive = Drive(tmp_path, prompt, permissions=permissions, allowed_tools=allowed, denied_tools=denied)
    assert drive.end().outcome is Outcome.COMPLETED
    assert path.exists() == may_edit
    results = [entry.text for entry in drive.entries if entry.kind is EntryKind.TOOL_RESULT]
    assert ("ran\n" in results) == may_run
    denials = [entry for entry in drive.entries if entry.kind is EntryKind.PERMISSION_DENIED]
    assert len(denials) == (not may_edit) + (not may_run)


@pytest.mark.parametrize("path", ["/etc/nothing-of-ours", "../outside.txt"])
def test_files_outside_its_directory_it_may_not_edit(path: str, tmp_path: Path) -> None:
    drive = Drive(tmp_path, play({"edit": path}, {"say": "done"}))
    assert drive.end().outcome is Outcome.COMPLETED
    assert drive.said("denied")


@pytest.mark.parametrize(("allow", "state"), [(True, "allowed"), (False, "denied")])
def test_a_person_decides_where_permissions_are_ask(allow: bool, state: str, tmp_path: Path) -> None:
    drive = Drive(tmp_path, play(SHELL, {"say": "done"}), permissions="ask")
    asked = drive.wait_said("asked")
    question = json.loads((drive.run_path / "asks" / f"{asked['id']}.json").read_text())
    assert (question["kind"], question["arguments"]) == ("execute", {"command": "echo ran"})
    assert question["expires_at"] == pytest.approx(question["asked_at"] + 60)
    drive.put("asks", f"{asked['id']}.answer", allow=allow, by="person", reason="so be it")
    assert drive.end().outcome is Outcome.COMPLETED
    closed = json.loads((drive.run_path / "asks" / f"{asked['id']}.done").read_text())
    assert (closed["state"], closed["by"], closed["reason"]) == (state, "person", "so be it")
    assert bool(drive.said("denied")) != allow


def test_a_question_that_nobody_answers_is_denied_and_says_so(tmp_path: Path) -> None:
    drive = Drive(tmp_path, play(SHELL, {"say": "done"}), permissions="ask", ask_expiry=0.1)
    assert drive.end().outcome is Outcome.COMPLETED
    assert json.loads((drive.run_path / "asks" / "1.done").read_text())["state"] == "expired"
    assert drive.said("denied")[0]["why"] == "nobody answered in time"


def test_a_question_can_be_answered_by_a_letter(tmp_path: Path) -> None:
    drive = Drive(tmp_path, play(SHELL, {"wait_for": str(tmp_path / "go")}), permissions="ask")
    drive.wait_said("asked")
    drive.post(1, "answer", ask="9", allow=True)
    done = drive.post(2, "answer", "go on", ask="1", allow=True, sender="parent-1")
    until(done, what="it is answered")
    assert json.loads((drive.run_path / "inbox" / "1.done").read_text())["state"] == "failed"
    assert drive.said("allowed")[0]["why"] == "answered by parent-1: go on"
    (tmp_path / "go").touch()
    assert drive.end().outcome is Outcome.COMPLETED


# ---------------------------------------------------------------- letters


@pytest.mark.parametrize("manner", ["queue", "replace", "late", "refuse"])
def test_a_message_in_the_middle_of_a_turn_reaches_the_agent(manner: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    drive = Drive(tmp_path, play({"say": "first"}, {"wait_for": str(go)}), manner)
    until(lambda: b"rst" in drive.output, what="it is at work")
    done = drive.post(1, "message", play({"say": "second"}), sender=None)
    if manner == "refuse":
        until(lambda: b"a turn goes on" in drive.output, what="it is refused")
    if manner not in ("replace", "late"):
        go.touch()
    verdict = drive.end()
    assert done() == {"id": "1", "state": "delivered", "reason": ""}
    assert (verdict.outcome, (verdict.result or {})["text"]) == (Outcome.COMPLETED, "second")


def test_messages_are_taken_in_their_order(tmp_path: Path) -> None:
    inbox = tmp_path / "run" / "inbox"
    inbox.mkdir(parents=True)
    for number in (10, 9, 2):
        letter = {"id": number, "kind": "message", "text": f"number {number}"}
        (inbox / f"{number}.json").write_text(json.dumps(letter))
    drive = Drive(tmp_path, play({"say": "first"}))
    verdict = drive.end()
    assert verdict.outcome is Outcome.COMPLETED
    assert [each["id"] for each in drive.said("message")] == ["2", "9", "10"]
    assert "number 2\n\nnumber 9\n\nnumber 10" in str((verdict.result or {})["text"])
    assert sorted(path.name for path in inbox.glob("*.done")) == ["10.done", "2.done", "9.done"]


def test_a_letter_that_cannot_be_read_is_answered(tmp_path: Path) -> None:
    drive = Drive(tmp_path, play({"wait_for": str(tmp_path / "go")}))
    assert answered(drive, 1, "love")["state"] == "failed"
    assert answered(drive, 2, "end")["state"] == "delivered"
    drive.end()


def test_a_cancelled_turn_ends_the_run_as_stopped_and_withdraws_what_it_asked(tmp_path: Path) -> None:
    drive = Drive(tmp_path, play({"say": "so far"}, SHELL), permissions="ask")
    drive.wait_said("asked")
    assert answered(drive, 1, "cancel")["state"] == "delivered"
    verdict = drive.end()
    assert (verdict.outcome, verdict.ending) == (Outcome.STOPPED, Ending.STOPPED)
    assert json.loads((drive.run_path / "asks" / "1.done").read_text())["state"] == "withdrawn"


def test_a_message_after_a_cancel_goes_on_with_the_conversation(tmp_path: Path) -> None:
    drive = Drive(tmp_path, play({"say": "first"}, {"wait_for": str(tmp_path / "never")}))
    until(lambda: b"rst" in drive.output, what="it is at work")
    drive.put("inbox", "2.json", id=2, kind="message", text=play({"say": "second"}))
    drive.put("inbox", "1.json", id=1, kind="cancel")
    verdict = drive.end()
    assert (verdict.outcome, (verdict.result or {})["text"]) == (Outcome.COMPLETED, "second")


@pytest.mark.parametrize("option", ["x", "stubborn", "silent"])
def test_told_to_end_it_cancels_the_turn_and_ends_the_agent(option: str, tmp_path: Path) -> None:
    drive = Drive(tmp_path, play({"say": "first"}, {"hang": True}), option)
    if option != "silent":
        until(lambda: b"rst" in drive.output, what="it is at work")
    else:
        until((drive.run_path / "inbox").exists, what="it is there")
    drive.process.send_signal(signal.SIGTERM)
    verdict = drive.end()
    assert verdict.outcome is Outcome.STOPPED
    assert drive.process.returncode != 0


def test_it_stays_small(tmp_path: Path) -> None:
    go = tmp_path / "go"
    drive = Drive(tmp_path, play({"say": "first"}, {"wait_for": str(go)}))
    until(lambda: b"rst" in drive.output, what="it is at work")
    status = Path(f"/proc/{drive.process.pid}/smaps_rollup").read_text()
    private = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("Private_"))
    go.touch()
    drive.end()
    assert private < 12_000, f"{private} kB of its own"
    assert os.listdir(drive.run_path / "inbox") == []
