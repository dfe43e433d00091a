"""`headcount completion`."""

from __future__ import annotations

from typing import Final

import click

from headcount.doors.cli.edge_names import COMPLETE_VARIABLE
from headcount.doors.cli.show import json_option, show

_FILES: Final = {
    "bash": "~/.local/share/bash-completion/completions/headcount",
    "zsh": "~/.zfunc/_headcount",
    "fish": "~/.config/fish/completions/headcount.fish",
}
_MORE: Final = {"zsh": "\n#   and have in ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit && compinit"}


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(list(_FILES)))
@json_option
def completion(*, shell: str, as_json: bool) -> None:
    """Print the completion script of a shell; its first lines say where it goes.

    Commands, options and the ids of tasks and agents are completed.
    """
    script = f"{_instructions(shell)}\n{_script(shell)}"
    show({"shell": shell, "file": _FILES[shell], "script": script}, as_json=as_json, text=lambda: script.rstrip())


def _instructions(shell: str) -> str:
    return f"# headcount: completion for {shell}. To install it:\n#   headcount completion {shell} > {_FILES[shell]}{_MORE.get(shell, '')}"


def _script(shell: str) -> str:
    """Return what click has for the shell, without asking which version of it is installed here."""
    from click.shell_completion import ShellComplete, get_completion_class

    from headcount.doors.cli.root import root

    made = get_completion_class(shell)
    assert made is not None, "click has all three"  # noqa: S101 - for the type checker
    return ShellComplete.source(made(root, {}, "headcount", COMPLETE_VARIABLE))
