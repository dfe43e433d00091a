"""What the demo is about: a small git repository, and the scripts of the agents that work on it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

FILES: Final = {
    "README.md": "# Toy\n\nA toy project that the demo's agents work on.\n",
    "pyproject.toml": '[project]\nname = "toy"\nversion = "0.1.0"\ndependencies = ["click"]\n',
    "toy/__init__.py": "",
    "toy/adder.py": "def add(a, b):\n    return a - b\n",
    "tests/test_adder.py": "from toy.adder import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n",
}
MAX_DEPTH: Final = 3

Step = dict[str, Any]


def make_project(path: Path) -> bool:
    """Write the project and commit it; return whether git was there to do so."""
    for name, text in FILES.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    who = (
        "-c",
        "user.name=Headcount demo",
        "-c",
        "user.email=demo@localhost",
        "-c",
        "init.defaultBranch=main",
    )
    try:
        for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "A toy project")):
            subprocess.run(["git", *who, *words], cwd=path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def report(status: str, progress: int, message: str) -> Step:
    return {"report": {"status": status, "progress": progress, "message": message}}


def finding(kind: str, severity: str, message: str) -> Step:
    return {"finding": {"finding_type": kind, "severity": severity, "message": message}}


def spawn(role: str, steps: list[Step], **more: Any) -> Step:
    return {"spawn": {"role": role, "steps": steps}, **more}


def work(*middle: Step, pace: float, what: str) -> list[Step]:
    """Return a script that reports as it goes."""
    share = 80 // max(1, len(middle))
    steps = [report("working", 5, f"{what}: reading"), {"sleep": pace}]
    for n, step in enumerate(middle, start=1):
        steps += [step, {"sleep": pace}, report("working", 10 + n * share, f"{what}: step {n}")]
    return [*steps, report("done", 100, f"{what}: done")]


def scripts(pace: float) -> dict[str, list[Step]]:
    """Return the script of each role that the demo deploys; `pace` is seconds between acts.

    They work side by side, on a machine of any speed: no step may depend on who comes first, nor on git.
    """
    too_deep = {**spawn("helper", [report("done", 100, "never")]), "allow_error": True}
    digger = [
        report("working", 20, "asking for help below"),
        too_deep,
        finding("insight", "medium", "the depth limit held: no agent below depth 3"),
        report("done", 100, "went as deep as it goes"),
    ]
    scout = work(spawn("digger", digger), {"sleep": pace}, pace=pace, what="scouting")
    return {
        "lead": work(
            spawn("scout", scout),
            finding("insight", "info", "the job has five parts"),
            {"sleep": pace * 3},
            pace=pace,
            what="leading",
        ),
        "investigator": work(
            {"run": "git grep -n 'a - b' HEAD -- toy || ls toy"},
            finding("issue", "high", "toy/adder.py subtracts instead of adding"),
            pace=pace,
            what="looking for the fault",
        ),
        "fixer": work(
            {"edit": {"path": "toy/adder.py", "content": "def add(a, b):\n    return a + b\n"}},
            finding("solution", "medium", "add() adds now"),
            pace=pace,
            what="mending add()",
        ),
        "tester": work(
            {
                "edit": {
                    "path": "tests/test_more.py",
                    "content": "from toy.adder import add\n\nassert add(0, 0) == 0\n",
                }
            },
            {"run": "git status --short || ls tests"},
            pace=pace,
            what="writing tests",
        ),
        "builder": work(
            {"edit": {"path": "toy/doubler.py", "content": "def double(a):\n    return a + a\n"}},
            {"edit": {"path": "README.md", "append": "\nIt can double now.\n"}},
            pace=pace,
            what="building double()",
        ),
        "watcher": [report("working", 10, "watching until told otherwise"), {"sleep": 600}],
    }


def racer(pace: float) -> list[Step]:
    """Return the script of the role that two deployers want at the same instant."""
    return work({"run": "git log --oneline || ls"}, pace=pace, what="reviewing")


def relief(pace: float) -> list[Step]:
    """Return the script of the agent that takes the place of the lost one."""
    return work({"run": "git diff --stat || ls"}, pace=pace, what="taking over the watch")


def text(steps: list[Step]) -> str:
    return json.dumps(steps)
