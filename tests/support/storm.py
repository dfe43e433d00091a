"""Random operations and violence on a real fleet; then, whether anything is lost, doubled or left.

One seed is one list of operations. What each of them meets depends on the machine's timing, so a seed that
fails says where to look rather than replaying exactly.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headcount import Headcount
from headcount.config import Home
from headcount.daemon import start
from headcount.domain.errors import HeadcountError
from headcount.services.answers import AgentFacts
from tests.support import agent_processes, daemons
from tests.support.clocks import YEAR, Clock
from tests.support.fleets import alive, fleet
from tests.support.waiting import until

ROLES: Final = 12
PATIENCE: Final = 60.0
WORK: Final = """
n=0
while [ $n -lt {many} ]; do
    n=$((n+1))
    headcount finding note "{tag}.$n" >/dev/null 2>&1 && echo "finding {tag}.$n"
    headcount report working "{tag}.$n" >/dev/null 2>&1 && echo "report {tag}.$n"
done
{then}
"""
THENS: Final = (
    "exit 0",
    "exit 3",
    "exec sleep 600",
    "setsid sleep 601 & sleep 602",
    "trap '' TERM; sleep 603",
)
ACKNOWLEDGED: Final = re.compile(r"^(finding|report) (\S+)$", re.MULTILINE)


@dataclass
class Report:
    """What was done, and what was found afterwards; `wrong` is empty if every promise was kept."""

    seed: int
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return it for a person to read."""
        blocks = (("operations", self.done), ("refusals and errors", self.refused), ("ends", self.ends))
        lines = [f"seed {self.seed}"]
        for title, counted in blocks:
            lines += [
                f"{title}: {counted.total()}",
                *(f"  {n:6}  {name}" for name, n in counted.most_common()),
            ]
        lines += [f"reports and findings acknowledged: {self.acknowledged}"]
        return "\n".join([*lines, *(self.wrong or ["nothing is lost, doubled, forgotten or left behind"])])


class Storm:
    """The operations, each by its name."""

    def __init__(self, opened: Headcount, home: Path, project: Path, seed: int) -> None:
        self.opened = opened
        self.home = home
        self.chance = random.Random(seed)
        self.report = Report(seed)
        self.clock = Clock(project)
        self.task = opened.create_task("a storm", project=project, max_agents=100_000).task_id
        self.stopped: set[int] = set()
        self.tags = 0
        self.acts: Mapping[Callable[[], None], int] = {
            self.deploy: 40,
            self.stop: 8,
            self.kill: 4,
            self.kill_agents_process: 8,
            self.kill_runner: 6,
            self.kill_daemon: 4,
            self.kill_tmux: 3,
            self.freeze_agent: 4,
            self.freeze_tmux: 2,
            self.freeze_daemon: 2,
            self.thaw: 8,
            self.move_clock: 3,
            self.deploy_without_descriptors: 3,
            self.look: 6,
            self.repair: 4,
        }

    def go(self, operations: int) -> None:
        acts, weights = list(self.acts), list(self.acts.values())
        for _ in range(operations):
            act = self.chance.choices(acts, weights)[0]
            self.report.done[act.__name__] += 1
            try:
                act()
            except HeadcountError as error:
                self.report.refused[error.code] += 1

    # what a user does

    def deploy(self) -> None:
        self.tags += 1
        script = WORK.format(
            many=self.chance.randint(0, 2), tag=f"t{self.tags}", then=self.chance.choice(THENS)
        )
        role = f"role{self.chance.randrange(ROLES)}"
        self.opened.deploy(self.task, role=role, harness="command", command=["sh", "-c", script])

    def deploy_without_descriptors(self) -> None:
        """Deploy while nearly every file descriptor is taken."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = {int(name) for name in os.listdir("/proc/self/fd")}
        holes = [os.dup(0) for _ in range(max(taken) + 1 - len(taken))]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + self.chance.randint(2, 16), hard))
        try:
            self.deploy()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in holes:
                os.close(each)

    def stop(self) -> None:
        if agent := self.any_live():
            self.opened.stop_agent(agent.agent_id, grace=0.2)

    def kill(self) -> None:
        if agent := self.any_live():
            self.opened.kill_agent(agent.agent_id)

    def look(self) -> None:
        self.opened.get_task_status(self.task)

    def repair(self) -> None:
        self.opened.validate_and_repair_registry(dry_run=False)

    # violence

    def kill_agents_process(self) -> None:
        self.signal_agent(signal.SIGKILL)

    def freeze_agent(self) -> None:
        self.signal_agent(signal.SIGSTOP)

    def signal_agent(self, number: int) -> None:
        agent = self.any_live()
        if agent and agent.pid and agent.pid in agent_processes.by_agent(self.home)[agent.agent_id]:
            self.signal(agent.pid, number)

    def kill_runner(self) -> None:
        agent = self.any_live()
        found = self.opened.get_agent(agent.agent_id) if agent else None
        if found and found.runner_pid and alive(found.runner_pid):
            self.signal(found.runner_pid, signal.SIGKILL)

    def kill_daemon(self) -> None:
        self.signal_daemon(signal.SIGKILL)

    def freeze_daemon(self) -> None:
        self.signal_daemon(signal.SIGSTOP)

    def signal_daemon(self, number: int) -> None:
        pid = start.holder(Home(self.home))
        if pid is not None:
            self.signal(pid, number)
        else:
            start.spawn(Home(self.home), daemons.environment(self.home, self.clock.env))

    def kill_tmux(self) -> None:
        self.signal_tmux(signal.SIGKILL)

    def freeze_tmux(self) -> None:
        self.signal_tmux(signal.SIGSTOP)

    def signal_tmux(self, number: int) -> None:
        for pid in pids_of("tmux", str(self.home / "tmux.sock")):
            self.signal(pid, number)

    def move_clock(self) -> None:
        """Move the wall clock of the daemons that follow."""
        self.clock.move(self.chance.choice((YEAR, -YEAR, 0)))

    def thaw(self) -> None:
        for pid in self.stopped:
            self.signal(pid, signal.SIGCONT)
        self.stopped.clear()

    def signal(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if number == signal.SIGSTOP:
            self.stopped.add(pid)

    def any_live(self) -> AgentFacts | None:
        live = self.opened.list_agents().agents
        return self.chance.choice(live) if live else None

    # afterwards

    def settle(self) -> None:
        """Let all go on, and take headcounts until all is settled."""
        self.thaw()
        self.clock.move(0)
        daemons.end(self.home)

        def is_settled() -> bool:
            self.opened.validate_and_repair_registry(dry_run=False)
            return self.opened.registry_health_check().healthy

        until(is_settled, what="a healthy registry", patience=PATIENCE)

    def judge(self) -> Report:
        wrong = self.report.wrong
        live = {each.agent_id: each for each in self.opened.list_agents(limit=1000).agents}
        running = {agent: pids for agent, pids in agent_processes.by_agent(self.home).items() if pids}
        wrong += [f"ghost: {agent}" for agent in live.keys() - running.keys()]
        wrong += [f"stray: {agent} {running[agent]}" for agent in running.keys() - live.keys()]
        wrong += [f"{agent} has no session" for agent in live.keys() - self.sessions()]
        wrong += [f"session of nobody: {name}" for name in self.sessions() - live.keys()]
        self.opened.halt()
        until(
            lambda: not agent_processes.by_agent(self.home), what="nothing survives a halt", patience=PATIENCE
        )
        self.settle()
        self.judge_ends()
        wrong += [f"integrity: {each}" for each in self.opened.context.registry.integrity()]
        return self.report

    def is_empty(self) -> bool:
        return not agent_processes.by_agent(self.home)

    def sessions(self) -> set[str]:
        return {each.name for each in self.opened.registry_health_check().sessions}

    def judge_ends(self) -> None:
        said = self.said()
        cursor = None
        while True:
            page = self.opened.list_agents(all=True, limit=200, cursor=cursor)
            for agent in page.agents:
                self.judge_end(agent, said)
            cursor = page.next_cursor
            if cursor is None:
                break
        self.report.wrong += [f"twice: {what}" for what, n in said.items() if n > 1]

    def judge_end(self, agent: AgentFacts, said: Counter[tuple[str, str]]) -> None:
        found = self.opened.get_agent(agent.agent_id)
        self.report.ends[found.outcome or found.state] += 1
        last = found.runs[-1]
        if not (last.outcome if found.state == "ended" else found.state == "lost" and last.reason):
            self.report.wrong.append(f"{agent.agent_id} is {found.state} and nobody knows why")
        parts = sorted(Path(last.path).glob("output*.jsonl"))
        output = "".join(part.read_text(errors="replace") for part in parts)
        for kind, what in ACKNOWLEDGED.findall(output):
            self.report.acknowledged += 1
            if not said[kind, what]:
                self.report.wrong.append(f"lost: {kind} {what} of {agent.agent_id}")

    def said(self) -> Counter[tuple[str, str]]:
        """Return how often the registry has each report and finding."""
        with self.opened.context.registry.read() as tx:
            findings = tx.findings.page(self.task, limit=1_000_000)
            reports = tx.reports.page(self.task, limit=1_000_000)
        said = Counter(("finding", each.message) for each in findings)
        return said + Counter(("report", each.message) for each in reports)


def pids_of(*words: str) -> list[int]:
    """Return the processes whose command lines have all of these words."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(int(name))
    return found


def storm(home: Path, project: Path, *, seed: int, operations: int) -> Report:
    """Do so many operations, and judge what is left; of the whole nothing is left running."""
    with fleet(home, views=True, start_timeout=5.0, registry_wait=5.0) as opened:
        one = Storm(opened, home, project, seed)
        try:
            began = time.monotonic()
            one.go(operations)
            print(f"{operations} operations in {time.monotonic() - began:.0f} s", file=sys.stderr)
            one.settle()
            return one.judge()
        finally:
            one.thaw()
            daemons.end(home)
            opened.halt()
            opened.release_halt()
