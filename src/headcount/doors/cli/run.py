"""`headcount run`: one task, one or more agents, a live view, the result."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from headcount.domain.errors import EXIT_DONE, HeadcountError
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import tree
from headcount.doors.cli.arguments import Span, WithCommand, harness_options, harness_or_default, prompt_of
from headcount.doors.cli.complete import complete_task
from headcount.doors.cli.result import complaint, last_words
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, paint, used
from headcount.doors.cli.watch import Interrupted, Watch, change, shown

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.services.answers import UsedFacts

_TITLE_MAX: Final = 200
EXIT_SIGNALLED: Final = 128
"""And the signal's number: 130 after Ctrl-C, as shells have it."""


@dataclass(frozen=True, slots=True)
class Team:
    """What is asked for: so many agents of one kind."""

    agents: int
    role: str
    prompt: str | None
    harness: str
    command: tuple[str, ...]
    env: tuple[str, ...]
    options: dict[str, Any]


@click.command(cls=WithCommand, short_help="Run a prompt with one or more agents and show the result.")
@click.argument("prompt", required=False)
@click.option("--prompt-file", metavar="FILE", help="Read the prompt from a file; - is stdin.")
@harness_options
@click.option(
    "--agents",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="So many at once, on the same prompt.",
)
@click.option(
    "--role",
    default="worker",
    show_default=True,
    metavar="ROLE",
    help="What they are: investigator, builder, ...",
)
@click.option("--project", metavar="DIR", help="Where they work [default: this directory].")
@click.option(
    "--task", metavar="TASK", shell_complete=complete_task, help="For this task instead of a new one."
)
@click.option(
    "--timeout",
    type=Span(),
    metavar="TIME",
    help="Stop waiting after so long and stop the agents (exit code 6).",
)
@click.option("--detach", is_flag=True, help="Answer as soon as they run, and leave them.")
@json_option
def run(
    *,
    prompt: str | None,
    prompt_file: str | None,
    harness: str | None,
    env: tuple[str, ...],
    agents: int,
    role: str,
    project: str | None,
    task: str | None,
    timeout: float | None,
    detach: bool,
    command: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Run a prompt: create a task here, deploy agents, show them live, print what they answer.

    A plain program is an agent too: give it behind --, and the prompt is its stdin.

    \b
      headcount run "Find the slow test and say why"
      headcount run --harness command -- make test
      headcount run "Review the last commit" --agents 3 --role reviewer

    Ctrl-C stops the agents and what they deployed, a second one kills them. A task made for the run is
    closed at its end; --detach leaves agents and task as they are.

    Exit code 0: all completed. 1: one did not. 6: time ran out.
    """  # noqa: D301 - click's mark for lines that stay as they are
    if prompt is not None and prompt_file is not None:
        raise click.UsageError("Give PROMPT or --prompt-file, not both.")
    team = Team(
        agents,
        role,
        prompt_of(prompt, prompt_file),
        harness_or_default(harness, command),
        command,
        env,
        options,
    )
    with fleets.opened() as fleet:
        task_id = _task(fleet, team, task=task, project=project)
        watch = Watch(fleet, task_id)
        try:
            if detach:
                _deploy(fleet, team, watch)
                return _left(watch, as_json=as_json)
            code = _whole(fleet, team, watch, timeout=timeout, quiet=as_json)
        finally:
            if task is None and not (detach and watch.roots):
                _put_away(fleet, watch)
        _answer(fleet, watch, code, as_json=as_json)
    return code


def _task(fleet: Headcount, team: Team, *, task: str | None, project: str | None) -> str:
    if task is not None:
        return fleets.task_id(fleet, task)
    title = " ".join((team.prompt or " ".join(team.command)).split())
    return fleet.create_task(title[:_TITLE_MAX] or "run", project=project).task_id


def _deploy(fleet: Headcount, team: Team, watch: Watch) -> None:
    """Deploy the team. If one is refused or the person interrupts, `watch` knows those before it."""
    several = team.agents > 1
    for _ in range(team.agents):
        watch.check()
        made = fleet.deploy(
            watch.task_id,
            role=team.role,
            prompt=team.prompt,
            harness=team.harness,
            command=team.command,
            env=team.env,
            **team.options,
            allow_duplicate_role=several,
            allow_same_work=several,
        )
        watch.roots.append(made.agent_id)


def _whole(fleet: Headcount, team: Team, watch: Watch, *, timeout: float | None, quiet: bool) -> int:
    """Deploy, show, wait; whatever goes wrong, no agent of ours is left; return the exit code."""
    with watch.listening(), shown(quiet=quiet) as draw:
        try:
            _deploy(fleet, team, watch)
            return watch.until_over(timeout, draw=draw)
        except Interrupted as interrupted:
            print("stopping the agents; Ctrl-C again kills them", file=sys.stderr, flush=True)
            watch.end("interrupted", draw=draw)
            return EXIT_SIGNALLED + interrupted.number
        except HeadcountError:
            watch.end("the run could not go on", draw=draw)
            raise


def _put_away(fleet: Headcount, watch: Watch) -> None:
    """Close the task that was made for this run; one that never had an agent leaves the lists too."""
    with suppress(
        HeadcountError
    ):  # something of it goes on, or the registry cannot be written: it stays open
        fleet.close_task(watch.task_id)
        if not watch.roots:
            fleet.archive_task(watch.task_id)


def _left(watch: Watch, *, as_json: bool) -> int:
    agents = watch.agents()
    ids = [each.agent_id for each in agents]
    facts = {"task_id": watch.task_id, "exit_code": None, "agents": agents}
    show(facts, as_json=as_json, text=lambda: "\n".join([*ids, f"see 'headcount status {watch.task_id}'"]))
    return EXIT_DONE


def _answer(fleet: Headcount, watch: Watch, code: int, *, as_json: bool) -> None:
    """Print what the agents answered: of one the answer alone, of several under their names."""
    agents = watch.agents()
    words = {each.agent_id: last_words(fleet, each) for each in agents if each.agent_id in watch.roots}
    total = _used(fleet, watch)
    facts = {"task_id": watch.task_id, "exit_code": code, "agents": agents, "answers": words, "used": total}
    if as_json:
        show(facts, as_json=True, text=str)
        return
    for each in agents:
        if each.agent_id not in words:
            continue
        if len(words) > 1:
            print(paint(f"== {each.agent_id}: {change(each)}", "bold"))
        if words[each.agent_id]:
            print(harmless(words[each.agent_id].rstrip("\n"), lines=True), flush=True)
        if said := complaint(fleet, each):
            print(harmless(said.rstrip("\n"), lines=True), file=sys.stderr)
    said = "; ".join(filter(None, (tree.totals(agents), used(total))))
    print(f"{said}; see 'headcount status {watch.task_id}'", file=sys.stderr)


def _used(fleet: Headcount, watch: Watch) -> UsedFacts:
    """Return what the task's agents used; those of this run are asked for one by one, so that each has its
    account by then."""
    for each in watch.roots:
        fleet.get_agent(each)
    return fleet.get_task_status(watch.task_id).used
