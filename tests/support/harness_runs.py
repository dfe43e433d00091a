"""A harness with its real program, without the rest of Headcount: its command is run as it is, its stream is
read, its run judged. The MCP server is tests/support/small_mcp.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headcount.domain.account import Account, Tally
from headcount.domain.entries import Entry, EntryKind
from headcount.domain.options import Options
from headcount.harnesses.base import Launch, Session, Verdict
from headcount.harnesses.catalogue import find
from tests.support import small_mcp
from tests.support.agent_clis import AgentCli
from tests.support.harness_facts import record, spec
from tests.support.model_server import Step, play

TOKEN: Final = "its-token"
REPORT: Final[Step] = {
    "mcp": {"server": "headcount", "tool": "update_agent_progress", "arguments": {"status": "working"}}
}


@dataclass
class Done:
    """What a run gave."""

    entries: Sequence[Entry]
    verdict: Verdict
    stderr: str = field(repr=False)

    def texts(self, kind: EntryKind) -> Sequence[str]:
        return [entry.text for entry in self.entries if entry.kind is kind]

    def account(self, before: Account | None = None) -> Account:
        """Return its account; `before` is that of the run whose conversation it went on with."""
        tally = Tally()
        for entry in self.entries:
            tally.add(entry)
        return tally.account(before=before.session_usage if before else {})


def start(
    cli: AgentCli,
    directory: Path,
    steps: Sequence[Step],
    *more: str,
    options: Options | None = None,
    resume: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start the program exactly as its harness says, in `directory`."""
    run_path = directory.parent / f"{directory.name}-run"
    launch = find(cli.name).command(
        spec(
            directory,
            prompt=f"Do as the script says. {play(steps)}",
            headcount=(sys.executable, "-I", str(small_mcp.__file__)),
            env=cli.env,
            options=options or Options(),
            command=more,
            run_path=str(run_path),
            **({"session": Session(resume, resumed=True)} if resume else {}),
        )
    )
    for name, content in launch.files.items():
        (run_path / name).parent.mkdir(parents=True, exist_ok=True)
        (run_path / name).write_bytes(content)
    directory.mkdir(exist_ok=True)
    process = subprocess.Popen(
        launch.argv,
        cwd=directory,
        env={**cli.env, **launch.env, "HEADCOUNT_TOKEN": TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(launch.stdin or b"")
    process.stdin.close()
    process.stdin = None
    return process


def interactive(cli: AgentCli, directory: Path, *, resume: str) -> Launch:
    """Return how a person goes on with a conversation; its files are written."""
    run_path = directory.parent / f"{directory.name}-run"
    session = Session(resume, resumed=True)
    launch = find(cli.name).interactive(spec(directory, session=session, env=cli.env, run_path=str(run_path)))
    for name, content in launch.files.items():
        (run_path / name).parent.mkdir(parents=True, exist_ok=True)
        (run_path / name).write_bytes(content)
    return launch


def finish(cli: AgentCli, process: subprocess.Popen[bytes]) -> Done:
    """Wait for its end, and read and judge what it wrote."""
    out, err = process.communicate(timeout=200)
    code, killed = (process.returncode, None) if process.returncode >= 0 else (None, -process.returncode)
    harness = find(cli.name)
    entries = [entry for line in out.splitlines() for entry in harness.read(line)]
    verdict = harness.verdict(record(code=code, signal=killed), out)
    return Done(entries, verdict, err.decode(errors="replace"))


def run(
    cli: AgentCli,
    directory: Path,
    steps: Sequence[Step],
    *more: str,
    options: Options | None = None,
    resume: str | None = None,
) -> Done:
    """Start it and wait for its end."""
    return finish(cli, start(cli, directory, steps, *more, options=options, resume=resume))
