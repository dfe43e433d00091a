"""What the claude harness promises of Claude Code beyond one plain turn, with the real one.

A plain turn and its failures are in tests/integration/test_claude_cli.py, whole deploys in
tests/acceptance/test_claude.py.
"""

import json
import os
from pathlib import Path

import pytest

from headcount.domain.account import Ending
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Options, Permissions
from tests.support import harness_runs
from tests.support.agent_clis import AgentCli, AgentClis, agent_cli, model_server
from tests.support.harness_runs import REPORT, TOKEN
from tests.support.model_server import ModelServer, Step, play
from tests.support.terminals import Terminal, terminal
from tests.support.waiting import until

__all__ = ["agent_cli", "model_server", "terminal"]  # fixtures

pytestmark = pytest.mark.harnesses

SESSION = "00000000-0000-4000-8000-000000000001"
"""What a test's spec calls a conversation."""


@pytest.fixture
def claude(agent_cli: AgentClis) -> AgentCli:
    cli = agent_cli("claude")
    return AgentCli(cli.name, cli.program, cli.home, {**cli.env, "IS_SANDBOX": "1"})


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("permissions", "inside", "outside"),
    [(Permissions.READ, False, False), (Permissions.EDIT, True, False), (Permissions.BYPASS, True, True)],
)
def test_it_is_held_to_its_permissions(
    permissions: Permissions,
    inside: bool,
    outside: bool,
    claude: AgentCli,
    model_server: ModelServer,
    work: Path,
) -> None:
    (work / "old.txt").write_text("old")
    out = work.parent / "out.txt"
    steps: list[Step] = [
        REPORT,
        {"bash": "touch in.txt"},
        {"bash": f"touch {out}"},
        {"bash": "ls"},
        {"tool": {"name": "Write", "input": {"file_path": str(work / "made.txt"), "content": "x\n"}}},
        {"text": "Done."},
    ]
    done = harness_runs.run(claude, work, steps, options=Options(permissions=permissions))
    assert done.verdict.outcome is Outcome.COMPLETED
    assert ((work / "in.txt").exists(), (work / "made.txt").exists()) == (inside, inside)
    assert out.exists() == outside
    assert TOKEN in done.texts(EntryKind.TOOL_RESULT)[0]  # our own tools may be used in each
    assert "old.txt" in done.texts(EntryKind.TOOL_RESULT)[3]  # and looking too
    assert ("Bash" in done.account().denied) is not outside
    assert (done.account().files == (str(work / "made.txt"),)) == inside


def test_the_users_own_settings_do_not_let_a_reader_edit(
    claude: AgentCli, model_server: ModelServer, work: Path
) -> None:
    settings = claude.home / ".claude" / "settings.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text('{"permissions": {"allow": ["Write", "Edit"]}}')
    steps: list[Step] = [
        {"tool": {"name": "Write", "input": {"file_path": str(work / "made.txt"), "content": "x\n"}}},
        {"text": "Done."},
    ]
    harness_runs.run(claude, work, steps, options=Options(permissions=Permissions.READ))
    assert list(work.iterdir()) == []
    assert not {"Write", "Edit"} & set(model_server.asked[0].tools)


def test_rules_about_tools_are_kept(claude: AgentCli, model_server: ModelServer, work: Path) -> None:
    steps: list[Step] = [
        {"bash": "python3 -c 'print(6*7)'"},
        {"bash": "touch never.txt"},
        {"text": "Done."},
    ]
    rules = Options(allowed_tools=("shell(python3 -c)",), denied_tools=("shell(touch)", "web", "Agent"))
    done = harness_runs.run(claude, work, steps, options=rules)
    assert done.texts(EntryKind.TOOL_RESULT)[0] == "42"
    assert list(work.iterdir()) == []
    assert not {"Agent", "WebFetch"} & set(model_server.asked[0].tools)


def test_peers_are_offered_only_if_they_are_asked_for(
    claude: AgentCli, model_server: ModelServer, work: Path
) -> None:
    harness_runs.run(claude, work, [{"text": "Done."}], options=Options(peers=True))
    assert "ListAgents" in model_server.asked[0].tools


@pytest.mark.parametrize(
    ("options", "outcome", "ending"),
    [
        (Options(max_turns=1), Outcome.FAILED, Ending.TURN_LIMIT),
        (Options(budget_usd=0.001), Outcome.OVER_BUDGET, Ending.BUDGET),
    ],
    ids=["turns", "budget"],
)
def test_a_limit_ends_it_and_what_it_used_is_known(
    options: Options,
    outcome: Outcome,
    ending: Ending,
    claude: AgentCli,
    model_server: ModelServer,
    work: Path,
) -> None:
    steps: list[Step] = [{"bash": "ls"}, {"bash": "ls"}, {"text": "never"}]
    done = harness_runs.run(claude, work, steps, options=options)
    assert (done.verdict.outcome, done.verdict.ending) == (outcome, ending)
    assert len(model_server.asked) == 1
    assert (done.account().input, done.account().output) == (1000, 20)
    assert (done.account().cost_usd or 0) > 0


def test_an_answer_by_a_schema_is_structured(claude: AgentCli, model_server: ModelServer, work: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    steps: list[Step] = [{"tool": {"name": "StructuredOutput", "input": {"n": 3}}}, {"text": "Done."}]
    done = harness_runs.run(claude, work, steps, options=Options(result_schema=schema))
    assert done.verdict.result is not None
    assert done.verdict.result["structured_output"] == {"n": 3}
    assert json.loads(done.account().answer or "") == {"n": 3}


def test_only_our_mcp_leaves_the_projects_servers_out(
    claude: AgentCli, model_server: ModelServer, work: Path
) -> None:
    (work / ".mcp.json").write_text('{"mcpServers": {"theirs": {"command": "false"}}}')
    for only in (False, True):
        done = harness_runs.run(
            claude,
            work,
            [{"text": "Done."}],
            options=Options(only_our_mcp=only),
            resume=SESSION if only else None,
        )
        servers = done.entries[0].data["mcp_servers"]
        assert isinstance(servers, dict)
        assert ("theirs" in servers) is not only
        assert servers["headcount"] == "connected"


def test_a_resumed_conversation_remembers_and_is_counted_apart(
    claude: AgentCli, model_server: ModelServer, work: Path
) -> None:
    first = harness_runs.run(
        claude, work, [{"text": "The word is BLUE."}], options=Options(system_prompt="Be slow.")
    )
    assert first.account().session_id == SESSION
    second = harness_runs.run(
        claude, work, [{"text": "I know."}], options=Options(system_prompt="Be quick."), resume=SESSION
    )
    assert second.verdict.outcome is Outcome.COMPLETED
    body = model_server.asked[-1].body
    assert "The word is BLUE." in json.dumps(body["messages"])
    assert ("Be slow." in json.dumps(body["system"]), "Be quick." in json.dumps(body["system"])) == (
        False,
        True,
    )
    made = second.account(first.account())
    assert (made.input, made.output) == (1000, 20)
    assert made.cost_usd == pytest.approx(first.account().cost_usd)


def test_killed_in_the_middle_it_can_be_resumed(
    claude: AgentCli, model_server: ModelServer, work: Path
) -> None:
    process = harness_runs.start(
        claude, work, [{"text": "I begin.", "bash": "pwd"}, {"hang": True, "text": "late"}]
    )
    until(lambda: len(model_server.asked) > 1, what="it waits for the model again", patience=60)
    process.kill()
    assert harness_runs.finish(claude, process).verdict.outcome is Outcome.FAILED
    second = harness_runs.run(claude, work, [{"text": "I go on."}], resume=SESSION)
    assert second.verdict.outcome is Outcome.COMPLETED
    assert "I begin." in json.dumps(model_server.asked[-1].body["messages"])


def test_a_conversation_that_is_not_there_cannot_be_resumed(
    claude: AgentCli, model_server: ModelServer, work: Path
) -> None:
    done = harness_runs.run(claude, work, [{"text": "x"}], resume=SESSION)
    assert done.verdict.outcome is Outcome.FAILED
    assert "No conversation found" in done.verdict.reason


# ---------------------------------------------------------------- for a person


def test_a_person_can_take_the_conversation_over_on_a_terminal(
    claude: AgentCli, model_server: ModelServer, work: Path, terminal: Terminal
) -> None:
    harness_runs.run(claude, work, [{"text": "The word is BLUE."}])
    settle(claude.home, work)
    launch = harness_runs.interactive(claude, work, resume=SESSION)
    terminal.open(launch.argv, env={**claude.env, **launch.env}, cwd=work)
    terminal.shows("The word is BLUE.")
    terminal.enter(f"Go on. {play([{'text': 'I am with you.'}])}", shown="I am with you")
    terminal.shows("● I am with you.")
    assert "The word is BLUE." in json.dumps(model_server.asked[-1].body["messages"])


def settle(home: Path, work: Path) -> None:
    """Make it the home of a user who has used it before, in this directory."""
    file = home / ".claude.json"
    known = json.loads(file.read_text())
    known["hasCompletedOnboarding"] = True
    known["customApiKeyResponses"] = {"approved": ["dummy"], "rejected": []}
    known.setdefault("projects", {}).setdefault(os.path.realpath(work), {})["hasTrustDialogAccepted"] = True
    file.write_text(json.dumps(known))
