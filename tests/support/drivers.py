"""A driver with a scripted agent, without the rest of Headcount: what goes in, what comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from headcount.domain.entries import Entry
from headcount.harnesses import driven
from headcount.harnesses.base import Harness, Verdict
from headcount.harnesses.catalogue import find
from tests.support.harness_facts import record
from tests.support.waiting import until

PROGRAMS: Final = Path(__file__).with_name("programs")
ACP_AGENT: Final = str(PROGRAMS / "acp_agent.py")


def play(*steps: Mapping[str, Any]) -> str:
    """Return a prompt that has the scripted agents do these steps."""
    return f"Do it.\nDO {json.dumps(steps)}\n"


class Drive:
    """One driver at work. Its output is collected; `facts` are its own lines, `entries` all of them read."""

    def __init__(
        self, directory: Path, prompt: str, *options: str, harness: str = "acp", **order: object
    ) -> None:
        self.run_path = directory / "run"
        self.work = directory / "work"
        for folder in (self.run_path, self.work):
            folder.mkdir(exist_ok=True)
        self.harness: Harness = find(harness)
        facts = {
            "protocol": "acp",
            "argv": [sys.executable, "-I", "-S", ACP_AGENT, *options],
            "run_path": str(self.run_path),
            "cwd": str(self.work),
            "permissions": "edit",
            "allowed_tools": [],
            "denied_tools": [],
            "ask_expiry": 60,
            "mcp_servers": [],
            **order,
        }
        (self.run_path / driven.ORDER_FILE).write_text(json.dumps(facts))
        self._output = self.run_path / "output.jsonl"
        with self._output.open("wb") as out, (self.run_path / "stderr.log").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", driven.PROGRAM, str(self.run_path / driven.ORDER_FILE)],
                cwd=self.work,
                env={**os.environ, "ACP_SESSIONS": str(directory)},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(prompt.encode())
        self.process.stdin.close()

    @property
    def output(self) -> bytes:
        return self._output.read_bytes()

    @property
    def entries(self) -> Sequence[Entry]:
        return [entry for line in self.output.splitlines() for entry in self.harness.read(line)]

    def said(self, event: str) -> list[Mapping[str, Any]]:
        """Return the driver's own lines of one kind."""
        lines = [line for line in self.output.splitlines(keepends=True) if line.startswith(driven.MARK)]
        found = [json.loads(line)["headcount"] for line in lines if line.endswith(b"\n")]
        return [each for each in found if each["event"] == event]

    def wait_said(self, event: str, count: int = 1) -> Mapping[str, Any]:
        until(lambda: len(self.said(event)) >= count, what=f"it says {event}: {self.output!r}")
        return self.said(event)[count - 1]

    def put(self, folder: str, name: str, **facts: object) -> None:
        """Make a file appear whole, as others do."""
        path = self.run_path / folder / name
        until(path.parent.exists, what=f"{folder} is there")
        path.with_suffix(".new").write_text(json.dumps(facts))
        path.with_suffix(".new").rename(path)

    def post(
        self, number: int, kind: str, text: str = "", **facts: object
    ) -> Callable[[], dict[str, Any] | None]:
        """Put a letter into the inbox; return what reads its answer, None until it is there."""
        self.put("inbox", f"{number}.json", id=number, kind=kind, text=text, **facts)
        done = self.run_path / "inbox" / f"{number}.done"
        return lambda: json.loads(done.read_text()) if done.exists() else None

    def end(self) -> Verdict:
        """Wait for its end and judge it."""
        code = self.process.wait(60)
        end = {"code": code} if code >= 0 else {"code": None, "signal": -code}
        return self.harness.verdict(record(**end), self.output)
