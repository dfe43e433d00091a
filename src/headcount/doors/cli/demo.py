"""`headcount demo`: a whole job to watch."""

from __future__ import annotations

import sys

import click

from headcount.doors.cli.show import json_option


@click.command(short_help="Watch a fleet do a whole job.")
@click.option(
    "--pace",
    type=click.FloatRange(min=0, max=60),
    default=0.6,
    show_default=True,
    metavar="S",
    help="Seconds between two acts of an agent.",
)
@click.option("--keep", is_flag=True, help="Keep the demo's home and project, and say where.")
@json_option
def demo(*, pace: float, keep: bool, as_json: bool) -> int:
    """Watch a fleet do a whole job over a git repository that it makes: races, a kill and a repair.

    It needs no model and no key, and leaves nothing. Exit code 1: the count was ever wrong, or the job
    did not go as planned.
    """
    from headcount.doors.demo import main

    sys.stdout.flush()
    return main(pace=pace, keep=keep, as_json=as_json)
