"""The command `headcount`, as every start of it goes: nothing is imported before it is needed."""

import sys


def main() -> int:
    """Run the command line and return its exit code.

    `headcount mcp` is the stdlib-only bridge: many of them live as long as their client, so click and
    what stands behind it are not loaded for it. Neither are they for the first thing that anybody types.
    """
    try:
        return _dispatched(sys.argv[1:])
    except KeyboardInterrupt:  # before the edge stands
        return 130


def _dispatched(argv: list[str]) -> int:
    if argv[:1] == ["mcp"] and not {"-h", "--help"}.intersection(argv):
        from headcount.doors.mcp import bridge

        return bridge.main(argv[1:])
    if argv in (["--help"], ["-h"]):
        from headcount.doors.cli.commands import overview

        return _say(overview())
    from headcount.doors.cli import edge

    return edge.run(["version"] if argv == ["--version"] else argv)


def _say(text: str) -> int:
    """Write `text`; a reader that has gone is no error worth a traceback."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as if SIGPIPE had ended us
    return 0
