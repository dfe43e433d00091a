"""The guard over the other tests must itself notice: each case is a pytest run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import leftovers, needs

REPOSITORY = Path(__file__).parents[2]


def run_a_test(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run `body` as a test module under the project's own conftest and configuration."""
    module = folder / "test_case.py"
    module.write_text("from tests.conftest import *\n" + textwrap.dedent(body))
    env = {**os.environ, "HEADCOUNT_HOME": "/nonexistent/mine", "HEADCOUNT_AGENT_ID": "me", "TMUX": "x"}
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(REPOSITORY / "pyproject.toml")]
    command += ["--rootdir", str(folder), "-p", "tests.conftest", str(module)]
    return subprocess.run(
        command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_process_left_in_a_tests_home_fails_that_test_and_is_killed(tmp_path: Path) -> None:
    ran = run_a_test(
        tmp_path,
        """
        import subprocess
        from tests.support import leftovers, needs
        leftovers.PATIENCE = 0.2

        def test_leaves(home, monkeypatch):
            monkeypatch.setattr(leftovers.await_none, "__kwdefaults__", {"patience": 0.2})
            subprocess.Popen(["setsid", "--fork", "sleep", "300.25"], cwd=home).wait()
        """,
    )
    assert ran.returncode == 1, ran.stdout
    assert "sleep 300.25" in ran.stdout
    assert not [each for each in leftovers.processes_under(tmp_path) if "300.25" in each.command]


def test_a_process_left_outside_any_home_fails_the_run(tmp_path: Path) -> None:
    ran = run_a_test(
        tmp_path,
        """
        import subprocess
        from tests.support import leftovers, needs
        leftovers.await_none.__kwdefaults__["patience"] = 0.2

        def test_leaves():
            subprocess.Popen(["setsid", "--fork", "sleep", "300.5"]).wait()
        """,
    )
    assert ran.returncode == 1, ran.stdout
    assert "1 passed" in ran.stdout
    assert "LEFT BEHIND by this run: pid" in ran.stdout


def test_a_mount_left_behind_fails_the_run_and_is_gone(tmp_path: Path, require_root: None) -> None:
    ran = run_a_test(
        tmp_path,
        """
        import subprocess

        def test_mounts(tmp_path):
            subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
        """,
    )
    if "permission denied" in ran.stdout + ran.stderr:
        needs.lacking("root may not mount here")
    assert ran.returncode == 1, ran.stdout
    assert "LEFT BEHIND by this run: mount" in ran.stdout
    left = ran.stdout.partition("this run: mount ")[2].split()[0]
    assert left not in Path("/proc/self/mounts").read_text()
    assert not Path(left).exists()


def test_a_child_that_was_not_waited_for_fails_its_test(tmp_path: Path) -> None:
    ran = run_a_test(
        tmp_path,
        """
        import os, time

        def test_leaves():
            if os.fork() == 0:
                time.sleep(2)
                os._exit(0)
        """,
    )
    assert ran.returncode == 1, ran.stdout
    assert "the test left these processes" in ran.stdout


def test_a_run_sees_neither_the_users_home_nor_tmux_nor_agent(tmp_path: Path) -> None:
    ran = run_a_test(
        tmp_path,
        """
        import os

        def test_is_alone(home):
            assert os.environ["HEADCOUNT_HOME"] == str(home)
            assert not {"TMUX", "HEADCOUNT_AGENT_ID"} & set(os.environ)
            assert len(os.fsencode(home)) < 40
            assert os.environ["HOME"].startswith(os.environ["HEADCOUNT_TEST_ROOT"])
        """,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(("ci", "words"), [("true", "1 failed"), ("", "1 skipped")])
def test_a_missing_part_is_skipped_locally_and_fails_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, words: str
) -> None:
    monkeypatch.setenv("CI", ci)
    ran = run_a_test(
        tmp_path,
        """
        from tests.support import needs

        def test_wants_it():
            needs.program("no-such-program", how="nowhere")
        """,
    )
    assert words in ran.stdout, ran.stdout
