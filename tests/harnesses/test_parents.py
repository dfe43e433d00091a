"""A person's own agent CLI as the parent: connected as docs/mcp.md says, it creates a task, deploys two
agents, waits for them, and reads what they found."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from headcount.domain.entries import EntryKind
from headcount.harnesses.catalogue import find
from tests.support import agent_clis, agent_runs, daemons
from tests.support.agent_clis import AgentCli, AgentEnv, agent_env, model_server
from tests.support.commands import answer
from tests.support.harness_deploys import ours
from tests.support.model_server import ModelServer, Step, play

__all__ = ["agent_env", "model_server"]  # fixtures
pytestmark = [pytest.mark.harnesses, pytest.mark.timeout(240)]

CHILDREN: Final = ("codex", "claude")
DOCS: Final = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()


@pytest.fixture
def env(home: Path, agent_env: AgentEnv, cli: str) -> Iterator[Mapping[str, str]]:
    """What a user of all of them has in the environment; whatever daemon was started is ended."""
    mine = daemons.environment(home)
    kept = {name: value for name, value in mine.items() if name.startswith(("HEADCOUNT_", "XDG_"))}
    found = agent_env(cli, *CHILDREN)
    try:
        yield {**kept, **found, "PATH": f"{Path(sys.executable).parent}:{found['PATH']}"}
    finally:
        daemons.end(home)


def connect(cli: AgentCli) -> None:
    """Do what the documentation says, with the keys that its agents need."""
    (line,) = re.findall(rf"^    ({cli.name} mcp add .*)$", DOCS, re.MULTILINE)
    names = [name for name in cli.env if name not in ("PATH", "HOME")]
    _, mcp, add, *rest = shlex.split(line)
    keys = [f"-e={name}=${name}" for name in names if cli.name == "gemini"]
    command = [str(cli.program), mcp, add, *keys, *rest]
    done = subprocess.run(command, env=cli.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    if cli.name == "codex":
        config, table = cli.home / ".codex" / "config.toml", "[mcp_servers.headcount]\n"
        config.write_text(config.read_text().replace(table, f"{table}env_vars = {json.dumps(names)}\n"))


def deploying(role: str, child: str) -> Step:
    steps: list[Step] = [
        ours("report_agent_finding", finding_type="note", severity="low", message=f"{role} has looked"),
        {"text": "Looked."},
    ]
    prompt = f"Do as the script says. {play(steps)}"
    return ours(
        "deploy_headless_agent", task_id="${0:task_id}", agent_type=role, harness=child, prompt=prompt
    )


@pytest.mark.parametrize("cli", agent_clis.every("claude", "codex", "gemini"))
def test_it_creates_a_task_deploys_two_agents_waits_and_reads_their_findings(
    cli: str, env: Mapping[str, str], home: Path, tmp_path: Path, model_server: ModelServer
) -> None:
    parent = AgentCli(cli, agent_clis.installed(cli), tmp_path / "user-home", env)
    connect(parent)
    work = tmp_path / "work"
    work.mkdir()
    waiting = ours("wait_for_agents", task_id="${0:task_id}", timeout=45)
    steps: list[Step] = [
        ours("create_task", description="Look around", project=str(work)),
        deploying("reader", CHILDREN[0]),
        deploying("finder", CHILDREN[1]),
        waiting,
        waiting,
        ours("get_findings", task_id="${0:task_id}"),
        {"text": "They say: ${5}."},
    ]
    process = agent_runs.start(parent, work, f"Do as the script says. {play(steps)}")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, (out, err)
    entries = [entry for line in out.splitlines() for entry in find(cli).read(line)]
    said = "".join(entry.text for entry in entries if entry.kind is EntryKind.TEXT)
    assert "They say: " in said, out
    assert "reader has looked" in said, [entry.text for entry in entries]
    assert "finder has looked" in said
    agents = answer("ps", "--all", env=env)["agents"]
    assert {each["harness"]: each["outcome"] for each in agents} == dict.fromkeys(CHILDREN, "completed")
    assert [each["parent"] for each in agents] == [None, None]  # of a person's, not of an agent of ours
