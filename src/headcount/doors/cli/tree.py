"""The fleet as a tree, one agent a line, within the width of the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headcount.doors.cli import terminal
from headcount.doors.cli.text import columns, fit, harmless, pad, paint, seconds, span

if TYPE_CHECKING:
    from headcount.services.answers import AgentFacts

_BOXES: Final = ("├─ ", "└─ ", "│  ", "   ")
_ASCII: Final = ("|- ", "`- ", "|  ", "   ")
_LIVE: Final = frozenset({"reserved", "running", "stopping"})
_FIXED: Final = 9 + 6 + 4 + 4 * 2
"""Columns of state, age and progress, and what stands between all columns."""


@dataclass(frozen=True, slots=True)
class Line:
    """One agent and the branches that lead to it."""

    branch: str
    agent: AgentFacts


def live(agent: AgentFacts) -> bool:
    return agent.state in _LIVE


def word(agent: AgentFacts) -> str:
    """Return what an agent is, in one word: its state while it lives, then its outcome. One that a person has
    taken over is not said to run: it waits for him."""
    taken_over = agent.state == "running" and agent.form == "interactive"
    return "interactive" if taken_over else agent.outcome or agent.state


def draw(
    agents: Sequence[AgentFacts], *, now: float, width: int, tasks: Mapping[str, str] | None = None
) -> list[str]:
    """Return the lines of the tree, grouped by task; `tasks` has the descriptions."""
    drawn: list[str] = []
    lines = [(task, list(_branches(members))) for task, members in _by_task(agents).items()]
    name = _name_width((line for _, group in lines for line in group), width)
    for task, group in lines:
        about = harmless((tasks or {}).get(task, ""))
        drawn.append(paint(fit(f"{task}  {about}".rstrip(), width), "bold"))
        drawn.extend(_drawn(line, now=now, name=name, width=width) for line in group)
    return drawn


def totals(agents: Sequence[AgentFacts]) -> str:
    """Return the count in words, such as `2 live, 3 ended: 2 completed, 1 failed`."""
    ended = Counter(word(each) for each in agents if not live(each))
    count = f"{sum(map(live, agents))} live"
    if ended:
        count += f", {ended.total()} ended: " + ", ".join(f"{n} {what}" for what, n in sorted(ended.items()))
    return count


def layers(agents: Sequence[AgentFacts]) -> str:
    """Return what holds the live agents' processes together; that they stand apart from us does not."""
    names = sorted({name for each in agents if live(each) for name in each.layers} - {"apart"})
    return f", held by {', '.join(names)}" if names else ""


def _by_task(agents: Sequence[AgentFacts]) -> dict[str, list[AgentFacts]]:
    groups: dict[str, list[AgentFacts]] = {}
    for each in agents:
        groups.setdefault(each.task_id, []).append(each)
    return groups


def _branches(agents: Sequence[AgentFacts]) -> Iterator[Line]:
    """Yield a task's agents, children behind their parents; one whose parent is not shown is a root."""
    shown = {each.agent_id for each in agents}
    children: dict[str | None, list[AgentFacts]] = {}
    for each in agents:
        children.setdefault(each.parent if each.parent in shown else None, []).append(each)
    tee, corner, bar, gap = _BOXES if terminal.boxes() else _ASCII
    left = [(each, "", True) for each in reversed(children.get(None, []))]
    last = {group[-1].agent_id for group in children.values()}
    while left:
        agent, before, _ = left.pop()
        final = agent.agent_id in last
        yield Line(before + (corner if final else tee), agent)
        deeper = before + (gap if final else bar)
        left.extend((child, deeper, False) for child in reversed(children.get(agent.agent_id, [])))


def _name_width(lines: Iterator[Line], width: int) -> int:
    widest = max((len(line.branch) + len(line.agent.agent_id) for line in lines), default=0)
    return min(widest, max(24, width - _FIXED - 8))


def _drawn(line: Line, *, now: float, name: int, width: int) -> str:
    agent = line.agent
    begun, over = seconds(agent.started_at), seconds(agent.ended_at)
    age = span(None if begun is None else (over or now) - begun)
    progress = "" if agent.progress is None else f"{agent.progress}%"
    cells = [
        pad(fit(line.branch + agent.agent_id, name), name),
        paint(pad(fit(word(agent), 12), 9), word(agent)),
        f"{age:>6}",
        f"{progress:>4}",
    ]
    room = width - name - max(9, min(12, len(word(agent)))) - 6 - 4 - 4 * 2
    return "  ".join([*cells, fit(_message(agent), room)]).rstrip()


def _message(agent: AgentFacts) -> str:
    """Return the last word on an agent: why it ended badly, else what the watchdog sees and it said last."""
    said = harmless(agent.message or "")
    if agent.reported in {"blocked", "failed"} and live(agent):
        said = f"{agent.reported}: {said}"
    if agent.flags:
        said = f"{', '.join(agent.flags)}! {said}".rstrip()
    why = harmless(agent.reason or "")
    bad = not live(agent) and word(agent) != "completed"
    return why if bad and why else said


__all__ = ["columns", "draw", "live", "totals", "word"]
