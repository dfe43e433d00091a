"""`headcount show`: one agent, whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli.complete import complete_agent
from headcount.doors.cli.show import json_option
from headcount.doors.cli.show import show as answer
from headcount.doors.cli.text import dollars, harmless, paint, tokens
from headcount.doors.cli.worktree import named, said

if TYPE_CHECKING:
    from headcount.services.answers import AgentWhole, RunFacts, WorktreeFacts

_TEXT_MAX: Final = 2_000
"""Characters of a prompt or an answer that are shown; --json has them whole."""
_FILES_MAX: Final = 20


@click.command(short_help="Show all that is known of an agent.")
@click.argument("agent", metavar="AGENT", shell_complete=complete_agent)
@json_option
def show(*, agent: str, as_json: bool) -> None:
    """Show all that is known of an agent: how it was deployed, and of each of its runs how it ended, what
    it used and did, what it answered, and where its files are.
    """
    with fleets.opened() as fleet:
        found = fleet.get_agent(fleets.agent_id(fleet, agent))
    answer(found, as_json=as_json, text=lambda: "\n".join(_lines(found)))


def _lines(agent: AgentWhole) -> Iterator[str]:
    yield paint(f"{agent.agent_id}  {agent.outcome or agent.state}", "bold")
    yield from _table(
        task=f"{agent.task_id}  {harmless(agent.description)}",
        role=f"{agent.role}, depth {agent.depth}" + (f", child of {agent.parent}" if agent.parent else ""),
        harness=harmless(" ".join((agent.harness, *agent.command))),
        options=", ".join(f"{name} {harmless(str(value))}" for name, value in agent.options.items()),
        resumed=f"after a crash, at most {agent.resume_on_crash} times" if agent.resume_on_crash else "",
        directory=harmless(agent.cwd),
        flags=", ".join(agent.flags),
        policy=_policy(agent.policy),
        deployed=agent.created_at,
        said=_said(agent),
    )
    if agent.worktree is not None:
        yield from _worktree(agent.worktree)
    if agent.prompt:
        yield from _text("prompt", agent.prompt)
    for run in agent.runs:
        yield from _run(run)


def _worktree(tree: WorktreeFacts) -> Iterator[str]:
    yield from _table(
        worktree=f"{tree.state}, branch {harmless(tree.branch)}, from {tree.base[:12]}",
        kept=harmless(tree.trash_ref or ""),
        work=harmless(said(tree)),
    )
    yield from (f"  {harmless(line)}" for line in named(tree))


def _table(**rows: str) -> Iterator[str]:
    for name, value in rows.items():
        if value:
            yield f"{name:<11}{value}"


def _policy(policy: Mapping[str, object]) -> str:
    """Return the limits that are on and what is done then."""
    names = {"stall": "stall_after_s", "wall": "wall_limit_s", "memory": "memory_limit_mb"}
    names |= {"output": "output_limit_mb", "linger": "linger_after_s", "stopped": "stopped_after_s"}
    return ", ".join(
        f"{limit} {policy[limit]:g}: {policy[f'on_{name}']}" for name, limit in names.items() if policy[limit]
    )


def _said(agent: AgentWhole) -> str:
    if agent.reported is None:
        return ""
    progress = "" if agent.progress is None else f" {agent.progress}%"
    return f"{agent.reported}{progress}: {harmless(agent.message or '')}"


def _run(run: RunFacts) -> Iterator[str]:
    word = run.outcome or run.state
    yield ""
    yield f"{paint(f'run {run.run}', 'bold')}  {paint(word, word)}" + (
        f" ({run.ending})" if run.ending not in (None, word) else ""
    )
    account: Mapping[str, Any] = run.account or {}
    yield from _table(
        why=("takeover" if run.form == "interactive" else run.why)
        + (f", goes on with run {run.resumes}" if run.resumes else ""),
        reason=harmless(run.reason or ""),
        started=run.started_at or "",
        ended=run.ended_at or "",
        session=harmless(run.session_id or ""),
        model=harmless(str(account.get("model") or "")),
        used=_used(account),
        did=_did(account),
        denied=harmless(", ".join(map(str, account.get("denied") or ()))),
        files=_files(account),
        unread=_unread(account),
        path=harmless(run.path),
    )
    text = account.get("answer") or (run.result or {}).get("text")
    if isinstance(text, str) and text.strip():
        yield from _text("answer", text)


def _used(account: Mapping[str, Any]) -> str:
    said = tokens(account.get("input"), account.get("output"), account.get("cached"))
    cost = account.get("cost_usd")
    if cost is not None:
        said.append(dollars(cost) + (" by your prices" if account.get("cost_from") == "prices" else ""))
    elif said:
        said.append("cost unknown")
    return ", ".join(said)


def _did(account: Mapping[str, Any]) -> str:
    names = {
        "turns": "turns",
        "tool_calls": "tool calls",
        "failed_calls": "failed calls",
        "rate_limited": "times rate limited",
        "errors": "errors",
    }
    return ", ".join(f"{account[name]} {words}" for name, words in names.items() if account.get(name))


def _files(account: Mapping[str, Any]) -> str:
    files = account.get("files", ())
    if not files:
        return ""
    more = account["files_changed"] - len(files[:_FILES_MAX])
    return harmless(", ".join(files[:_FILES_MAX])) + (f" and {more} more" if more > 0 else "")


def _unread(account: Mapping[str, Any]) -> str:
    """Return what could not be read as it is; of a harness's stream nothing should."""
    names = {"unknown": "unknown entries", "oversized": "oversized lines", "torn": "torn lines"}
    names |= {"invalid": "lines that are not UTF-8", "cut": "bytes cut by the output cap"}
    return ", ".join(f"{account[name]} {words}" for name, words in names.items() if account.get(name))


def _text(title: str, text: str) -> Iterator[str]:
    shown = harmless(text.strip()[:_TEXT_MAX], lines=True)
    yield f"{title}:"
    yield from (f"  {line}" for line in shown.splitlines())
    if len(text.strip()) > _TEXT_MAX:
        yield f"  ({len(text.strip()) - _TEXT_MAX} more characters; --json has them)"
