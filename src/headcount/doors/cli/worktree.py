"""`headcount worktree`: the git worktrees that were made for agents."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import harmless, table

if TYPE_CHECKING:
    from headcount.services.answers import WorktreeDiff, WorktreeFacts, WorktreeList, WorktreeRemoved

_agent = click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
_NAMED: Final = 20
"""Commits, files and dirty paths that are named; --json has more."""


@click.group(short_help="List, compare, remove or bring back agents' worktrees.")
def worktree() -> None:
    """List, compare, remove or bring back the git worktrees that were made for agents.

    An agent gets one with 'headcount deploy --isolation worktree', or by its task.
    """


@worktree.command(name="list", short_help="List worktrees, newest first.")
@click.option("--all", "removed", is_flag=True, help="Removed ones too.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many.",
)
@click.option("--cursor", type=int, metavar="CURSOR", help="Go on behind an earlier answer.")
@json_option
def list_(*, removed: bool, limit: int, cursor: int | None, as_json: bool) -> None:
    """List worktrees, newest first, with what the last run of each agent left there."""
    with fleets.opened() as fleet:
        page = fleet.list_worktrees(removed=removed, limit=limit, cursor=cursor)
    show(page, as_json=as_json, text=lambda: _listing(page))


def _listing(page: WorktreeList) -> str:
    if not page.worktrees:
        return "no worktrees"
    rows = [
        (each.agent_id, "in use" if each.live else each.state, harmless(each.path), harmless(said(each)))
        for each in page.worktrees
    ]
    more = [f"more: --cursor {page.next_cursor}"] if page.next_cursor else []
    return "\n".join([table(rows, head=("AGENT", "STATE", "PATH", "WORK")), *more])


def said(tree: WorktreeFacts) -> str:
    """Return in a line what is in a worktree."""
    result: Mapping[str, Any] = tree.result or {}
    if not result:
        return ""
    if "error" in result:
        return str(result["error"]).splitlines()[0]
    words = [f"{result['commit_count']} commits"]
    if result["files_changed"] is not None:
        words.append(f"{result['files_changed']} files +{result['added']} -{result['removed']}")
    if result["dirty_count"]:
        words.append(f"{result['dirty_count']} not committed")
    words += [str(result[name]) for name in ("unfinished", "unseen") if result[name]]
    return ", ".join(words)


def named(tree: WorktreeFacts) -> Iterator[str]:
    """Yield the commits that are in a worktree, and the files that are not committed."""
    result: Mapping[str, Any] = tree.result or {}
    for each in result.get("commits", ())[:_NAMED]:
        yield f"{each['commit'][:12]} {each['subject']}"
    yield from result.get("dirty", ())[:_NAMED]


@worktree.command(short_help="Show how a worktree differs from its base.")
@_agent
@json_option
def diff(*, agent: str, as_json: bool) -> None:
    """Show how an agent's worktree differs from the commit that it began at, committed or not, new files
    included."""
    with fleets.opened() as fleet:
        answer = fleet.get_worktree_diff(fleets.agent_id(fleet, agent), max_bytes=100_000_000)
    show(answer, as_json=as_json, text=lambda: _diff(answer))


def _diff(answer: WorktreeDiff) -> str:
    """Return the diff: for a person harmless, for another program as it is."""
    text = answer.diff.removesuffix("\n")
    if not answer.whole:
        print("headcount: the diff is cut", file=sys.stderr)
    return harmless(text, lines=True) if sys.stdout.isatty() else text


@worktree.command(short_help="Remove a worktree and its branch.")
@_agent
@click.option("--snapshot", is_flag=True, help="Keep under a git ref what would be lost with it.")
@json_option
def remove(*, agent: str, snapshot: bool, as_json: bool) -> None:
    """Remove the worktree of an agent that is over, and its branch, if nothing is lost with them. The
    directory goes to the trash folder, which is yours to delete.

    Refused if a file is not committed or a commit is on no other branch, but for --snapshot; and always if
    it is in use, is locked, or cannot be inspected.
    """
    with fleets.opened() as fleet:
        answer = fleet.remove_worktree(fleets.agent_id(fleet, agent), snapshot=snapshot)
    show(answer, as_json=as_json, text=lambda: _removed(answer))


def _removed(answer: WorktreeRemoved) -> str:
    lines = [f"the worktree of {answer.agent_id} is removed"]
    if answer.trash:
        lines.append(f"trash: {harmless(answer.trash)}")
    if answer.trash_ref:
        lines.append(f"kept: {harmless(answer.trash_ref)}")
    return "\n".join([*lines, f"'headcount worktree undo {answer.agent_id}' brings it back"])


@worktree.command(short_help="Bring a removed worktree back.")
@_agent
@json_option
def undo(*, agent: str, as_json: bool) -> None:
    """Bring a removed worktree back, with its branch; from a snapshot with its files and staged state too."""
    with fleets.opened() as fleet:
        answer = fleet.undo_worktree(fleets.agent_id(fleet, agent))
    show(answer, as_json=as_json, text=lambda: f"{harmless(answer.path)} is there again")
