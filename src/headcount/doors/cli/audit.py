"""`headcount audit`: the guarantees, proved by behaviour in a scratch home."""

from __future__ import annotations

import sys

import click

from headcount.doors.cli.show import json_option


@click.command(short_help="Prove the guarantees in a scratch home.")
@click.option("--only", multiple=True, metavar="ROW", help="Only this row of the table; repeatable.")
@json_option
def audit(*, only: tuple[str, ...], as_json: bool) -> int:
    """Prove the guarantees by behaviour, in a scratch home; live agents are not touched.

    Exit code 1: not ready for production; the table says why.
    """
    from headcount.doors.audit import CHECKS, main

    if unknown := sorted(set(only) - set(CHECKS)):
        raise click.UsageError(f"There is no row {unknown[0]!r}; the rows are {', '.join(CHECKS)}.")
    sys.stdout.flush()
    return main(only=only, as_json=as_json)
