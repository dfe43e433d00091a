"""Arguments that more than one command takes, and the types they are of."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from headcount.domain.errors import InvalidInput

_F = TypeVar("_F", bound=Callable[..., Any])
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw]?)", re.ASCII)
_SECONDS: Final[Mapping[str, float]] = {
    "ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800,
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.ASCII | re.IGNORECASE)
_BYTES: Final[Mapping[str, int]] = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
PROMPT_READ_MAX: Final = 16_000_000
"""Bytes read of a prompt file: far above the limit on prompts, which then gives the reason of the refusal."""


class Span(click.ParamType[float]):
    """A length of time: `90`, `90s`, `5m`, `2h`, `14d`; seconds within."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = _SPAN.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is not a length of time such as 90, 90s, 5m, 2h or 14d.", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


class Size(click.ParamType[int]):
    """A number of bytes: `500000`, `500k`, `20M`, `2G`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is not a size such as 500k, 20M or 2G.", param, ctx)
        return int(float(found[1]) * _BYTES[found[2].lower()])


class WithCommand(click.Command):
    """A command of ours that takes another's behind `--`; it arrives as `command`, untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, behind = args, []
        if "--" in args:
            at = args.index("--")
            own, behind = args[:at], args[at + 1 :]
        ctx.params["command"] = tuple(behind)
        try:
            return super().parse_args(ctx, own)
        except click.UsageError as error:
            if "unexpected extra argument" not in error.message:
                raise
            raise click.UsageError(f"{error.message} A command to run goes behind --.", ctx) from error

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- CMD ARG...]"]


def _json_file(_context: click.Context, _option: click.Parameter, path: str | None) -> Any:
    """Return what a JSON file says."""
    text = _text_file(_context, _option, path)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} is not JSON: {error}") from None


def _text_file(_context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    return None if path is None else text_of(path, what=f"file of {option.opts[0]}")


_HARNESS_OPTIONS: Final = (
    click.option(
        "--harness",
        metavar="NAME",
        help="claude, command, script, ... [default: command with CMD, else claude]",
    ),
    click.option("--model", metavar="NAME", help="The harness's model."),
    click.option("--effort", metavar="LEVEL", help="How hard the model thinks, where the harness has that."),
    click.option(
        "--permissions",
        type=click.Choice(["read", "edit", "ask", "bypass"]),
        help="What it may do unasked: look; change files in its directory [default]; that, and ask a "
        "person for more; everything.",
    ),
    click.option(
        "--allow-tool",
        "allowed_tools",
        multiple=True,
        metavar="RULE",
        help="A tool to be used unasked: shell, shell(git), web, or its own name; repeatable.",
    ),
    click.option(
        "--deny-tool",
        "denied_tools",
        multiple=True,
        metavar="RULE",
        help="A tool that it may not use; repeatable.",
    ),
    click.option("--max-turns", type=click.IntRange(min=1), metavar="N", help="Most turns of the model."),
    click.option("--budget-usd", type=float, metavar="USD", help="Most that its model may cost."),
    click.option(
        "--system-prompt-file",
        "system_prompt",
        metavar="FILE",
        callback=_text_file,
        help="Appended to the program's own system prompt.",
    ),
    click.option(
        "--result-schema",
        metavar="FILE",
        callback=_json_file,
        help="A JSON Schema that its final answer must fit.",
    ),
    click.option("--only-our-mcp", is_flag=True, help="Without the project's and your own MCP servers."),
    click.option(
        "--isolation",
        type=click.Choice(["shared", "worktree"]),
        help="In the project itself, or in a git worktree of its own [default: as the task has it].",
    ),
    click.option("--steer", is_flag=True, help="Messages reach it in the middle of its work."),
    click.option("--peers", is_flag=True, help="With the program's own tools to reach other sessions."),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME",
        help="A further variable of yours that the agent gets; repeatable.",
    ),
)
"""What every deploy takes. What is called as a field of `domain.options.Options` is one."""


def harness_options(command: _F) -> _F:
    """Give a command what every deploy takes."""
    for option in reversed(_HARNESS_OPTIONS):
        command = option(command)
    return command


def prompt_options(command: _F) -> _F:
    command = click.option("--prompt-file", metavar="FILE", help="Read the prompt from a file; - is stdin.")(
        command
    )
    return click.option("--prompt", metavar="TEXT", help="What the agent is to do.")(command)


def harness_or_default(harness: str | None, command: tuple[str, ...]) -> str:
    return harness or ("command" if command else "claude")


def prompt_of(prompt: str | None, prompt_file: str | None) -> str | None:
    """Return the prompt from where it was given.

    Raises:
        UsageError: it was given twice.
        InvalidInput: the file cannot be read, or is not UTF-8.
    """
    if prompt is not None and prompt_file is not None:
        raise click.UsageError("Give --prompt or --prompt-file, not both.")
    if prompt_file is None:
        return prompt
    return text_of(prompt_file, what="prompt file")


def text_of(path: str, *, what: str) -> str:
    """Return the text of a file that the user names; - is stdin.

    Raises:
        InvalidInput: the file cannot be read, or is not UTF-8.
    """
    try:
        return _read(path).decode()
    except OSError as error:
        raise InvalidInput(f"the {what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the {what} {path} is not UTF-8 text") from error


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(PROMPT_READ_MAX)
    with open(path, "rb") as file:
        return file.read(PROMPT_READ_MAX)
