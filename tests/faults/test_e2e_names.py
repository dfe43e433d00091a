"""The longest role under a deep home, and a home with a name that a shell or tmux would interpret."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.ids import ROLE_MAX
from tests.support.commands import answer, headcount
from tests.support.fleets import alive
from tests.support.waiting import until

HOMES = {
    "deep": "/".join(["a-directory-of-forty-characters-in-its-na"] * 10),
    "odd": """it's a "home" $(touch pwned) `touch pwned`; #{pid} #(touch pwned) %s ü \\ &""",
    "ends in a semicolon": "home;",
    "begins with a dash": "-home",
}
ROLE = "r" * ROLE_MAX


@pytest.fixture(params=HOMES)
def env(request: pytest.FixtureRequest, home: Path) -> Iterator[dict[str, str]]:
    """A home with that name, a daemon and views in it."""
    place = home / HOMES[request.param]
    place.mkdir(parents=True, mode=0o700)
    env = {"HEADCOUNT_HOME": str(place), "HEADCOUNT_VIEWS": "1"}
    assert headcount("up", env=env).code == 0
    yield env
    headcount("halt", env=env)
    assert headcount("down", env=env).code == 0


def sessions(env: dict[str, str]) -> set[str]:
    socket = str(Home(Path(env["HEADCOUNT_HOME"])).tmux_socket)
    argv = ["tmux", "-S", socket, "list-sessions", "-F", "#{session_name}"]
    return set(subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout.split())


@pytest.mark.usefixtures("require_tmux")
def test_agents_views_children_and_reports_work(env: dict[str, str], home: Path, tmp_path: Path) -> None:
    task = answer("task", "create", "work", "--project", str(tmp_path), env=env)["task_id"]
    spawn = f"headcount spawn {'c' * ROLE_MAX} -- sleep 600"
    script = f"headcount report working hello && {spawn}; exec sleep 600"
    made = answer("deploy", task, "--role", ROLE, "--", "sh", "-c", script, env=env)
    until(lambda: len(sessions(env)) == 2, what="both have a session")
    agents = {each["role"]: each for each in answer("ps", env=env)["agents"]}
    assert agents[ROLE]["reported"] == "working"
    assert agents["c" * ROLE_MAX]["parent"] == made["agent_id"]
    assert sessions(env) == {each["agent_id"] for each in agents.values()}
    assert answer("doctor", env=env)["healthy"] is True
    stopped = answer("stop", *(each["agent_id"] for each in agents.values()), env=env)["stopped"]
    assert [(each["outcome"], each["survivors"]) for each in stopped] == [("stopped", [])] * 2
    assert not any(alive(each["pid"]) for each in agents.values())
    assert "pwned" not in {name for _, _, names in os.walk(home) for name in names}
    assert not (Path.cwd() / "pwned").exists()


def test_a_home_deeper_than_a_registry_can_be_is_refused_and_not_made(home: Path) -> None:
    place = home / "/".join(["a-directory-of-forty-characters-in-its-na"] * 13)
    for command in (("ps",), ("up",), ("run", "--", "true")):
        ran = headcount(*command, env={"HEADCOUNT_HOME": str(place), "HEADCOUNT_AUTOSTART": "1"})
        assert (ran.code, "the limit is 480" in ran.err) == (5, True), ran
    assert list(home.iterdir()) == []
