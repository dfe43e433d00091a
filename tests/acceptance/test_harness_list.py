"""Which harnesses there are, and whether their programs would work: told without a start of any agent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount, bootstrap
from headcount.domain.errors import NotFound
from headcount.domain.options import Ability
from headcount.doors.mcp.shape import PAGE_CHARS, size
from headcount.doors.mcp.tools import BY_NAME, Who
from headcount.harnesses.catalogue import find, names
from headcount.runtimes import asked
from tests.support import daemons
from tests.support.commands import answer, headcount
from tests.support.fleets import alive
from tests.support.waiting import until


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "user").mkdir()
    return tmp_path


def package(place: Path, name: str, version: str | None, script: str = "exit 1\n") -> None:
    """Put a program into `place` as npm does: a link to a file of a package that says its version."""
    folder = place / "lib" / name
    folder.mkdir(parents=True)
    program = folder / "cli"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    if version is not None:
        (folder / "package.json").write_text(
            json.dumps({"name": name, "version": version, "bin": {name: "cli"}})
        )
    (place / "bin").mkdir(exist_ok=True)
    (place / "bin" / name).symlink_to(program)


def variables(place: Path, **more: str) -> dict[str, str]:
    return {"PATH": f"{place}/bin:/usr/bin:/bin", "HOME": str(place / "user"), **more}


def fleet(home: Path, place: Path, **more: str) -> Headcount:
    given = {"views": False, "autostart": False}
    return Headcount.of(bootstrap.context(home, given, environ=variables(place, **more)))


def states(opened: Headcount) -> dict[str, Any]:
    return {each.name: each for each in opened.list_harnesses().harnesses}


def test_what_is_not_here_is_missing_and_says_how_to_get_it(home: Path, place: Path) -> None:
    with fleet(home, place) as opened:
        found = states(opened)
    assert set(found) == set(names())
    assert (found["claude"].state, found["claude"].path, found["claude"].version) == ("missing", None, None)
    assert "npm install" in found["claude"].hint
    assert found["script"].state == found["command"].state == "ready"


def test_a_version_is_known_from_the_package_and_an_old_one_is_told(home: Path, place: Path) -> None:
    package(place, "claude", "1.0.3", "touch started\n")
    with fleet(home, place, ANTHROPIC_API_KEY="k") as opened:
        claude = states(opened)["claude"]
    assert (claude.state, claude.version, claude.logged_in) == ("too_old", "1.0.3", True)
    assert "or later is needed" in claude.why
    assert claude.path == str(place / "bin" / "claude")


def test_one_that_nobody_has_logged_in_to_says_how(home: Path, place: Path) -> None:
    package(place, "claude", "9.0.0")
    with fleet(home, place) as opened:
        claude = states(opened)["claude"]
    assert (claude.state, claude.logged_in) == ("not_ready", False)
    assert "ANTHROPIC_API_KEY" in claude.hint
    with fleet(home, place, ANTHROPIC_API_KEY="k") as opened:
        claude = opened.get_harness("claude")
    assert (claude.state, claude.logged_in, claude.hint) == ("ready", True, "")
    assert "ANTHROPIC_API_KEY" in claude.login_by
    assert set(claude.lacks) == set(Ability) - set(claude.abilities) != set()


def test_a_program_whose_package_is_silent_is_asked_and_gets_nothing_of_the_caller(
    home: Path, place: Path
) -> None:
    package(place, "opencode", None, f'env > {place}/seen; pwd >> {place}/seen; echo "opencode 1.99.1 (x)"\n')
    with fleet(home, place, OPENAI_API_KEY="s3cret", ANTHROPIC_API_KEY="s3cret") as opened:
        opencode = states(opened)["opencode"]
    assert (opencode.state, opencode.version) == ("ready", "1.99.1")
    seen = (place / "seen").read_text()
    assert "s3cret" not in seen
    assert str(place / "user") not in seen
    private = next(line for line in seen.splitlines() if line.startswith("HOME=")).partition("=")[2]
    assert not os.path.exists(private)


def test_a_program_that_does_not_answer_is_ended_with_what_it_started(
    place: Path,
) -> None:
    package(place, "opencode", None, f"sleep 600 & echo $$ $! > {place}/pids; sleep 600\n")
    said = asked.version([str(place / "bin" / "opencode")], path="/usr/bin:/bin", patience=1.0)
    assert said is None
    pids = [int(each) for each in (place / "pids").read_text().split()]
    until(lambda: not any(map(alive, pids)), what="it is gone, and so is its child")


def test_an_unknown_one_is_not_found(home: Path, place: Path) -> None:
    with fleet(home, place) as opened, pytest.raises(NotFound) as error:
        opened.get_harness("nobody")
    assert "claude" in error.value.hint


def test_doctor_names_them_and_an_absent_one_is_no_fault(home: Path, place: Path) -> None:
    package(place, "claude", "9.0.0")
    package(place, "codex", "0.1.0")
    package(place, "opencode", None, f"touch {place}/asked\n")
    with fleet(home, place, ANTHROPIC_API_KEY="k") as opened:
        found = opened.doctor()
    checks = {each.name: each for each in found.checks}
    assert found.healthy
    assert checks["harnesses"].ok is True
    assert "claude 9.0.0" in checks["harnesses"].detail
    assert "not installed: copilot" in checks["harnesses"].detail
    assert (checks["harness"].ok, checks["harness"].detail.split(":")[0]) == (None, "codex")
    assert not (place / "asked").exists()  # doctor starts no program of others


# doors


def test_the_command_lists_and_shows(home: Path, place: Path) -> None:
    package(place, "claude", "9.0.0")
    env = variables(place, ANTHROPIC_API_KEY="k", COLUMNS="120")
    said = headcount("harness", "list", env=env).out.splitlines()
    assert said[0].split() == ["NAME", "PROGRAM", "VERSION", "STATE", "WHAT", "TO", "DO"]
    claude = next(line for line in said if line.startswith("claude"))
    assert claude.split()[1:4] == ["claude", "9.0.0", "ready"]
    abilities = headcount("harness", "list", "--abilities", env=env).out
    assert "takeover" in next(line for line in abilities.splitlines() if line.startswith("claude"))
    listed = {each["name"]: each for each in answer("harness", "list", env=env)["harnesses"]}
    assert set(listed["claude"]["permissions"]) == find("claude").permissions
    shown = headcount("harness", "show", "claude", env=env).out
    assert all(words in shown for words in ("ready", "9.0.0", "ANTHROPIC_*", "resume", "hooks"))
    assert answer("harness", "show", "claude", env=env)["oldest"]
    assert headcount("harness", "show", "nobody").code == 4


def test_the_tool_answers_within_a_page(home: Path, place: Path) -> None:
    assert set(BY_NAME["list_harnesses"].who) == set(Who)
    with fleet(home, place) as opened:
        page = BY_NAME["list_harnesses"].call(opened)
    assert size(page.facts) <= PAGE_CHARS
    assert {each["name"] for each in page.facts["harnesses"]} == set(names())
    assert "truncated" not in page.facts


def test_a_client_asks_with_its_own_variables(home: Path, place: Path) -> None:
    package(place, "claude", "9.0.0")
    try:
        with daemons.Bridge(home, env=variables(place, ANTHROPIC_API_KEY="k"), cwd=place) as bridge:
            rows = bridge.call("list_harnesses")["harnesses"]
    finally:
        daemons.end(home)
    assert next(each["state"] for each in rows if each["name"] == "claude") == "ready"
