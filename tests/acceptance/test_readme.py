"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import fleets
from tests.support.commands import environment

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, mark: str) -> str:
    """Return the block of the README in which `mark` stands."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [each for each in blocks if mark in each]
    return str(found)


def ran(argv: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{Path(sys.executable).parent}:{environment({})['PATH']}"}
    return subprocess.run(
        argv, cwd=cwd, env=environment(path), capture_output=True, text=True, timeout=120, check=False
    )


def test_the_python_example_runs(tmp_path: Path) -> None:
    done = ran([sys.executable, "-c", block("python", "Headcount()")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed ")


@pytest.mark.usefixtures("require_tmux")
def test_the_first_ten_minutes_step_by_step(home: Path, tmp_path: Path) -> None:
    steps = block("console", "task create").replace("jq -r .task_id", f"{sys.executable} {_jq(tmp_path)}")
    steps = re.sub(r"^headcount attach.*\n", "", steps, flags=re.MULTILINE)  # it takes a terminal
    steps = steps.replace(
        "headcount ps", "until headcount findings | grep -q lexer; do :; done; headcount ps"
    )
    done = ran(["/bin/sh", "-c", steps], tmp_path)
    said = done.stdout
    try:
        assert done.returncode == 0, done.stderr
        for words in ("is running, pid", "50%", "half of it", "report 1 recorded", "time ran out", "stopped"):
            assert words in said, (words, said, done.stderr)
        assert "the lexer drops tabs" in said.partition("time ran out")[2]
        assert "run_ended" in said
    finally:
        with fleets.fleet(home):
            pass


def _jq(place: Path) -> Path:
    """Stand in for jq, which a machine for tests may lack."""
    script = place / "jq.py"
    script.write_text("import json, sys; print(json.load(sys.stdin)['task_id'])")
    return script
