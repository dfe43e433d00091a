"""`headcount connect` changes one entry of a client's settings, shows it first, and can take it back."""

from __future__ import annotations

import json
import os
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran, headcount, on_a_terminal

FILES = {
    "claude": (".claude.json", "mcpServers"),
    "codex": (".codex/config.toml", "mcp_servers"),
    "gemini": (".gemini/settings.json", "mcpServers"),
    "opencode": (".config/opencode/opencode.json", "mcp"),
    "qwen": (".qwen/settings.json", "mcpServers"),
    "copilot": (".copilot/mcp-config.json", "mcpServers"),
    "cursor": (".cursor/mcp.json", "mcpServers"),
    "vscode": (".config/Code/User/mcp.json", "servers"),
}
if sys.platform == "darwin":
    FILES["vscode"] = ("Library/Application Support/Code/User/mcp.json", "servers")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home without any client's command."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def connect(*args: str) -> Ran:
    return headcount("connect", *args)


def servers(user: Path, client: str) -> Any:
    name, key = FILES[client]
    text = (user / name).read_text()
    return (tomllib.loads(text) if name.endswith(".toml") else json.loads(text)).get(key, {})


def settings(user: Path, client: str, text: str) -> Path:
    path = user / FILES[client][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("client", FILES)
def test_a_client_without_settings_gets_them_and_loses_them_again(
    client: str, user: Path, home: Path
) -> None:
    ran = connect(client, "--yes")
    assert (ran.code, ran.err) == (0, "")
    entry = servers(user, client)["headcount"]
    argv = entry["command"] if isinstance(entry["command"], list) else [entry["command"], *entry["args"]]
    assert argv[-1] == "mcp"
    assert os.path.isabs(argv[0])
    assert entry.get("env", entry.get("environment")) == {"HEADCOUNT_HOME": str(home)}
    assert connect(client, "--undo", "--yes").code == 0
    assert "headcount" not in servers(user, client)


@pytest.mark.parametrize("client", sorted(set(FILES) - {"codex"}))
def test_other_settings_stay_and_the_old_file_too(client: str, user: Path) -> None:
    key = FILES[client][1]
    before = json.dumps(
        {"theme": "dark", key: {"other": {"command": "x"}}, "z": [1, "ü"]}, indent=4, ensure_ascii=False
    )
    path = settings(user, client, before)
    path.chmod(0o640)
    ran = connect(client, "--json", "--yes")
    after = json.loads(path.read_text())
    assert list(after) == ["theme", key, "z"]
    assert after[key].pop("headcount")
    assert after == json.loads(before)
    assert '\n    "theme"' in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert Path(ran.facts["backup"]).read_text() == before
    connect(client, "--undo", "--yes")
    assert json.loads(path.read_text()) == json.loads(before)


def test_every_line_of_a_toml_file_stays(user: Path) -> None:
    before = '# mine\nmodel = "o"  # the best\n\n[mcp_servers.other]\ncommand = "x"\n\n[profiles.a]\nb = 1\n'
    path = settings(user, "codex", before)
    assert connect("codex", "--yes").code == 0
    assert path.read_text().startswith(before)
    assert set(servers(user, "codex")) == {"other", "headcount"}
    assert connect("codex", "--yes").out.startswith("nothing to do")
    assert connect("codex", "--undo", "--yes").code == 0
    assert path.read_text().strip() == before.strip()


def test_connecting_twice_changes_nothing(user: Path) -> None:
    connect("gemini", "--yes")
    ran = connect("gemini", "--json")
    assert (ran.code, ran.facts["changed"], ran.facts["change"]) == (0, False, "")
    assert len(list((user / ".gemini").iterdir())) == 1


def test_the_change_is_shown_and_nothing_done_in_a_dry_run(user: Path) -> None:
    ran = connect("cursor", "--dry-run")
    assert ran.code == 0
    assert '+    "headcount": {' in ran.out
    assert not (user / ".cursor").exists()


def test_with_nobody_to_ask_nothing_is_changed(user: Path) -> None:
    ran = connect("cursor")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert not (user / ".cursor").exists()


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 130), ("\n", 130)])
def test_a_person_is_asked(typed: str, code: int, user: Path) -> None:
    ran = on_a_terminal("connect", "cursor", typing={"[y/N]": typed})
    assert "Change Cursor like this?" in ran.out
    assert ran.code == code
    assert (user / ".cursor" / "mcp.json").exists() == (code == 0)


@pytest.mark.parametrize("text", ['{"a": 1, // mine\n}', "[]", '{"servers": []}', "nonsense"])
def test_a_file_that_is_not_understood_is_not_touched(text: str, user: Path) -> None:
    path = settings(user, "vscode", text)
    ran = connect("vscode", "--yes", "--json")
    assert (ran.code, path.read_text()) == (2, text)
    assert "by hand" in ran.error["hint"]
    assert os.listdir(path.parent) == [path.name]


def test_a_linked_file_stays_a_link(user: Path) -> None:
    real = user / "dotfiles.json"
    real.write_text("{}")
    (user / ".cursor").mkdir()
    (user / ".cursor" / "mcp.json").symlink_to(real)
    connect("cursor", "--yes")
    assert (user / ".cursor" / "mcp.json").is_symlink()
    assert "headcount" in json.loads(real.read_text())["mcpServers"]


def test_every_backup_is_kept(user: Path) -> None:
    settings(user, "cursor", "{}")
    connect("cursor", "--yes")
    connect("cursor", "--undo", "--yes")
    texts = sorted(each.read_text() for each in (user / ".cursor").glob("*backup*"))
    assert len(texts) == 2
    assert "{}" in texts


def test_undoing_what_was_never_done_does_nothing(user: Path) -> None:
    ran = connect("qwen", "--undo")
    assert (ran.code, ran.err) == (0, "")
    assert not (user / ".qwen").exists()


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_a_client_with_a_command_is_changed_by_it(client: str, user: Path, home: Path) -> None:
    said = user / "said"
    program = user / "bin" / client
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\n')
    program.chmod(0o755)
    ran = connect(client, "--yes", "--json")
    words = said.read_text().splitlines()
    assert ran.facts["command"] == [client, *words]
    assert words[:2] == ["mcp", "add"]
    assert f"HEADCOUNT_HOME={home}" in words
    assert words[-1] == "mcp"
    connect(client, "--undo", "--yes")
    assert said.read_text().splitlines()[:2] == ["mcp", "remove"]
    assert not (user / FILES[client][0]).exists()
    assert connect(client, "--file", "--yes").code == 0
    assert (user / FILES[client][0]).exists()


def test_a_client_whose_command_fails_says_why(user: Path) -> None:
    program = user / "bin" / "claude"
    program.write_text("#!/bin/sh\necho it already exists >&2; exit 3\n")
    program.chmod(0o755)
    ran = connect("claude", "--yes", "--json")
    assert ran.code == 5
    assert "it already exists" in ran.error["message"]


def test_an_unknown_client_is_a_mistake() -> None:
    assert connect("emacs").code == 2
