"""`headcount demo`: a whole job to watch, in a home of its own."""

from __future__ import annotations

import sys

import click


@click.command(
    short_help="Watch a fleet do a whole job.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
@click.pass_context
def demo(context: click.Context) -> int:
    """Watch a fleet do a whole job over a git repository that it makes: races, a kill and a repair.

    It needs no key and leaves nothing. Exit code 1: the count was ever wrong. --help shows its options.
    """
    from headcount.doors.demo import main

    sys.stdout.flush()
    return main(context.args)
