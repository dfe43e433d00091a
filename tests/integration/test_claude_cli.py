"""The claude harness with the real Claude Code: its command is run as it is, its stream read, its run judged.

What a deploy adds around it (runner, registry, the real MCP door) is tested in acceptance.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Effort, Options
from headcount.harnesses.base import Verdict
from headcount.harnesses.catalogue import find
from tests.support import small_mcp
from tests.support.claude_cli import ClaudeCli, claude_cli, model_server
from tests.support.harness_facts import record, spec
from tests.support.model_server import ModelServer, Step, play
from tests.support.waiting import until

__all__ = ["claude_cli", "model_server"]  # fixtures
pytestmark = pytest.mark.harnesses

CLAUDE = find("claude")
REPORT: Step = {
    "mcp": {"server": "headcount", "tool": "update_agent_progress", "arguments": {"status": "working"}}
}


@dataclass
class Done:
    """What a run gave."""

    entries: Sequence[Entry]
    verdict: Verdict

    def texts(self, kind: EntryKind) -> Sequence[str]:
        return [entry.text for entry in self.entries if entry.kind is kind]


def start(cli: ClaudeCli, directory: Path, steps: Sequence[Step], *more: str) -> subprocess.Popen[bytes]:
    """Start Claude Code exactly as the harness says, in `directory`."""
    run_path = directory / "run"
    run_path.mkdir()
    launch = CLAUDE.command(
        spec(
            directory,
            prompt=f"Do as the script says. {play(steps)}",
            headcount=(sys.executable, "-I", str(small_mcp.__file__)),
            env=cli.env,
            options=Options(model="sonnet", effort=Effort.LOW),
            command=more,
        )
    )
    for name, content in launch.files.items():
        (run_path / name).write_bytes(content)
    env = {**cli.env, **launch.env, "HEADCOUNT_TOKEN": "its-token"}
    process = subprocess.Popen(
        launch.argv,
        cwd=directory,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(launch.stdin or b"")
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[bytes]) -> Done:
    out, _ = process.communicate(timeout=100)
    code, killed = (process.returncode, None) if process.returncode >= 0 else (None, -process.returncode)
    entries = [entry for line in out.splitlines() for entry in CLAUDE.read(line)]
    return Done(entries, CLAUDE.verdict(record(code=code, signal=killed), out))


def test_it_reports_edits_and_completes(
    claude_cli: ClaudeCli, model_server: ModelServer, tmp_path: Path
) -> None:
    steps: Sequence[Step] = [
        REPORT,
        {"text": "I write.", "write": {"path": "made.txt", "content": "by claude\n"}},
        {"text": "All done.", "usage": {"input_tokens": 7, "output_tokens": 3}},
    ]
    done = finish(start(claude_cli, tmp_path, steps))
    assert (done.verdict.outcome, done.texts(EntryKind.TEXT)) == (
        Outcome.COMPLETED,
        ["I write.", "All done."],
    )
    assert (tmp_path / "made.txt").read_text() == "by claude\n"
    assert done.verdict.result is not None
    assert done.verdict.result["text"] == "All done."
    assert done.verdict.usage is not None
    assert done.verdict.usage["output"] == 20 + 20 + 3
    assert (
        done.texts(EntryKind.TOOL_RESULT)[0] == '{"arguments": {"status": "working"}, "token": "its-token"}'
    )
    (session, *_) = done.entries
    assert session.data["session_id"] == done.verdict.result["session_id"]
    assert session.data["mcp_servers"] == {"headcount": "connected"}


def test_our_tools_are_there_at_once_and_peers_cannot_be_reached(
    claude_cli: ClaudeCli, model_server: ModelServer, tmp_path: Path
) -> None:
    finish(start(claude_cli, tmp_path, [REPORT, {"text": "Done."}]))
    first = model_server.asked[0]
    assert "mcp__headcount__update_agent_progress" in first.tools
    assert not {"SendMessage", "ListAgents"} & set(first.tools)
    assert first.key == "dummy"
    assert first.body["output_config"] == {"effort": "low"}
    assert "sonnet" in first.model


def test_an_api_error_has_failed_although_it_is_called_a_success(
    claude_cli: ClaudeCli, model_server: ModelServer, tmp_path: Path
) -> None:
    done = finish(start(claude_cli, tmp_path, [{"status": 401, "message": "no such key"}]))
    assert done.verdict.outcome is Outcome.FAILED
    assert "no such key" in done.verdict.reason
    assert done.verdict.result is not None
    assert done.verdict.result["api_error_status"] == 401
    assert len(model_server.asked) == 2  # it tried once more


def test_an_overloaded_model_is_seen_and_waited_for(
    claude_cli: ClaudeCli, model_server: ModelServer, tmp_path: Path
) -> None:
    done = finish(start(claude_cli, tmp_path, [{"status": 529, "times": 1, "text": "Better now."}]))
    assert len(done.texts(EntryKind.RATE_LIMITED)) == 1
    assert (done.verdict.outcome, done.texts(EntryKind.TEXT)) == (Outcome.COMPLETED, ["Better now."])


def test_what_was_denied_is_said_although_the_run_completes(
    claude_cli: ClaudeCli, model_server: ModelServer, tmp_path: Path
) -> None:
    done = finish(start(claude_cli, tmp_path, [{"bash": "echo x > /etc/x; cd /"}, {"text": "Well."}]))
    assert len(done.texts(EntryKind.PERMISSION_DENIED)) == 1
    assert done.verdict.result is not None
    assert done.verdict.result["permission_denials"] == ["Bash"]


def test_flags_behind_the_dashes_reach_it(
    claude_cli: ClaudeCli, model_server: ModelServer, tmp_path: Path
) -> None:
    steps: Sequence[Step] = [{"bash": "pwd"}, {"bash": "pwd"}, {"text": "never"}]
    done = finish(start(claude_cli, tmp_path, steps, "--max-turns", "1", "--strict-mcp-config"))
    assert done.verdict.outcome is Outcome.FAILED
    assert "maximum number of turns" in done.verdict.reason


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGKILL, "SIGKILL")])
def test_killed_in_the_middle_it_has_failed(
    number: int, reason: str, claude_cli: ClaudeCli, model_server: ModelServer, tmp_path: Path
) -> None:
    process = start(claude_cli, tmp_path, [{"gate": True, "text": "late"}])
    until(lambda: model_server.asked, what="the model is asked")
    process.send_signal(number)
    done = finish(process)
    assert done.verdict.outcome is Outcome.FAILED
    assert reason in done.verdict.reason
