"""`headcount audit`: the guarantees, proved by behaviour in a scratch home."""

from __future__ import annotations

import sys

import click


@click.command(
    short_help="Prove the guarantees in a scratch home.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
@click.pass_context
def audit(context: click.Context) -> int:
    """Prove the guarantees by behaviour, in a scratch home; live agents are not touched.

    Exit code 1: not ready for production; the table says why. --help shows its options.
    """
    from headcount.doors.audit import main

    sys.stdout.flush()
    return main(context.args)
