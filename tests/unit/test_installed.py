"""Whether a program can work is known from what lies beside it; nothing is started to find out."""

import json
from pathlib import Path

import pytest

from headcount.domain.errors import PlacementFailed
from headcount.harnesses.base import Probe
from headcount.harnesses.installed import (
    check_login,
    find_installed,
    logged_in,
    package_version,
    parse_version,
)

PROBE = Probe(
    "tool",
    install="npm install -g tool",
    oldest=(2, 1),
    login_env=("TOOL_KEY", "HOUSE_*"),
    login_files=(".tool/auth.json",),
    login="run tool login",
)


def package(directory: Path, **facts: object) -> Path:
    """Install a package as npm does: its program, and a link to it in a folder of PATH."""
    home = directory / "lib" / "node_modules" / "tool"
    (home / "dist").mkdir(parents=True)
    (home / "package.json").write_text(
        json.dumps({"name": "@makers/tool", "bin": {"tool": "dist/x"}, **facts})
    )
    program = home / "dist" / "cli.js"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (directory / "bin").mkdir()
    (directory / "bin" / "tool").symlink_to(program)
    return directory / "bin" / "tool"


def find(directory: Path) -> str:
    return find_installed(PROBE, env={"PATH": str(directory / "bin")}, cwd="/")


@pytest.mark.parametrize("version", ["2.1", "2.1.0-beta.3", "10.0.0"])
def test_a_program_that_is_new_enough_is_found(tmp_path: Path, version: str) -> None:
    path = package(tmp_path, version=version)
    assert find(tmp_path) == str(path)


@pytest.mark.parametrize("version", ["2.0.99", "1.9"])
def test_one_that_is_too_old_is_refused_with_what_to_do(tmp_path: Path, version: str) -> None:
    package(tmp_path, version=version)
    with pytest.raises(PlacementFailed, match=rf"tool {version} is too old: 2\.1 or later") as caught:
        find(tmp_path)
    assert caught.value.hint == "npm install -g tool"


def test_a_package_of_one_program_gives_it_its_own_name(tmp_path: Path) -> None:
    assert package_version(str(package(tmp_path, bin="dist/cli.js", version="3.4")), "tool") == "3.4"


@pytest.mark.parametrize("facts", [{"bin": {"other": "x"}}, {"bin": None}, {"version": 7}, {"bin": 3}])
def test_a_package_that_is_not_the_programs_says_nothing_of_it(
    tmp_path: Path, facts: dict[str, object]
) -> None:
    path = package(tmp_path, **{"version": "0.1", **facts})
    assert package_version(str(path), "tool") is None
    assert find(tmp_path) == str(path)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_package_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    path = package(tmp_path)
    (tmp_path / "lib" / "node_modules" / "tool" / "package.json").write_text(text)
    assert package_version(str(path), "tool") is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.1.330 (Claude Code)", (2, 1, 330)), ("codex-cli 0.169.0", (0, 169, 0)), ("v3", (3,)), ("none", ())],
)
def test_a_version_is_read_from_what_a_program_says(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers


@pytest.mark.parametrize(
    ("env", "known"),
    [
        ({"TOOL_KEY": "k"}, True),
        ({"HOUSE_REGION": "x"}, True),
        ({"TOOL_KEY": "", "HOUSE_": ""}, False),
        ({}, False),
        ({"HOME": ""}, None),
    ],
)
def test_whether_somebody_is_logged_in(tmp_path: Path, env: dict[str, str], known: bool | None) -> None:
    assert logged_in(PROBE, env={"HOME": str(tmp_path), **env}) is known


def test_a_file_of_a_login_is_enough_and_without_it_a_deploy_says_what_to_do(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    with pytest.raises(PlacementFailed, match="not logged in") as caught:
        check_login(PROBE, env=env)
    assert caught.value.hint == "run tool login"
    (tmp_path / ".tool").mkdir()
    (tmp_path / ".tool" / "auth.json").write_text("{}")
    check_login(PROBE, env=env)


def test_a_program_without_any_known_login_is_not_judged(tmp_path: Path) -> None:
    assert logged_in(Probe("tool", install=""), env={"HOME": str(tmp_path)}) is None
