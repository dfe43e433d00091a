"""The edge of the command line: what becomes of errors, interrupts and closed pipes."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from headcount.domain.errors import EXIT_DONE, EXIT_INFRASTRUCTURE, EXIT_USAGE, HeadcountError
from headcount.doors.cli import terminal
from headcount.doors.cli.edge_names import COMPLETE_VARIABLE
from headcount.doors.cli.root import root

_OF_OUTPUT: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO})
"""What writing to stdout fails with; these errors name no file."""

EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
"""As a program that SIGINT or SIGPIPE killed is seen by a shell."""

_WORDS: Final = (
    (" is not a valid integer range", " is not a whole number"),
    (" is not a valid integer", " is not a whole number"),
    (",\n\t", ", "),
    (" Choose from:\n\t", " Choose one of "),
)
"""What click says, and what we say instead; a list of choices does not go over many lines."""


def run(argv: Sequence[str]) -> int:
    """Run one command line; return its exit code. Never raises but on a broken interpreter."""
    terminal.prepare()
    try:
        code = _complete() if COMPLETE_VARIABLE in os.environ else _invoke(argv)
        if sys.stdout is not None:  # closed by the caller: nobody wants to hear
            sys.stdout.flush()
    except BrokenPipeError:
        _hush()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        _hush()
        print(f"headcount: the answer could not be written: {error.strerror}", file=sys.stderr)
        return EXIT_INFRASTRUCTURE
    return code


def _invoke(argv: Sequence[str]) -> int:
    as_json = wants_json(argv)
    try:
        with root.make_context("headcount", list(argv)) as context:
            code = root.invoke(context)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.UsageError as error:
        return _usage(error, as_json=as_json)
    except HeadcountError as error:
        return _failed(error.facts(), error.exit_code, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        print(file=sys.stderr)  # behind the terminal's own ^C
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.filename is None and error.errno in _OF_OUTPUT:
            raise
        return _unexpected(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the door: nobody else can say what happened
        return _unexpected(error, as_json=as_json)
    return code if isinstance(code, int) else EXIT_DONE


def wants_json(argv: Sequence[str]) -> bool:
    """Whether the answer is to be JSON, known before (and though) the rest cannot be parsed."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in own


def _complete() -> int:
    from click.shell_completion import shell_complete

    return shell_complete(root, {}, "headcount", COMPLETE_VARIABLE, os.environ[COMPLETE_VARIABLE])


def _usage(error: click.UsageError, *, as_json: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return EXIT_USAGE
    path = error.ctx.command_path if error.ctx else "headcount"
    facts = {"code": "usage", "message": _plain(error.format_message()), "hint": f"see '{path} --help'"}
    return _failed(facts, EXIT_USAGE, as_json=as_json)


def _plain(message: str) -> str:
    """Say what the parser says on one line and in words of ours."""
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    return message


def _failed(facts: Mapping[str, Any], code: int, *, as_json: bool) -> int:
    """Say what failed, on what, and what to do next."""
    if as_json:
        print(json.dumps({"error": facts}))
        return code
    if sys.stdout is not None:
        sys.stdout.flush()
    print(f"headcount: {facts['message']}", file=sys.stderr)
    for holder in facts.get("holders", ())[:5]:
        print(f"  held by {holder}", file=sys.stderr)
    if facts.get("hint"):
        print(f"  {facts['hint']}", file=sys.stderr)
    return code


def _unexpected(error: Exception, *, as_json: bool) -> int:
    if os.environ.get("HEADCOUNT_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    facts = {
        "code": "unexpected",
        "message": f"this should not have happened: {type(error).__name__}: {error}",
        "hint": "set HEADCOUNT_DEBUG=1 to see where, and please report it",
    }
    return _failed(facts, EXIT_INFRASTRUCTURE, as_json=as_json)


def _hush() -> None:
    """Our output goes nowhere: nothing more is written to it, not even at the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
