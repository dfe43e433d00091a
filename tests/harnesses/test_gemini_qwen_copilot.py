"""The harnesses gemini, qwen and copilot with the real programs, alone and deployed."""

import json
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from headcount.domain.account import Ending
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses.catalogue import find
from tests.support import agent_clis, harness_runs
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.daemons import Bridge
from tests.support.harness_deploys import deploy, door, ended, ours
from tests.support.harness_runs import REPORT, TOKEN
from tests.support.model_server import ModelServer, Step
from tests.support.waiting import until

__all__ = ["agent_cli", "door", "model_server"]  # fixtures

pytestmark = [pytest.mark.harnesses, pytest.mark.timeout(240)]

MODEL = {"gemini": "gemini-2.5-pro", "qwen": "qwen3-max", "copilot": "gpt-5.4"}
HELD = ("gemini", "copilot")
"""Those whose own tools change no files outside of their directory, unless everything is allowed."""


@pytest.fixture(params=agent_clis.every("gemini", "qwen", "copilot"))
def cli(request: pytest.FixtureRequest, agent_cli: AgentClis) -> AgentCli:
    return agent_cli(request.param)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


def options(cli: AgentCli, **given: object) -> Options:
    return Options(model=MODEL[cli.name], **given)  # type: ignore[arg-type]  # a test names what differs


# ---------------------------------------------------------------- alone


def test_it_reports_edits_and_completes_and_a_later_run_remembers(
    cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    steps: list[Step] = [
        REPORT,
        {"text": "I write.", "write": {"path": str(work / "made.txt"), "content": "by an agent\n"}},
        {"text": "First."},
    ]
    first = harness_runs.run(cli, work, steps, options=options(cli))
    assert (first.verdict.outcome, first.verdict.reason) == (Outcome.COMPLETED, "exit code 0")
    assert (work / "made.txt").read_text() == "by an agent\n"
    assert any(TOKEN in text for text in first.texts(EntryKind.TOOL_RESULT))
    account = first.account()
    assert (account.answer, account.model, account.unknown) == ("First.", MODEL[cli.name], 0)
    assert [Path(path).name for path in account.files] == ["made.txt"]
    assert account.session_id is not None
    assert account.cost_usd is None
    again = harness_runs.run(
        cli, work, [{"text": "Second."}], options=options(cli), resume=account.session_id
    )
    assert again.account(account).answer == "Second."
    assert "First." in json.dumps([asked.body for asked in model_server.asked if asked.step == 0][-1])
    if account.output is not None:  # Copilot CLI tells no tokens
        assert account.output >= 60
        assert again.account(account).output in (20, 40)  # Qwen Code tidies its memory, at times


@pytest.mark.parametrize("permissions", [Permissions.READ, Permissions.EDIT, Permissions.BYPASS])
def test_it_is_held_to_its_permissions(
    permissions: Permissions, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    with TemporaryDirectory(dir="/var/tmp") as elsewhere:
        inside, outside = work / "in.txt", Path(elsewhere) / "out.txt"
        shell = {"bash": "touch ran.txt"}
        if permissions is not Permissions.BYPASS and cli.name != "copilot":
            shell = {"text": "There is no shell.", **REPORT}
        writes: list[Step] = [{"write": {"path": str(path), "content": "x\n"}} for path in (inside, outside)]
        if permissions is Permissions.READ and cli.name != "copilot":
            writes = []
        steps: list[Step] = [REPORT, shell, *writes, {"text": "Done."}]
        done = harness_runs.run(cli, work, steps, options=options(cli, permissions=permissions))
        assert done.account().answer == "Done."
        assert (work / "ran.txt").exists() == (permissions is Permissions.BYPASS)
        assert inside.exists() == (permissions is not Permissions.READ)
        if permissions is not Permissions.EDIT or cli.name in HELD:
            assert outside.exists() == (permissions is Permissions.BYPASS and cli.name != "gemini")
        offered = set(model_server.asked[0].tools)
        if permissions is Permissions.READ and cli.name != "copilot":
            assert not offered & {"write_file", "replace", "edit", "run_shell_command"}


def test_rules_about_tools_are_kept(cli: AgentCli, model_server: ModelServer, work: Path) -> None:
    steps: list[Step] = [{"bash": "touch yes.txt"}, {"bash": "rm -f no.txt"}, {"text": "Done."}]
    rules = options(cli, allowed_tools=("shell(touch)",), denied_tools=("search",))
    done = harness_runs.run(cli, work, steps, options=rules)
    assert (work / "yes.txt").exists()
    assert done.account().denied
    assert not set(model_server.asked[0].tools) & {"glob", "grep_search", "rg"}


def test_what_it_is_told_reaches_the_model(cli: AgentCli, model_server: ModelServer, work: Path) -> None:
    can = find(cli.name).abilities
    told: dict[str, object] = {"system_prompt": 'Say "ü".'} if Ability.SYSTEM_PROMPT in can else {}
    if Ability.EFFORT in can:
        told["effort"] = Effort.HIGH
    harness_runs.run(cli, work, [{"text": "Done."}], options=options(cli, **told))
    asked = model_server.asked[0]
    assert asked.model == MODEL[cli.name]
    assert ("system_prompt" not in told) or 'Say \\"ü\\".' in json.dumps(asked.body, ensure_ascii=False)
    assert ("effort" not in told) or asked.body["reasoning_effort"] == "high"


def test_turns_are_limited(agent_cli: AgentClis, model_server: ModelServer, work: Path) -> None:
    gemini = agent_cli("gemini")
    steps: list[Step] = [REPORT, REPORT, {"text": "never"}]
    done = harness_runs.run(gemini, work, steps, options=options(gemini, max_turns=1))
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, Ending.TURN_LIMIT)


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        ({"status": 401, "message": "no such key"}, Ending.AUTH_FAILED),
        ({"status": 400, "message": "it is wrong"}, Ending.API_ERROR),
    ],
    ids=["401", "400"],
)
def test_what_the_api_does_to_it_is_how_it_ends(
    fault: Step, ending: Ending, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    done = harness_runs.run(cli, work, [fault], options=options(cli))
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, ending)
    assert done.account().errors >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle_it_has_failed(
    number: signal.Signals, cli: AgentCli, model_server: ModelServer, work: Path
) -> None:
    process = harness_runs.start(cli, work, [{"gate": True, "text": "late"}], options=options(cli))
    until(lambda: model_server.asked, what="the model is asked", patience=60)
    process.send_signal(number)
    done = harness_runs.finish(cli, process)
    assert done.verdict.outcome is Outcome.FAILED


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
        {"text": "I write it.", "write": {"path": str(work / "made.txt"), "content": "by an agent\n"}},
        {"text": "All done."},
    ]
    task, agent = deploy(door, cli, work, steps, {"allowed_tools": ["shell(headcount)"]})
    facts = ended(door, agent)
    assert (facts["state"], facts["outcome"], facts["exit_code"]) == ("ended", "completed", 0), facts
    assert (facts["reported"], facts["progress"]) == ("working", 60)
    assert facts["result"]["text"] == "All done."
    assert (work / "made.txt").read_text() == "by an agent\n"
    (finding,) = door.call("get_findings", task_id=task)["findings"]
    assert (finding["agent_id"], finding["severity"]) == (agent, "high")
    agents = door.call("list_agents", task_id=task, all=True)["agents"]
    (spawned,) = [each for each in agents if each["role"] == "tester"]
    assert (spawned["parent"], ended(door, spawned["agent_id"])["outcome"]) == (agent, "completed")
    recent = door.call("get_agent_output", agent_id=agent, format="recent")["text"]
    assert "done." in recent
    (order,) = (json.loads(path.read_text()) for path in home.glob("runs/*/builder-*/1/order.json"))
    assert "dummy" not in json.dumps(order["argv"])


def test_stopped_while_its_shell_sleeps_it_leaves_nothing(
    door: Bridge, cli: AgentCli, work: Path, model_server: ModelServer
) -> None:
    begun = work / "begun"
    steps: list[Step] = [{"bash": f"touch {begun}; tail -f /dev/null"}]
    _, agent = deploy(door, cli, work, steps, {"permissions": "bypass"})
    until(begun.exists, what="its shell is at work", patience=60)
    stopped = door.call("stop_agent", agent_id=agent, grace=2)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
