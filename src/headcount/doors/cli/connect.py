"""`headcount connect`: register `headcount mcp` in an MCP client, and take it out again."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from headcount.domain.errors import Infrastructure
from headcount.doors.cli import programs, rewrite, terminal
from headcount.doors.cli.clients import CLIENTS, NAME, Client, Server
from headcount.doors.cli.show import json_option, show

_COMMAND_TIMEOUT: Final = 60.0
"""Seconds for a client's own command; the slow ones are Node programs on a cold disk."""


@dataclass(frozen=True, slots=True)
class Change:
    """What would be done: a command of the client's own, or a new text of its file."""

    client: str
    command: tuple[str, ...] | None
    path: Path
    before: str | None
    after: str | None

    @property
    def nothing(self) -> bool:
        return self.command is None and self.after == (self.before or "")

    def described(self) -> str:
        if self.command is not None:
            return shlex.join(self.command)
        return rewrite.difference(self.before, self.after or "", self.path).rstrip("\n")


@click.command(short_help="Register Headcount in an MCP client.")
@click.argument("client", metavar="CLIENT", type=click.Choice(list(CLIENTS)))
@click.option("--undo", is_flag=True, help="Take it out again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show the change.")
@click.option("--file", is_flag=True, help="Change the client's file, even if it has a command for that.")
@json_option
def connect(*, client: str, undo: bool, yes: bool, dry_run: bool, file: bool, as_json: bool) -> None:
    """Register 'headcount mcp' as an MCP server in a client, for all your projects.

    CLIENT is claude, codex, gemini, opencode, qwen, copilot, cursor or vscode.

    Shows the exact change first and asks. A changed file keeps all its other settings, and a backup
    of it stays beside it.
    """
    known = CLIENTS[client]
    change = _planned(known, undo=undo, by_file=file)
    backup = None
    if not as_json:
        print(
            change.described()
            or f"nothing to do: {known.title} {'does not have' if undo else 'has'} headcount"
        )
    if not change.nothing and not dry_run:
        _ask(known, yes=yes, as_json=as_json)
        backup = _carried_out(change)
        if not as_json:
            print(_said(known, change, backup, undo=undo))
    facts = {
        "client": client,
        "command": change.command,
        "path": None if change.command else str(change.path),
        "change": change.described(),
        "changed": not change.nothing and not dry_run,
        "backup": None if backup is None else str(backup),
    }
    if as_json:
        show(facts, as_json=True, text=str)


def _planned(client: Client, *, undo: bool, by_file: bool) -> Change:
    server = _server()
    path = client.file(Path.home(), terminal.environment())
    if client.add is not None and not by_file and shutil.which(client.name):
        command = client.remove if undo else client.add(server)
        return Change(client.name, tuple(command), path, None, None)
    before = rewrite.read(path)
    rewritten = rewrite.in_toml if path.suffix == ".toml" else rewrite.in_json
    if undo and before is None:
        return Change(client.name, None, path, None, "")
    after = rewritten(
        before, path=path, key=client.key, name=NAME, entry=None if undo else client.entry(server)
    )
    return Change(client.name, None, path, before, after)


def _server() -> Server:
    """Return how a client starts us: by a full path, for its PATH may not be ours; and with our home."""
    given = terminal.environment().get("HEADCOUNT_HOME")
    env = {"HEADCOUNT_HOME": str(Path(given).expanduser().absolute())} if given else {}
    return Server((*_own_command(), "mcp"), env)


def _own_command() -> tuple[str, ...]:
    started = Path(sys.argv[0])
    if started.name == "headcount" and started.is_file():
        return (str(started.absolute()),)
    beside = Path(sys.executable).with_name("headcount")
    if beside.is_file():
        return (str(beside),)
    return (sys.executable, "-m", "headcount")


def _ask(client: Client, *, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json or not terminal.interactive():
        raise click.UsageError("There is nobody to ask; add --yes, or --dry-run to see the change only.")
    if not click.confirm(f"Change {client.title} like this?", default=False):
        raise click.Abort


def _carried_out(change: Change) -> Path | None:
    if change.command is None:
        return rewrite.replace(change.path, change.after or "")
    code, said = programs.ran(change.command, timeout=_COMMAND_TIMEOUT)
    if code != 0:
        raise Infrastructure(
            f"'{shlex.join(change.command)}' failed with exit code {code}: {said}",
            hint="--file changes its file instead",
        )
    return None


def _said(client: Client, change: Change, backup: Path | None, *, undo: bool) -> str:
    state = "no longer has" if undo else "has"
    kept = f"; the file as it was: {backup}" if backup else ""
    again = "" if undo else f"; 'headcount connect {change.client} --undo' takes it out again"
    return f"{client.title} {state} headcount{kept}{again}"
