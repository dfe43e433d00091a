"""The codex harness with the real Codex CLI, alone and deployed."""

import json
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from headcount.domain.account import Ending
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Effort, Options, Permissions
from tests.support import harness_runs
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.daemons import Bridge
from tests.support.harness_deploys import deploy, door, ended, ours
from tests.support.harness_runs import REPORT, TOKEN
from tests.support.model_server import ModelServer, Step
from tests.support.waiting import until

__all__ = ["agent_cli", "door", "model_server"]  # fixtures

pytestmark = pytest.mark.harnesses


@pytest.fixture
def cli(agent_cli: AgentClis) -> AgentCli:
    return agent_cli("codex")


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
    steps: list[Step] = [
        REPORT,
        {"think": "Hm.", "bash": "echo ran > ran.txt"},
        {"text": "I write.", "write": {"path": str(work / "made.txt"), "content": "by codex\n"}},
        {"text": "All done.", "usage": {"input_tokens": 7, "output_tokens": 5, "reasoning_tokens": 2}},
    ]
    done = harness_runs.run(cli, work, steps)
    assert (done.verdict.outcome, done.verdict.reason) == (Outcome.COMPLETED, "exit code 0")
    assert (work / "ran.txt").read_text() == "ran\n"
    assert (work / "made.txt").read_text() == "by codex\n"
    assert json.loads(done.texts(EntryKind.TOOL_RESULT)[0])["token"] == TOKEN
    account = done.account()
    assert done.verdict.result == {"text": "All done.", "session_id": account.session_id}
    assert (account.answer, account.files) == ("All done.", (str(work / "made.txt"),))
    assert (account.output, account.reasoning, account.cost_usd) == (20 * 4 + 5, 2, None)
    assert (account.tool_calls, account.failed_calls, account.unknown, account.errors) == (3, 0, 0, 0)


def test_what_it_is_told_reaches_the_model(cli: AgentCli, model_server: ModelServer, work: Path) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "additionalProperties": False}
    options = Options(
        model="gpt-5.1-codex", effort=Effort.XHIGH, system_prompt='Say "ü" \\o/.', result_schema=schema
    )
    harness_runs.run(cli, work, [{"text": '{"ok": true}'}], options=options)
    (asked,) = model_server.asked
    assert asked.model == "gpt-5.1-codex"
    assert asked.body["reasoning"]["effort"] == "xhigh"
    assert asked.body["text"]["format"]["schema"] == schema
    told = [
        part["text"]
        for item in asked.body["input"]
        if item.get("role") == "developer"
        for part in item["content"]
    ]
    assert 'Say "ü" \\o/.' in told


@pytest.mark.parametrize(
    ("permissions", "inside", "outside"),
    [(Permissions.READ, False, False), (Permissions.EDIT, True, False), (Permissions.BYPASS, True, True)],
)
def test_its_sandbox_holds_it_to_its_permissions(
    permissions: Permissions,
    inside: bool,
    outside: bool,
    cli: AgentCli,
    model_server: ModelServer,
    work: Path,
) -> None:
    # The usual temporary directories are open to any sandbox of it that may write.
    with TemporaryDirectory(dir="/var/tmp") as elsewhere:
        out = Path(elsewhere) / "out.txt"
        steps: list[Step] = [
            REPORT,
            {"bash": f"echo in > in.txt; echo out > {out}"},
            {"write": {"path": str(work / "made.txt"), "content": "x\n"}},
            {"text": "Done."},
        ]
        done = harness_runs.run(cli, work, steps, options=Options(permissions=permissions))
        assert done.verdict.outcome is Outcome.COMPLETED
        assert ((work / "in.txt").exists(), (work / "made.txt").exists()) == (inside, inside)
        assert out.exists() == outside
        assert TOKEN in done.texts(EntryKind.TOOL_RESULT)[0]  # our own tools may be used in each


def test_a_resumed_conversation_remembers_and_is_counted_apart(
    cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    first = harness_runs.run(cli, work, [{"bash": "echo one > a.txt"}, {"text": "First."}])
    before = first.account()
    assert before.session_id is not None
    second = harness_runs.run(
        cli, work, [{"bash": "echo two >> a.txt"}, {"text": "Second."}], resume=before.session_id
    )
    assert (work / "a.txt").read_text() == "one\ntwo\n"
    assert second.verdict.result == {"text": "Second.", "session_id": before.session_id}
    account = second.account(before)
    assert (before.output, account.output) == (40, 40)
    said = json.dumps(model_server.asked[-1].body["input"])
    assert "First." in said


def test_a_conversation_that_is_not_there_cannot_be_resumed(
    cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    done = harness_runs.run(cli, work, [{"text": "x"}], resume="01a20770-dc6b-76e0-936f-50f69ddcebc9")
    assert (done.verdict.outcome, done.verdict.reason) == (Outcome.FAILED, "exit code 1")
    assert "no rollout found" in done.stderr


@pytest.mark.parametrize(
    ("fault", "ending", "words"),
    [
        ({"status": 401, "message": "no such key"}, Ending.AUTH_FAILED, "no such key"),
        ({"status": 400, "message": "prompt is too long"}, Ending.TOKEN_LIMIT, "prompt is too long"),
        ({"status": 429}, Ending.RATE_LIMITED, "429"),
        ({"status": 500}, Ending.API_ERROR, "high demand"),
        ({"cut": True, "text": "Never heard."}, Ending.API_ERROR, "disconnected"),
        ({"text": "So", "stop": "max_tokens"}, Ending.TOKEN_LIMIT, "max_output_tokens"),
        ({"text": "No", "stop": "refusal"}, Ending.REFUSED, "content_filter"),
    ],
    ids=["401", "400", "429", "500", "cut", "max_tokens", "refusal"],
)
def test_what_the_api_does_to_it_is_how_it_ends(
    fault: Step, ending: Ending, words: str, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    done = harness_runs.run(cli, work, [fault])
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, ending)
    assert words in done.verdict.reason
    assert done.account().unknown == 0


def test_a_model_that_cannot_be_reached_ends_it(cli: AgentCli, model_server: ModelServer, work: Path) -> None:
    nobody = 'model_providers.house.base_url="http://127.0.0.1:9/v1"'
    done = harness_runs.run(cli, work, [{"text": "x"}], "-c", nobody)
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, Ending.API_ERROR)


def test_an_overloaded_model_is_seen_and_waited_for(
    cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    done = harness_runs.run(cli, work, [{"status": 429, "times": 1, "retry_after": 1, "text": "Better now."}])
    assert len(done.texts(EntryKind.RATE_LIMITED)) == 1
    assert (done.verdict.outcome, done.account().answer) == (Outcome.COMPLETED, "Better now.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle_it_has_failed(
    number: signal.Signals, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    process = harness_runs.start(cli, work, [{"gate": True, "text": "late"}])
    until(lambda: model_server.asked, what="the model is asked")
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
        {"text": "I write it.", "write": {"path": str(work / "made.txt"), "content": "by codex\n"}},
        {"text": "All done."},
    ]
    task, agent = deploy(door, cli, work, steps)
    facts = ended(door, agent)
    assert (facts["state"], facts["outcome"], facts["exit_code"]) == ("ended", "completed", 0)
    assert (facts["reported"], facts["progress"]) == ("working", 60)
    assert facts["result"]["text"] == "All done."
    assert facts["usage"]["output"] > 0
    assert (work / "made.txt").read_text() == "by codex\n"
    (finding,) = door.call("get_findings", task_id=task)["findings"]
    assert (finding["agent_id"], finding["severity"]) == (agent, "high")
    (spawned,) = [
        each
        for each in door.call("list_agents", task_id=task, all=True)["agents"]
        if each["role"] == "tester"
    ]
    assert (spawned["parent"], ended(door, spawned["agent_id"])["outcome"]) == (
        agent,
        "completed",
    )
    recent = door.call("get_agent_output", agent_id=agent, format="recent")["text"]
    assert "[ASST] I write it." in recent
    assert "[TOOL] headcount.report_agent_finding" in recent
    (order,) = (json.loads(path.read_text()) for path in home.glob("runs/*/builder-*/1/order.json"))
    assert "dummy" not in json.dumps(order["argv"])


def test_stopped_while_its_shell_sleeps_it_leaves_nothing(
    door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    _, agent = deploy(door, cli, work, [{"bash": "sleep 300 & setsid sleep 301; true"}])
    until(lambda: model_server.asked, what="it is at work", patience=60)
    stopped = door.call("stop_agent", agent_id=agent, grace=2)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])


def test_stopped_while_the_model_hangs_it_is_stopped(
    door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    _, agent = deploy(door, cli, work, [{"hang": True, "text": "never"}])
    until(lambda: model_server.asked, what="it is at work", patience=60)
    stopped = door.call("stop_agent", agent_id=agent, grace=2)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
