"""The opencode harness with the real OpenCode, alone and deployed. It takes seconds to start: few runs."""

import json
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from headcount.domain.account import Ending
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Options, Permissions
from tests.support import harness_runs
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.daemons import Bridge
from tests.support.harness_deploys import deploy, door, ended, ours
from tests.support.harness_runs import REPORT, TOKEN
from tests.support.model_server import ModelServer, Step
from tests.support.waiting import until

__all__ = ["agent_cli", "door", "model_server"]  # fixtures

pytestmark = pytest.mark.harnesses

SHELL = Options(allowed_tools=("shell",))


@pytest.fixture
def cli(agent_cli: AgentClis) -> AgentCli:
    return agent_cli("opencode")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


# ---------------------------------------------------------------- alone


def test_it_reports_edits_runs_commands_and_completes(
    cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    used = {"input_tokens": 50, "output_tokens": 9, "cached_tokens": 10, "reasoning_tokens": 4}
    options = Options(
        model="house/gpt-5.4", system_prompt='Say "ü" \\o/.', allowed_tools=("shell(git)", "shell(echo)")
    )
    steps: list[Step] = [
        REPORT,
        {"think": "Hm.", "bash": "echo ran > ran.txt"},
        {"bash": "touch not-allowed.txt"},
        {"text": "I write.", "write": {"path": str(work / "made.txt"), "content": "by opencode\n"}},
        {"edit": {"path": str(work / "made.txt"), "old": "by opencode", "new": "by me"}},
        {"text": "All done.", "usage": used},
    ]
    done = harness_runs.run(cli, work, steps, options=options)
    assert (done.verdict.outcome, done.verdict.reason) == (Outcome.COMPLETED, "exit code 0")
    assert (work / "ran.txt").read_text() == "ran\n"
    assert (work / "made.txt").read_text() == "by me\n"
    assert not (work / "not-allowed.txt").exists()
    assert json.loads(done.texts(EntryKind.TOOL_RESULT)[0])["token"] == TOKEN
    account = done.account()
    assert done.verdict.result == {"text": "All done.", "session_id": account.session_id}
    assert (account.answer, account.files) == ("All done.", (str(work / "made.txt"),))
    assert (account.input, account.output) == (1000 * 5 + 50, 20 * 5 + 9)
    assert (account.cached, account.reasoning, account.cost_usd) == (10, 4, None)
    assert (account.tool_calls, account.failed_calls, account.denied) == (5, 1, ("bash",))
    assert (account.turns, account.unknown, account.errors) == (6, 0, 0)
    assert done.texts(EntryKind.REASONING) == ["Hm."]
    told = json.dumps(
        [asked.body["messages"][0] for asked in model_server.asked if asked.tools], ensure_ascii=False
    )
    assert json.dumps('Say "ü" \\o/.', ensure_ascii=False)[1:-1] in told


@pytest.mark.parametrize(
    ("permissions", "inside", "outside"),
    [(Permissions.READ, False, False), (Permissions.EDIT, True, False), (Permissions.BYPASS, True, True)],
)
def test_its_rules_hold_it_to_its_permissions_whatever_its_user_has_set(
    permissions: Permissions,
    inside: bool,
    outside: bool,
    cli: AgentCli,
    model_server: ModelServer,
    work: Path,
) -> None:
    own = {"permission": "allow" if permissions is not Permissions.BYPASS else "deny"}
    (work / "opencode.json").write_text(json.dumps({**own, "agent": {"build": own}}))
    with TemporaryDirectory(dir="/var/tmp") as elsewhere:
        out = Path(elsewhere) / "out.txt"
        steps: list[Step] = [
            REPORT,
            {"tool": {"name": "apply_patch", "input": {"patchText": added(work / "made.txt")}}},
            {"tool": {"name": "apply_patch", "input": {"patchText": added(out)}}},
            {"tool": {"name": "bash", "input": {"command": "echo ran > ran.txt", "description": "x"}}},
            {"text": "Done."},
        ]
        done = harness_runs.run(cli, work, steps, options=Options(permissions=permissions))
        assert done.verdict.outcome is Outcome.COMPLETED
        assert (work / "made.txt").exists() == inside
        assert (out.exists(), (work / "ran.txt").exists()) == (outside, outside)
        assert TOKEN in done.texts(EntryKind.TOOL_RESULT)[0]  # our own tools may be used in each


def added(path: Path) -> str:
    return f"*** Begin Patch\n*** Add File: {path}\n+x\n*** End Patch\n"


def test_a_resumed_conversation_remembers_and_is_counted_apart(
    cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    first = harness_runs.run(cli, work, [{"text": "First."}])
    before = first.account()
    assert before.session_id is not None
    second = harness_runs.run(cli, work, [{"text": "Second."}], resume=before.session_id)
    assert second.verdict.result == {"text": "Second.", "session_id": before.session_id}
    assert (before.output, second.account(before).output) == (20, 20)
    assert "First." in json.dumps(model_server.asked[-1].body["messages"])


@pytest.mark.parametrize(
    ("fault", "ending", "words"),
    [
        ({"status": 401, "message": "no such key"}, Ending.AUTH_FAILED, "no such key"),
        ({"status": 429, "retry_after": 0, "message": "slow down"}, Ending.RATE_LIMITED, "slow down"),
        ({"text": "So", "stop": "max_tokens"}, Ending.TOKEN_LIMIT, "cut off"),
        ({"text": "No", "stop": "refusal"}, Ending.REFUSED, "content filter"),
    ],
    ids=["401", "429", "max_tokens", "refusal"],
)
def test_what_the_api_does_to_it_is_how_it_ends(
    fault: Step, ending: Ending, words: str, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    done = harness_runs.run(cli, work, [fault])
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, ending)
    assert words in done.verdict.reason
    assert done.account().unknown == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle_it_has_failed(
    number: signal.Signals, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    process = harness_runs.start(cli, work, [{"gate": True, "text": "late"}])
    until(lambda: any(asked.tools for asked in model_server.asked), what="the model is asked", patience=60)
    process.send_signal(number)
    done = harness_runs.finish(cli, process)
    assert (done.verdict.outcome, done.verdict.reason) == (Outcome.FAILED, f"killed by {number.name}")


# ---------------------------------------------------------------- deployed


def test_it_works_for_a_task_and_everything_about_it_is_known(
    home: Path, door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    child = [{"say": "I am the child"}, {"edit": {"path": "child.txt", "content": "made\n"}}]
    (home / "settings.toml").write_text("rights_shrink = false\n")  # a script is held to nothing
    steps: list[Step] = [
        ours("update_agent_progress", status="working", message="reading", progress=40),
        ours("report_agent_finding", finding_type="issue", severity="high", message="no mail is read"),
        ours("spawn_child_agent", agent_type="tester", harness="script", prompt=json.dumps(child)),
        {"bash": "headcount report working 'from my shell' --progress 60"},
        {"text": "I write it.", "write": {"path": str(work / "made.txt"), "content": "by opencode\n"}},
        {"text": "All done."},
    ]
    task, agent = deploy(door, cli, work, steps, {"allowed_tools": ["shell(headcount)"]})
    facts = ended(door, agent)
    assert (facts["state"], facts["outcome"], facts["exit_code"]) == ("ended", "completed", 0)
    assert (facts["reported"], facts["progress"]) == ("working", 60)
    assert facts["result"]["text"] == "All done."
    assert facts["usage"]["output"] == 20 * 6
    assert (work / "made.txt").read_text() == "by opencode\n"
    (finding,) = door.call("get_findings", task_id=task)["findings"]
    assert (finding["agent_id"], finding["severity"]) == (agent, "high")
    agents = door.call("list_agents", task_id=task, all=True)["agents"]
    (spawned,) = [each for each in agents if each["role"] == "tester"]
    assert (spawned["parent"], ended(door, spawned["agent_id"])["outcome"]) == (agent, "completed")
    recent = door.call("get_agent_output", agent_id=agent, format="recent")["text"]
    assert "[ASST] I write it." in recent


def test_stopped_while_its_shell_sleeps_it_leaves_nothing(
    door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    _, agent = deploy(door, cli, work, [{"bash": "touch begun; setsid sleep 301"}], {"permissions": "bypass"})
    until((work / "begun").exists, what="its shell is at work", patience=90)
    stopped = door.call("stop_agent", agent_id=agent, grace=2)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
