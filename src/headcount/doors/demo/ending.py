"""The demo's report: what became of everybody, and whether the count was right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headcount.api import Headcount
from headcount.domain.errors import EXIT_DONE, EXIT_FAILED
from headcount.doors.cli.show import show
from headcount.doors.cli.text import seconds, table
from headcount.doors.demo.count import Witness
from headcount.services.answers import AgentFacts, FindingFacts

EXPECTED: Final = {"completed": 9, "lost": 1}
"""6 roots, of which one is lost and replaced, the reviewer, and the lead's scout and digger."""


@dataclass(frozen=True, slots=True)
class Report:
    """How the demo ended. `wrong` has every moment at which registry and machine differed for too long."""

    count_right: bool
    as_planned: bool
    wrong: tuple[str, ...]
    outcomes: Mapping[str, int]
    compared: int
    most_at_once: int
    notes: tuple[str, ...]
    agents: tuple[AgentFacts, ...]
    findings: tuple[FindingFacts, ...]
    events: Mapping[str, int]


def report(fleet: Headcount, task_id: str, witness: Witness, notes: Sequence[str]) -> Report:
    """Return what the fleet's own doors and the witness say."""
    agents = tuple(reversed(fleet.list_agents(task_id=task_id, all=True).agents))
    outcomes = dict(Counter(each.outcome or each.state for each in agents))
    return Report(
        count_right=not witness.wrong,
        as_planned=outcomes == EXPECTED,
        wrong=tuple(witness.wrong),
        outcomes=outcomes,
        compared=witness.looks,
        most_at_once=witness.most,
        notes=tuple(notes),
        agents=agents,
        findings=fleet.get_findings(task_id).findings,
        events=_events(fleet, task_id),
    )


def tell(found: Report, *, as_json: bool) -> int:
    """Print the report; return the exit code: 0 if all is as it should be."""
    show(found, as_json=as_json, text=lambda: "\n".join(_lines(found)))
    return EXIT_DONE if found.count_right and found.as_planned else EXIT_FAILED


def _lines(found: Report) -> list[str]:
    said = [(each.severity, each.agent_id.rpartition("-")[0], each.message) for each in found.findings]
    lines = [
        table([_row(each) for each in found.agents], head=("agent", "depth", "outcome", "exit", "time")),
        "\nfindings",
        table(said),
        "\nevents  " + ", ".join(f"{kind} {number}" for kind, number in found.events.items()),
        *(f"- {note}" for note in found.notes),
        f"\n{_compared(found)}",
        *(f"WRONG: {each}" for each in found.wrong),
        "the count was right at every moment" if found.count_right else "the count was NOT right",
    ]
    if not found.as_planned:
        planned = f"the outcomes are {dict(found.outcomes)}, not {EXPECTED}"
        lines.append(f"but the job did not go as planned: {planned}")
    return lines


def _compared(found: Report) -> str:
    agents = f"{len(found.agents)} agents, at most {found.most_at_once} at once"
    return f"{agents}; rows and processes were compared {found.compared} times"


def _row(agent: AgentFacts) -> tuple[str, ...]:
    began, ended = seconds(agent.started_at), seconds(agent.ended_at)
    took = "" if began is None or ended is None else f"{ended - began:.1f} s"
    code = (
        str(agent.exit_code)
        if agent.exit_code is not None
        else (f"signal {agent.signal}" if agent.signal else "")
    )
    return (agent.agent_id, str(agent.depth), agent.outcome or agent.state, code, took)


def _events(fleet: Headcount, task_id: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    cursor, more = 0, True
    while more:
        found = fleet.read_events(cursor=cursor, limit=1000, task_id=task_id)
        counts.update(each.kind for each in found.events)
        cursor, more = found.next_cursor, found.more
    return dict(counts.most_common())
