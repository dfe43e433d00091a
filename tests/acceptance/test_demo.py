"""The demo's scene; the whole demo runs in CI, as a user's first command."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount.doors.demo import scene


def _steps(name: str) -> Iterator[Any]:
    """Yield that step of every script, those of spawned children too."""

    def walk(steps: list[scene.Step]) -> Iterator[scene.Step]:
        for step in steps:
            if name in step:
                yield step[name]
            if "spawn" in step:
                yield from walk(step["spawn"]["steps"])

    for script in (*scene.scripts(0.0).values(), scene.racer(0.0), scene.relief(0.0)):
        yield from walk(script)


@pytest.mark.parametrize("with_git", [True, False])
def test_no_command_of_the_demo_depends_on_who_came_first_or_on_git(tmp_path: Path, with_git: bool) -> None:
    assert scene.make_project(tmp_path)
    if not with_git:
        shutil.rmtree(tmp_path / ".git")
    for edit in _steps("edit"):  # the fixer, the tester and the builder were faster than all others
        file = tmp_path / edit["path"]
        text = edit["content"] if "content" in edit else file.read_text() + edit["append"]
        file.write_text(text)
    commands = list(_steps("run"))
    assert len(commands) >= 4
    for command in commands:
        argv = ["/bin/sh", "-c", str(command)]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command
