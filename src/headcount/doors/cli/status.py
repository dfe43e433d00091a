"""`headcount status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from headcount.doors.cli import fleet as fleets
from headcount.doors.cli import terminal, tree
from headcount.doors.cli.complete import complete_task
from headcount.doors.cli.show import json_option, show
from headcount.doors.cli.text import fit, harmless, paint, used

if TYPE_CHECKING:
    from headcount.services.answers import TaskStatus


@click.command(short_help="Show where a task stands.")
@click.argument("task", metavar="[TASK]", required=False, shell_complete=complete_task)
@json_option
def status(*, task: str | None, as_json: bool) -> None:
    """Show where a task stands: its agents, counts, refusals, last reports and findings.

    Without TASK, the open task if there is only one.
    """
    with fleets.opened() as fleet:
        answer = fleet.get_task_status(fleets.the_task_id(fleet, task))
    show(answer, as_json=as_json, text=lambda: _said(answer))


def _said(answer: TaskStatus) -> str:
    width, task = terminal.width(), answer.task
    lines = [
        f"{task.state}, {task.priority}, {harmless(task.project)}",
        f"limits: {task.max_live} live, {task.max_agents} over its life, depth {task.max_depth}",
        f"count: {_counted(answer.counts)}",
    ]
    lines += [f"used: {said}"] if (said := used(answer.used)) else []
    lines += [f"refused: {_counted(answer.refusals)}"] if answer.refusals else []
    lines += [f"findings: {_counted(answer.findings_by_severity)}"] if answer.findings_by_severity else []
    lines += (
        [paint("halted: new deploys are refused until 'headcount halt --release'", "bad")]
        if answer.halted
        else []
    )
    drawn = tree.draw(answer.agents, now=terminal.now(), width=width, tasks={task.task_id: task.description})
    lines = [*(drawn or [fit(f"{task.task_id}  {harmless(task.description)}", width)]), *lines]
    lines += [
        fit(f"{each.agent_id} {each.status}{_percent(each.progress)}: {harmless(each.message)}", width)
        for each in answer.recent_reports
    ]
    lines += [
        fit(f"{each.agent_id} found {each.type} ({each.severity}): {harmless(each.message)}", width)
        for each in answer.recent_findings
    ]
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "none"


def _percent(progress: int | None) -> str:
    return "" if progress is None else f" {progress}%"
