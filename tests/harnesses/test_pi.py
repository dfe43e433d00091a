"""The pi harness with the real Pi, alone and deployed."""

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.account import Ending
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Effort, Options, Permissions
from headcount.harnesses.pi import GUARD
from tests.support import agent_clis, daemons, harness_runs
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.daemons import Bridge
from tests.support.model_server import ModelServer, Step, play
from tests.support.terminals import Terminal, terminal
from tests.support.waiting import until

__all__ = ["agent_cli", "model_server", "terminal"]  # fixtures

pytestmark = [pytest.mark.harnesses, pytest.mark.every_harness]


@pytest.fixture
def pi(agent_cli: AgentClis) -> AgentCli:
    return agent_cli("pi")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


# ---------------------------------------------------------------- alone


def test_it_edits_and_completes_and_is_accounted_for(
    pi: AgentCli, model_server: ModelServer, work: Path
) -> None:
    steps: list[Step] = [
        {"think": "Hm.", "text": "I write.", "write": {"path": "made.txt", "content": "one\n"}},
        {"edit": {"path": "made.txt", "old": "one", "new": "two"}},
        {"edit": {"path": "none.txt", "old": "one", "new": "two"}},
        {"text": "All done.", "usage": {"input_tokens": 70, "output_tokens": 5, "cached_tokens": 20}},
    ]
    done = harness_runs.run(pi, work, steps)
    assert (done.verdict.outcome, done.verdict.reason) == (Outcome.COMPLETED, "exit code 0")
    assert (work / "made.txt").read_text() == "two\n"
    account = done.account()
    assert (account.answer, account.files, account.model) == ("All done.", ("made.txt",), "gpt-5.4")
    assert (account.input, account.cached, account.output, account.turns) == (3070, 20, 65, 4)
    assert account.cost_usd == pytest.approx((3050 * 1 + 20 * 0.1 + 65 * 2) / 1e6)
    assert (account.tool_calls, account.failed_calls, account.unknown, account.errors) == (3, 1, 0, 0)
    assert done.verdict.result == {
        "text": "All done.",
        "session_id": account.session_id,
        "stop_reason": "stop",
    }


def test_what_it_is_told_reaches_the_model(pi: AgentCli, model_server: ModelServer, work: Path) -> None:
    options = Options(model="house/gpt-5.4", effort=Effort.LOW, system_prompt='Say "ü" \\o/.')
    harness_runs.run(pi, work, [{"text": "Done."}], options=options)
    (asked,) = model_server.asked
    told = json.dumps(asked.body["messages"][0], ensure_ascii=False)
    assert json.dumps('Say "ü" \\o/.', ensure_ascii=False)[1:-1] in told
    assert "headcount report" in told
    assert asked.model == "gpt-5.4"


OURS = "headcount report working 'it'\\''s `fine` $(now); \"yes\"' --progress 5"


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (OURS, True),
        ('headcount finding bug "it\'s; bad" --severity high', True),
        ("headcount report working ok; touch made", False),
        ("headcount report working ok > made", False),
        ('headcount report working "$(touch made)"', False),
        ("headcount report working `touch made`", False),
        ("headcount report working ok\ntouch made", False),
        ("headcount deploy x", False),
        ("git log --oneline", True),
        ("git  'log'", True),
        ("git logs", False),
        ("git log | tee made", False),
        ("git status", False),
        ("touch made", False),
        ("X=1 git log", False),
        ("git log *", False),
        ("git log $HOME", False),
    ],
)
def test_its_shell_is_held_to_our_commands_and_the_allowed_ones(command: str, allowed: bool) -> None:
    assert guard("mayRun", command, {**FREE, "shell": False, "allowed": [["git", "log"]]}) is allowed


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("ls | wc -l", True),
        ("git log && git status", True),
        ("git push", False),
        ("cd /x && git push -f", False),
        ("true; (git push)", False),
        ("echo $(git push)", False),
        ("sudo git push", False),
        ("sh -c 'git push'", False),
        ("headcount report working 'git push is next'", True),
    ],
)
def test_a_denied_command_is_refused_as_any_part_of_another(command: str, allowed: bool) -> None:
    assert guard("mayRun", command, {**FREE, "denied": [["git", "push"]]}) is allowed


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("a.txt", True),
        ("deep/er/a.txt", True),
        ("{work}/a.txt", True),
        ("@a.txt", True),
        ("..a", True),
        ("../a.txt", False),
        ("deep/../../a.txt", False),
        ("{work}-too/a.txt", False),
        ("/etc/a.txt", False),
        ("~/a.txt", False),
        ("@/etc/a.txt", False),
        ("out/a.txt", False),
        ("out", False),
        ("dangling", False),
        ("", False),
    ],
)
def test_files_are_written_within_the_directory_only(work: Path, path: str, allowed: bool) -> None:
    (work / "out").symlink_to("/tmp")
    (work / "dangling").symlink_to("/tmp/not-there")
    found = guard("mayWrite", path.format(work=work), {"write": "here"}, str(work))
    assert found is allowed


def test_what_goes_beyond_its_permissions_is_denied_and_said(
    pi: AgentCli, model_server: ModelServer, work: Path
) -> None:
    steps: list[Step] = [
        {"bash": "touch made"},
        {"write": {"path": "../beside.txt", "content": "x"}},
        {"bash": "pwd -P"},
        {"text": "Well."},
    ]
    done = harness_runs.run(pi, work, steps, options=Options(allowed_tools=("shell(pwd)",)))
    assert done.verdict.outcome is Outcome.COMPLETED
    assert list(work.iterdir()) == []
    assert not (work.parent / "beside.txt").exists()
    assert (done.account().denied, done.account().failed_calls) == (("bash", "write"), 2)
    assert done.texts(EntryKind.TOOL_RESULT)[2].strip() == str(work)


def test_reading_offers_nothing_that_writes_and_bypass_allows_everything(
    pi: AgentCli, model_server: ModelServer, work: Path
) -> None:
    harness_runs.run(pi, work, [{"text": "Done."}], options=Options(permissions=Permissions.READ))
    assert not {"edit", "write"} & set(model_server.asked[0].tools)
    steps: list[Step] = [{"bash": "touch made; echo $((1+1))"}, {"text": "Done."}]
    done = harness_runs.run(pi, work, steps, options=Options(permissions=Permissions.BYPASS))
    assert (work / "made").exists()
    assert done.account().denied == ()


def test_a_resumed_conversation_remembers(pi: AgentCli, model_server: ModelServer, work: Path) -> None:
    first = harness_runs.run(pi, work, [{"text": "The word is BLUE."}])
    session = first.account().session_id
    assert session is not None
    second = harness_runs.run(pi, work, [{"text": "I know."}], resume=session)
    assert second.verdict.outcome is Outcome.COMPLETED
    assert "The word is BLUE." in json.dumps(model_server.asked[-1].body)
    assert (second.account().session_id, second.account().input) == (session, 1000)


@pytest.mark.parametrize(
    ("step", "ending", "words"),
    [
        ({"status": 401, "message": "no such key"}, Ending.AUTH_FAILED, "no such key"),
        ({"status": 429, "message": "slow down"}, Ending.RATE_LIMITED, "slow down"),
        ({"status": 500, "message": "it is us"}, Ending.API_ERROR, "it is us"),
        ({"text": "These words are", "cut": True}, Ending.API_ERROR, ""),
        ({"text": "I will not.", "stop": "refusal"}, Ending.REFUSED, ""),
        ({"text": "I would", "stop": "max_tokens"}, Ending.TOKEN_LIMIT, ""),
    ],
)
def test_a_failure_of_the_api_has_failed_although_the_exit_code_is_0(
    step: Step, ending: Ending, words: str, pi: AgentCli, model_server: ModelServer, work: Path
) -> None:
    done = harness_runs.run(pi, work, [step])
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, ending)
    assert words in done.verdict.reason


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGKILL, "SIGKILL")])
def test_killed_in_the_middle_it_has_failed(
    number: int, reason: str, pi: AgentCli, model_server: ModelServer, work: Path
) -> None:
    process = harness_runs.start(pi, work, [{"hang": True, "text": "late"}])
    until(lambda: model_server.asked, what="the model is asked", patience=60)
    process.send_signal(number)
    done = harness_runs.finish(pi, process)
    assert done.verdict.outcome is Outcome.FAILED
    assert reason in done.verdict.reason


def test_a_person_can_take_the_conversation_over_on_a_terminal(
    pi: AgentCli, model_server: ModelServer, work: Path, terminal: Terminal
) -> None:
    session = harness_runs.run(pi, work, [{"text": "The word is BLUE."}]).account().session_id
    launch = harness_runs.interactive(pi, work, resume=str(session))
    terminal.open(launch.argv, env={**pi.env, **launch.env}, cwd=work)
    terminal.shows("The word is BLUE.")
    steps: list[Step] = [{"bash": "touch never"}, {"text": "I am with you."}]
    terminal.enter(f"Go on. {play(steps)}", shown="SCRIPT>>>")
    terminal.shows("\n I am with you.")
    assert "The word is BLUE." in json.dumps(model_server.asked[-1].body["messages"])
    assert list(work.iterdir()) == []


# ---------------------------------------------------------------- its guard, by itself


FREE = {"write": "here", "shell": True, "allowed": [], "denied": [], "tools": [], "mark": ""}


def guard(function: str, *given: object) -> object:
    """Ask the guard itself, in the node that Pi runs on."""
    code = f"import({json.dumps(str(GUARD))}).then((g) => console.log(g.{function}(...{json.dumps(given)})))"
    node = str(agent_clis.CACHE / "node-runtime" / "bin" / "node")
    found = subprocess.run([node, "-e", code], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(found.stdout)


# ---------------------------------------------------------------- deployed


@pytest.fixture
def door(home: Path, pi: AgentCli, tmp_path: Path) -> Iterator[Bridge]:
    """A client's `headcount mcp` with the program in its PATH; it starts the daemon itself."""
    try:
        with Bridge(home, env=pi.env, cwd=tmp_path) as bridge:
            yield bridge
    finally:
        daemons.end(home)


def deploy(door: Bridge, work: Path, steps: list[Step], **options: object) -> tuple[str, Mapping[str, Any]]:
    task = door.call("create_task", description="Import the orders", project=str(work))["task_id"]
    prompt = f"Do as the script says. {play(steps)}"
    agent = door.call(
        "deploy_headless_agent",
        task_id=task,
        agent_type="builder",
        harness="pi",
        prompt=prompt,
        options=options or None,
    )
    return task, agent


def ended(door: Bridge, agent_id: str) -> Mapping[str, Any]:
    done = door.call("wait_for_agents", agent_ids=[agent_id], timeout=45, patience=90)
    assert done["done"], done
    found: Mapping[str, Any] = done["agents"][0]
    return found


def test_it_works_for_a_task_and_reports_by_its_shell(
    door: Bridge, work: Path, model_server: ModelServer
) -> None:
    child = json.dumps([{"edit": {"path": "child.txt", "content": "made\n"}}])
    steps: list[Step] = [
        {"bash": "headcount report working 'reading' --progress 40"},
        {"bash": "headcount finding issue 'no mail is read' --severity high"},
        {"bash": f"headcount spawn tester --harness script --prompt '{child}'"},
        {"text": "I write it.", "write": {"path": "made.txt", "content": "by pi\n"}},
        {"bash": "pwd; touch never"},
        {"text": "All done."},
    ]
    task, agent = deploy(door, work, steps)
    facts = ended(door, agent["agent_id"])
    assert (facts["state"], facts["outcome"], facts["exit_code"]) == ("ended", "completed", 0)
    assert (facts["reported"], facts["progress"]) == ("working", 40)
    assert facts["result"]["text"] == "All done."
    assert facts["usage"]["cost_usd"] > 0
    assert ((work / "made.txt").read_text(), (work / "never").exists()) == ("by pi\n", False)
    (finding,) = door.call("get_findings", task_id=task)["findings"]
    assert (finding["agent_id"], finding["severity"]) == (agent["agent_id"], "high")
    agents = door.call("list_agents", task_id=task, all=True)["agents"]
    (spawned,) = (each for each in agents if each["role"] == "tester")
    assert (spawned["parent"], spawned["depth"]) == (agent["agent_id"], 2)
    assert ended(door, spawned["agent_id"])["outcome"] == "completed"
    recent = door.call("get_agent_output", agent_id=agent["agent_id"], format="recent")["text"]
    assert "[ASST] I write it." in recent
    assert "[DENIED]" in recent


@pytest.mark.parametrize("step", [{"bash": "sleep 300 & setsid sleep 301; true"}, {"hang": True}])
def test_stopped_at_work_or_while_the_model_hangs_it_leaves_nothing(
    step: Step, door: Bridge, work: Path, model_server: ModelServer
) -> None:
    _, agent = deploy(door, work, [step], permissions="bypass")
    until(lambda: model_server.asked, what="it is at work", patience=60)
    stopped = door.call("stop_agent", agent_id=agent["agent_id"], grace=2)
    assert (stopped["outcome"], stopped["survivors"]) == ("stopped", [])
