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
    head, script = _instructions(shell), _script(shell).lstrip()
    if script.startswith("#compdef"):  # zsh wants that on the first line
        first, _, script = script.partition("\n")
        head = f"{first}\n{head}"
    script = f"{head}\n{script}"
    show(
        {"shell": shell, "file": _FILES[shell], "script": script},
        as_json=as_json,
        text=script.rstrip,
    )


def _instructions(shell: str) -> str:
    install = f"#   headcount completion {shell} > {_FILES[shell]}{_MORE.get(shell, '')}"
    return f"# headcount: completion for {shell}. To install it:\n{install}"


def _script(shell: str) -> str:
    """Return what click has for the shell, without asking which version of it is installed here."""
    from click.shell_completion import ShellComplete, get_completion_class

    from headcount.doors.cli.root import root

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    return ShellComplete.source(made(root, {}, "headcount", COMPLETE_VARIABLE))
