"""A whole job with each real agent CLI: deployed through MCP, it edits, runs a command, reports, finds, has a
child of another CLI, and ends; then everything about it is known, and the count is right."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from headcount.config import Home
from headcount.domain.options import Ability
from headcount.harnesses.catalogue import find
from tests.support import agent_clis, agent_processes, daemons, needs
from tests.support.agent_clis import AgentEnv, agent_env, model_server
from tests.support.commands import headcount
from tests.support.daemons import Bridge
from tests.support.fleets import alive
from tests.support.harness_deploys import ended, ours
from tests.support.model_server import ModelServer, Step, play
from tests.support.waiting import until

__all__ = ["agent_env", "model_server"]  # fixtures
pytestmark = [pytest.mark.harnesses, pytest.mark.timeout(300)]

PARTNER: Final[Mapping[str, str]] = {
    "claude": "codex",
    "codex": "claude",
    "gemini": "codex",
    "opencode": "claude",
    "qwen": "codex",
    "copilot": "claude",
    "pi": "codex",
}
"""What CLI the child of each is."""

MODEL: Final[Mapping[str, str]] = {"gemini": "gemini-2.5-pro"}
"""Without a name it asks the model which one to take."""

COST: Final = frozenset({"claude", "pi"})
"""Those that know what they cost; with the others that is unknown, not 0."""


@dataclass(frozen=True)
class Fleet:
    """A client's door to a home with views, and what its agents find in their environment."""

    home: Path
    door: Bridge
    work: Path
    env: Mapping[str, str]

    def task(self, **limits: Any) -> str:
        made: str = self.door.call(
            "create_task", description="Import the orders", project=str(self.work), **limits
        )["task_id"]
        return made

    def deploy(self, task: str, cli: str, steps: Sequence[Step], *, role: str = "builder") -> str:
        """Deploy it with the logins of all CLIs, else a child of another one would have none."""
        rules = Ability.TOOL_RULES in find(cli).abilities
        options = {"allowed_tools": ["shell(headcount)", "shell(touch)"]} if rules else {}
        made: str = self.door.call(
            "deploy_headless_agent",
            task_id=task,
            agent_type=role,
            harness=cli,
            prompt=f"Do as the script says. {play(steps)}",
            options={**options, **({"model": MODEL[cli]} if cli in MODEL else {})},
            env=[name for name in self.env if name not in ("PATH", "HOME")],
            allow_duplicate_role=True,
        )["agent_id"]
        return made

    def whole(self, agent: str) -> Mapping[str, Any]:
        """Return all about an agent, once its account is made."""
        until(lambda: self._run(agent).get("account"), what="its account is made")
        return self.door.call("get_agent", agent_id=agent)

    def _run(self, agent: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.door.call("get_agent", agent_id=agent)["runs"][-1]
        return found

    def is_empty(self) -> bool:
        found = self.door.call("registry_health_check")
        return bool(found["healthy"]) and not found["sessions"] and found["live_rows"] == 0


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    subprocess.run(["git", "init", "-q", made], check=True)
    return made


@pytest.fixture
def fleet(request: pytest.FixtureRequest, home: Path, agent_env: AgentEnv, work: Path) -> Iterator[Fleet]:
    """Its parameter names the CLIs that there are."""
    needs.program("tmux", how="apt-get install tmux")
    env = {**agent_env(*request.param), "HEADCOUNT_VIEWS": "1", "HEADCOUNT_DEPLOY_RATE": "60"}
    try:
        with Bridge(home, env=env, cwd=work) as door:
            yield Fleet(home, door, work, env)
    finally:
        daemons.end(home)
        tmux(home, "kill-server")


def tmux(home: Path, *command: str) -> str:
    argv = ["tmux", "-S", str(Home(home).tmux_socket), *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout


# ---------------------------------------------------------------- one, with a child


def with_partners() -> list[Any]:
    names = [(str(each.values[0]), each.marks) for each in agent_clis.every()]
    return [pytest.param(name, (name, PARTNER[name]), marks=marks, id=name) for name, marks in names]


def job(cli: str, work: Path, child: Sequence[Step]) -> list[Step]:
    """Return the steps of a whole job; what Headcount is told goes by MCP where the CLI speaks it."""
    partner, prompt = PARTNER[cli], f"Do as the script says. {play(child)}"
    if Ability.MCP_STDIO in find(cli).abilities:
        says: list[Step] = [
            ours("update_agent_progress", status="working", message="reading", progress=40),
            ours("report_agent_finding", finding_type="issue", severity="high", message="no mail is read"),
            ours("spawn_child_agent", agent_type="tester", harness=partner, prompt=prompt),
        ]
    else:
        says = [
            {"bash": "headcount report working reading --progress 40"},
            {"bash": "headcount finding issue 'no mail is read' --severity high"},
            {"bash": f"headcount spawn tester --harness {partner} --prompt '{prompt}'"},
        ]
    return [
        *says,
        {"bash": "touch ran.txt" if cli not in ("gemini", "qwen") else "headcount report working ran"},
        {"text": "I write it.", "write": {"path": str(work / "made.txt"), "content": "by an agent\n"}},
        {"gate": True, "text": "All done."},
    ]


@pytest.mark.parametrize(("cli", "fleet"), with_partners(), indirect=["fleet"])
def test_a_whole_job_is_done_and_everything_about_it_is_known(
    cli: str, fleet: Fleet, model_server: ModelServer, home: Path, work: Path
) -> None:
    child: list[Step] = [
        ours("report_agent_finding", finding_type="note", severity="low", message="all is tested"),
        {"text": "Tested."},
    ]
    task = fleet.task()
    agent = fleet.deploy(task, cli, job(cli, work, child))
    until((work / "made.txt").exists, what="it has written its file", patience=120)
    wrote = until(lambda: screen(home, agent, "made.txt"), what="its view shows what it does", patience=30)
    assert wrote
    model_server.gate.set()

    facts = ended(fleet.door, agent)
    assert (facts["state"], facts["outcome"], facts["exit_code"]) == ("ended", "completed", 0), facts
    assert facts["result"]["text"] == "All done."
    assert facts["reported"] == "working"
    agents = fleet.door.call("list_agents", task_id=task, all=True)["agents"]
    (spawned,) = [each for each in agents if each["role"] == "tester"]
    assert (spawned["parent"], spawned["depth"], spawned["harness"]) == (agent, 2, PARTNER[cli])
    done = ended(fleet.door, spawned["agent_id"])
    assert done["outcome"] == "completed", done["reason"]
    found = {
        (each["agent_id"], each["severity"], each["message"])
        for each in fleet.door.call("get_findings", task_id=task)["findings"]
    }
    assert found == {
        (agent, "high", "no mail is read"),
        (spawned["agent_id"], "low", "all is tested"),
    }
    assert (work / "made.txt").read_text() == "by an agent\n"

    account = fleet.whole(agent)["runs"][-1]["account"]
    assert (account["answer"], account["unknown"], account["torn"]) == ("All done.", 0, 0)
    assert account["tool_calls"] >= 5
    assert account["session_id"]
    assert (account.get("cost_usd") is not None) == (cli in COST)
    if cli == "copilot":
        assert account.get("output") is None  # it does not say
    else:
        assert account["output"] >= 20 * 6
    recent = fleet.door.call("get_agent_output", agent_id=agent, format="recent")["text"]
    assert "made.txt" in recent
    assert "done." in recent

    until(fleet.is_empty, what="the count is right: nothing", patience=30)
    assert agent_processes.by_agent(home) == {}
    doctor = headcount("doctor", "--json", env=fleet.env).facts
    assert doctor["healthy"], doctor
    (order,) = (json.loads(path.read_text()) for path in home.glob("runs/*/builder-*/1/order.json"))
    assert "SCRIPT" not in json.dumps(order["argv"])  # its prompt is for no process list


def screen(home: Path, session: str, words: str) -> str | None:
    """Return what the view of an agent shows, if that has these words in it."""
    shown = tmux(home, "capture-pane", "-p", "-J", "-S", "-", "-t", f"={session}:")
    return shown if words in shown else None


# ---------------------------------------------------------------- ten at once

TEN: Final = (
    "claude",
    "codex",
    "gemini",
    "claude",
    "codex",
    "opencode",
    "claude",
    "codex",
    "gemini",
    "opencode",
)


class Count:
    """Looks again and again whether rows and processes agree, and how much each agent weighs."""

    def __init__(self, fleet: Fleet, task: str) -> None:
        self._fleet, self._task = fleet, task
        self.looks = 0
        self.most = 0
        self.wrong: list[str] = []
        self.weights: dict[str, float] = {}

    def look(self) -> Mapping[str, Any]:
        """Compare the processes with the rows before and after them; return the rows."""
        before, runs = self._rows(), agent_processes.by_agent(self._fleet.home)
        runners = {each for each, row in before.items() if alive(row.get("runner_pid"))}
        after = self._rows()
        self.looks += 1
        self.most = max(self.most, len(after))
        self.wrong += [
            f"{each} runs and is not counted" for each in runs.keys() - before.keys() - after.keys()
        ]
        for each in before.keys() & after.keys():
            # Its runner is there a moment longer than it, until its end is on disk.
            if before[each]["state"] == "running" and not (runs.get(each) or each in runners):
                self.wrong.append(f"{each} is counted and does not run: {after[each]}")
        for each, pids in runs.items():
            self.weights[each] = max(self.weights.get(each, 0.0), agent_processes.pss_mb(pids))
        return after

    def _rows(self) -> dict[str, Any]:
        rows = self._fleet.door.call("list_agents", task_id=self._task)["agents"]
        return {each["agent_id"]: each for each in rows}

    def drawn(self, names: Mapping[str, str]) -> str:
        """Return the table of what each agent weighed at its heaviest."""
        lines = [f"{names[each]:<10} {weight:7.0f} MB PSS  {each}" for each, weight in self.weights.items()]
        return "\n".join((*sorted(lines), f"{self.looks} looks, at most {self.most} live"))


@pytest.mark.parametrize("fleet", [("claude", "codex", "gemini", "opencode")], indirect=True)
def test_ten_of_mixed_clis_work_at_once_and_the_count_is_right_all_the_way(
    fleet: Fleet, model_server: ModelServer, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = fleet.task()
    count, names = Count(fleet, task), {}
    for number, cli in enumerate(TEN):
        steps: list[Step] = [
            ours("update_agent_progress", status="working", message="at it", progress=number),
            ours("report_agent_finding", finding_type="note", severity="low", message=f"found by {number}"),
            {"gate": True, "text": f"I was number {number}."},
        ]
        names[fleet.deploy(task, cli, steps, role=f"worker{number}")] = cli
        count.look()
    while True:  # until all of them have found what they find
        count.look()
        findings = fleet.door.call("get_findings", task_id=task)["findings"]
        if len(findings) == len(TEN):
            break
    model_server.gate.set()
    while count.look():
        continue
    with capfd.disabled():
        print(f"\n{count.drawn(names)}")
    assert count.wrong == []
    assert count.most == len(TEN)
    ends = {agent: ended(fleet.door, agent) for agent in names}
    assert {each["outcome"] for each in ends.values()} == {"completed"}, ends
    assert {each["result"]["text"] for each in ends.values()} == {f"I was number {n}." for n in range(10)}
    assert sorted(each["progress"] for each in ends.values()) == list(range(10))
    assert {(each["agent_id"], each["message"]) for each in findings} == {
        (agent, f"found by {number}") for number, agent in enumerate(names)
    }
    until(fleet.is_empty, what="the count is right: nothing", patience=30)
    assert agent_processes.by_agent(home) == {}
