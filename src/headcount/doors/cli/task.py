"""`headcount task`: the pieces of work."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED, InvalidInput
from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.arguments import Span, text_of
from headcount.doors.cli.complete import complete_task
from headcount.doors.cli.policy import policy_options
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.stop import line
from headcount.doors.cli.text import harmless, paint, table

if TYPE_CHECKING:
    from headcount.services.answers import PausedTask, TaskFacts, TaskList, UnpausedTask

_LIMIT = click.IntRange(min=1)


@click.group(short_help="Create, list, show, pause, close or archive tasks.")
def task() -> None:
    """Create, list, show, pause, close or archive tasks.

    A task is a piece of work for one or more agents, over one project directory.
    """


@task.command(short_help="Create a task.")
@click.argument("description")
@click.option("--project", metavar="DIR", help="The directory that agents work in [default: this one].")
@click.option(
    "--priority",
    type=click.Choice(["P0", "P1", "P2", "P3"]),
    default="P2",
    show_default=True,
    help="How urgent.",
)
@click.option("--background", metavar="TEXT", default="", help="What an agent should know before it begins.")
@click.option(
    "--deliverable",
    "deliverables",
    multiple=True,
    metavar="TEXT",
    help="What is to be there at the end; repeatable.",
)
@click.option(
    "--criterion", "success_criteria", multiple=True, metavar="TEXT", help="When it is a success; repeatable."
)
@click.option(
    "--constraint", "constraints", multiple=True, metavar="TEXT", help="What must not happen; repeatable."
)
@click.option(
    "--file", "relevant_files", multiple=True, metavar="PATH", help="A file that matters; repeatable."
)
@click.option(
    "--conversation",
    "conversation_file",
    metavar="FILE",
    help="The talk that led to it: a JSON list of {role, content, timestamp}; - is stdin.",
)
@click.option("--max-live", type=_LIMIT, metavar="N", help="Most agents live at once.")
@click.option("--max-agents", type=_LIMIT, metavar="N", help="Most agents over the task's whole life.")
@click.option("--max-depth", type=_LIMIT, metavar="N", help="Deepest child; roots are at depth 1.")
@click.option(
    "--spawn-rule",
    "rules",
    multiple=True,
    metavar="ROLE=ROLE,...",
    help="Which roles a role may deploy; repeatable.",
)
@click.option(
    "--isolation",
    type=click.Choice(["shared", "worktree"]),
    default="shared",
    show_default=True,
    help="Its agents work in the project itself, or each in a git worktree of its own.",
)
@click.option("--setup", metavar="CMD", default="", help="A command to run in each new worktree.")
@policy_options
@json_option
def create(
    *,
    description: str,
    rules: tuple[str, ...],
    conversation_file: str | None,
    setup: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Create a task and print its id."""
    conversation = _conversation(conversation_file)
    asked |= {"spawn_rules": _rules(rules), "setup": _words(setup)}
    with fleets.opened() as fleet:
        made = fleet.create_task(description, conversation=conversation, **asked)
    show(made, as_json=as_json, text=lambda: made.task_id)


def _conversation(path: str | None) -> list[Any]:
    """Return the messages of a file; what they are is checked where every door's are.

    Raises:
        InvalidInput: it cannot be read, or is no JSON list.
    """
    if path is None:
        return []
    try:
        found = json.loads(text_of(path, what="conversation"))
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}", hint="give a list of {role, content}") from error
    if not isinstance(found, list):
        raise InvalidInput(f"{path} is not a JSON list", hint="give a list of {role, content}")
    return found


def _words(command: str) -> list[str]:
    """Return a command's words, quoted as for a shell; none is started."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise click.BadParameter(f"{error}", param_hint="--setup") from error


def _rules(given: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """Return `lead=builder,tester` as a mapping; `builder=` lets builders deploy nobody."""
    rules = {}
    for each in given:
        role, sign, allowed = each.partition("=")
        if not sign or not role:
            raise click.BadParameter(f"{each!r} is not ROLE=ROLE,...", param_hint="--spawn-rule")
        rules[role] = tuple(filter(None, (one.strip() for one in allowed.split(","))))
    return rules or None


@task.command(name="list", short_help="List tasks, newest first.")
@click.option("--state", type=click.Choice(["open", "paused", "closed", "archived"]), help="Only these.")
@click.option("--limit", type=_LIMIT, metavar="N", default=50, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="CURSOR", help="Go on behind an earlier answer.")
@json_option
def list_(*, state: str | None, limit: int, cursor: str | None, as_json: bool) -> None:
    """List tasks, newest first."""
    with fleets.opened() as fleet:
        page = fleet.list_tasks(state=state, limit=limit, cursor=cursor)
    show(page, as_json=as_json, text=lambda: _listing(page))


def _listing(page: TaskList) -> str:
    if not page.tasks:
        return "no tasks"
    rows = [(each.task_id, each.state, each.priority, harmless(each.description)) for each in page.tasks]
    more = [f"more: --cursor {page.next_cursor}"] if page.next_cursor else []
    return "\n".join([table(rows, head=("TASK", "STATE", "PRIO", "DESCRIPTION")), *more])


@task.command(name="show", short_help="Show a task.")
@click.argument("task_id", metavar="TASK", shell_complete=complete_task)
@json_option
def show_(*, task_id: str, as_json: bool) -> None:
    """Show a task as it was created; 'headcount status' shows where it stands."""
    with fleets.opened() as fleet:
        facts = fleet.get_task_status(fleets.task_id(fleet, task_id)).task
    show(facts, as_json=as_json, text=lambda: _facts(facts))


def _facts(facts: TaskFacts) -> str:
    rows = [
        ("task", facts.task_id),
        ("state", facts.state),
        ("priority", facts.priority),
        ("project", harmless(facts.project)),
        ("limits", f"{facts.max_live} live, {facts.max_agents} over its life, depth {facts.max_depth}"),
        ("created", facts.created_at),
    ]
    if facts.isolation != "shared":
        rows.append(("isolation", facts.isolation))
    if facts.setup:
        rows.append(("set-up", harmless(shlex.join(facts.setup))))
    if facts.policy:
        rows.append(("policy", harmless(json.dumps(facts.policy))))
    if facts.closed_at:
        rows.append(("closed", facts.closed_at))
    rows.extend(
        ("spawn rule", f"{role} -> {', '.join(may) or 'nobody'}")
        for role, may in (facts.spawn_rules or {}).items()
    )
    return "\n".join(
        [paint(harmless(facts.description), "bold"), *(f"{name:<11}{value}" for name, value in rows)]
    )


@task.command(short_help="Let a task begin no run until it is resumed.")
@click.argument("task_id", metavar="TASK", shell_complete=complete_task)
@click.option("--stop", is_flag=True, help="Also stop its live agents.")
@click.option("--grace", type=Span(), metavar="TIME", help="With --stop: time between TERM and KILL.")
@click.option("--reason", metavar="TEXT", default="", help="For the record.")
@json_option
def pause(*, task_id: str, stop: bool, grace: float | None, reason: str, as_json: bool) -> int:
    """Pause a task: until 'task resume' it begins no run, whoever asks.

    Deploys and resumes are refused; messages and restarts wait. Live agents go on to their own end unless
    --stop is given. Exit code 1: something of a stopped agent is left, and is listed.
    """
    with fleets.opened() as fleet:
        found = fleet.pause_task(fleets.task_id(fleet, task_id), stop=stop, reason=reason, grace=grace)
    show(found, as_json=as_json, text=lambda: _paused(found))
    return EXIT_FAILED if any(each.survivors for each in found.stopped) else EXIT_DONE


def _paused(found: PausedTask) -> str:
    lines = [f"{found.task.task_id} is {found.task.state}", *map(line, found.stopped)]
    if found.live:
        lines.append(f"live, and going on to their own end: {', '.join(found.live)}")
    return "\n".join(lines)


@task.command(short_help="Let a paused task go on.")
@click.argument("task_id", metavar="TASK", shell_complete=complete_task)
@click.option("--agents", is_flag=True, help="Also let go on the agents that the pause stopped.")
@json_option
def resume(*, task_id: str, agents: bool, as_json: bool) -> int:
    """Let a paused task begin runs again, and say which agents its pause stopped and can go on.

    Exit code 1: with --agents, one of them could not go on.
    """
    with fleets.opened() as fleet:
        found = fleet.resume_task(fleets.task_id(fleet, task_id), agents=agents)
    show(found, as_json=as_json, text=lambda: _resumed(found))
    return EXIT_FAILED if agents and any(each.why for each in found.agents) else EXIT_DONE


def _resumed(found: UnpausedTask) -> str:
    states = {"can_resume": "can go on: headcount resume", "cannot_resume": "cannot go on"}
    lines = [f"{found.task.task_id} is {found.task.state}"]
    for each in found.agents:
        said = states.get(each.state, f"goes on in run {each.run}")
        lines.append(f"{each.agent_id} {said}" + (f": {harmless(each.why)}" if each.why else ""))
    return "\n".join(lines)


@task.command(short_help="Close a task.")
@click.argument("task_id", metavar="TASK", shell_complete=complete_task)
@json_option
def close(*, task_id: str, as_json: bool) -> None:
    """Close a task: it takes no new agents. Refused while one is live."""
    with fleets.opened() as fleet:
        facts = fleet.close_task(fleets.task_id(fleet, task_id))
    show(facts, as_json=as_json, text=lambda: f"{facts.task_id} is {facts.state}")


@task.command(short_help="Archive a closed task.")
@click.argument("task_id", metavar="TASK", shell_complete=complete_task)
@json_option
def archive(*, task_id: str, as_json: bool) -> None:
    """Archive a closed task: it leaves the lists; all of it can still be read."""
    with fleets.opened() as fleet:
        facts = fleet.archive_task(fleets.task_id(fleet, task_id))
    show(facts, as_json=as_json, text=lambda: f"{facts.task_id} is {facts.state}")
