"""The demo's report: what became of everybody, and whether the count was right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from headcount.api import Headcount
from headcount.doors.cli.text import seconds, table
from headcount.doors.demo.count import Witness
from headcount.services.answers import AgentFacts

EXPECTED: Final = {"completed": 9, "lost": 1}
"""6 roots, of which one is lost and replaced, the reviewer, and the lead's scout and digger."""


def ending(fleet: Headcount, task_id: str, witness: Witness, notes: Sequence[str]) -> int:
    """Print the report; return 0 if all is as it should be, else 1."""
    agents = list(reversed(fleet.list_agents(task_id=task_id, all=True).agents))
    findings = fleet.get_findings(task_id)
    print(table([_row(each) for each in agents], head=("agent", "depth", "outcome", "exit", "time")))
    print("\nfindings")
    rows = [(each.severity, each.agent_id.rpartition("-")[0], each.message) for each in findings.findings]
    print(table(rows))
    print("\nevents  " + ", ".join(f"{kind} {number}" for kind, number in _events(fleet, task_id).items()))
    for note in notes:
        print(f"- {note}")
    outcomes = Counter(each.outcome or each.state for each in agents)
    print(f"\n{len(agents)} agents, at most {witness.most} at once; ", end="")
    print(f"rows and processes were compared {witness.looks} times")
    for fault in witness.wrong:
        print(f"WRONG: {fault}")
    print("the count was NOT right" if witness.wrong else "the count was right at every moment")
    if outcomes != EXPECTED:
        print(f"but the job did not go as planned: the outcomes are {dict(outcomes)}, not {EXPECTED}")
    return 1 if witness.wrong or outcomes != EXPECTED else 0


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
