"""The checks. Each proves one guarantee by what happens, and says in a line what it saw."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from headcount.domain.errors import PlacementFailed, Refused
from headcount.doors.audit.scene import DEPLOY, Scene, alive, require, until

Check = Callable[[Scene], str]

START_RATIO: Final = 6.0
"""A confirmed, durable deploy against a bare Python start; 3 on a quiet machine, doubled for noise."""


TWENTY_REPORTS: Final = """
for n in range(20):
    say(fleet.update_agent_progress("working", f"{me}.{n}", agent_id=given["agent"]).id)
"""


def file_locking(scene: Scene) -> str:
    task = scene.task()
    agent = scene.sleeper(task, "writer").agent_id
    said = [number for lines in scene.crowd(TWENTY_REPORTS, 10, agent=agent) for number in lines]
    with scene.fleet.context.registry.read() as tx:
        kept = {each.id for each in tx.reports.page(task_id=task, after=0, limit=1000)}
    require(
        len(set(said)) == 200 and kept == set(said), f"{len(set(said))} writes acknowledged, {len(kept)} kept"
    )
    return "10 processes x 20 writes: 200 acknowledged, 200 kept"


def atomic_operations(scene: Scene) -> str:
    task = scene.task()
    agent = scene.sleeper(task, "worker").agent_id
    code = 'x = fleet.stop_agent(given["agent"]); say([x.state, x.outcome])'
    said = {tuple(lines[-1]) for lines in scene.crowd(code, 10, agent=agent)}
    kinds = [each.kind for each in scene.fleet.read_events(agent_id=agent).events]
    ends = kinds.count("run_ended"), kinds.count("stop_asked")
    require(said == {("ended", "stopped")} and ends == (1, 1), f"10 stops: answers {said}, events {kinds}")
    counts = scene.fleet.get_task_status(task).counts
    require((counts["total"], counts["live"], counts["stopped"]) == (1, 0, 1), f"counts {counts}")
    return "10 stops of one agent: one change of state, one event, the same answer for all"


def deduplication(scene: Scene) -> str:
    task = scene.task()
    said = [lines[-1] for lines in scene.crowd(DEPLOY, 10, task=task, role="builder")]
    made = [agent for agent, _ in said if agent]
    codes = {code for agent, code in said if not agent}
    require(
        len(made) == 1 and codes == {"duplicate_role"}, f"{len(made)} of 10 got the role, refusals {codes}"
    )
    scene.count_is_right(1)
    return "10 processes ask for one role: 1 gets it, 9 are told who has it"


def multiple_load_check(scene: Scene) -> str:
    task = scene.task()
    statements: list[str] = []
    fleet = scene.traced(statements.append)
    fleet.deploy(task, role="one", harness="command", command=["true"])
    begins = [sql for sql in statements if sql.startswith("BEGIN")]
    opens = fleet.context.registry.opens
    fleet.close()
    right = opens == 1 and begins == ["BEGIN IMMEDIATE"] * 2
    require(right, f"{opens} opens, transactions {begins}")
    inside = 0
    for sql in statements[statements.index(begins[0]) :]:
        inside += sql.startswith("BEGIN")
        require(inside, f"a statement outside of a transaction: {sql[:60]}")
        inside -= sql.startswith(("COMMIT", "ROLLBACK"))
    return "a deploy: 1 open, 2 write transactions, no read outside them"


def ghost_entries(scene: Scene) -> str:
    task = scene.task(max_live=4)
    made = [scene.sleeper(task, f"role{n}") for n in range(4)]
    for each in made:
        os.kill(each.runner_pid or 0, signal.SIGKILL)
    until(lambda: not any(alive(each.runner_pid) for each in made), "the deaths of 4 runners")
    listed = len(scene.fleet.registry_health_check().ghosts)
    require(listed == 4, f"{listed} of 4 ghosts listed")
    try:
        scene.sleeper(task, "newcomer")
    except Refused as error:
        require(False, f"ghosts hold their slots: {error.message}")
    scene.count_is_right(1)
    return "4 runners killed: 4 ghosts listed, and none held its slot against the next deploy"


def concurrent_spawn_protection(scene: Scene) -> str:
    task = scene.task(max_live=3)
    said = [lines[-1] for lines in scene.crowd(DEPLOY, 12, task=task, role=None)]
    made = [agent for agent, _ in said if agent]
    require(len(made) == 3, f"{len(made)} of 12 got in under a limit of 3")
    scene.count_is_right(3)
    return "12 processes deploy under a limit of 3: exactly 3 run"


def resource_cleanup(scene: Scene) -> str:
    task = scene.task()
    try:
        scene.fleet.deploy(task, role="absent", harness="command", command=["/nonexistent/program"])
    except PlacementFailed:
        pass
    else:
        require(False, "a program that does not exist was started")
    do = "trap '' TERM; setsid sleep 600 & sleep 600 & while :; do sleep 600; done"
    made = scene.fleet.deploy(task, role="stubborn", harness="command", command=["/bin/sh", "-c", do])
    stopped = scene.fleet.stop_agent(made.agent_id, grace=0.2)
    left = os.listdir(scene.home / "live")
    gone = stopped.outcome == "stopped" and not stopped.survivors and not alive(made.pid)
    require(gone and not left, f"{stopped}, left in live/: {left}")
    return "a failed start and a stubborn tree leave no process, mark or slot"


def validation_and_repair(scene: Scene) -> str:
    task = scene.task()
    sick, well = scene.sleeper(task, "sick"), scene.sleeper(task, "well")
    os.kill(sick.runner_pid or 0, signal.SIGKILL)
    until(lambda: not alive(sick.runner_pid), "the death of a runner")
    before = scene.version()
    scene.fleet.validate_and_repair_registry()
    require(scene.version() == before, "a dry run wrote to the registry")
    first = scene.fleet.validate_and_repair_registry(dry_run=False)
    second = scene.fleet.validate_and_repair_registry(dry_run=False)
    require(len(first.done) == 1 and not second.done, f"first repair did {first.done}, second {second.done}")
    require(alive(well.pid) and not alive(sick.pid), "the repair touched the wrong agent")
    scene.count_is_right(1)
    return (
        "a dry run writes nothing, a repair mends one ghost, a second finds nothing, the healthy agent lives"
    )


def redundant_loads(scene: Scene) -> str:
    task = scene.task()
    for n in range(5):
        scene.sleeper(task, f"role{n}")
    statements: list[str] = []
    fleet = scene.traced(statements.append)
    for _ in range(5):
        fleet.get_task_status(task)
    opens = fleet.context.registry.opens
    fleet.close()
    writes = [sql for sql in statements if "IMMEDIATE" in sql]
    require(opens == 1 and not writes, f"5 status calls: {opens} opens, {len(writes)} write transactions")
    return "5 status calls: 1 open, no write"


def deduplication_enforcement(scene: Scene) -> str:
    task = scene.task()
    scene.sleeper(task, "builder", prompt="mend the roof")
    for role, code in (("builder", "duplicate_role"), ("painter", "same_work")):
        try:
            scene.sleeper(task, role, prompt="mend the roof" if code == "same_work" else "something else")
        except Refused as error:
            require(error.code == code, f"refused with {error.code} instead of {code}")
        else:
            require(False, f"{code} was not refused")
    scene.sleeper(task, "builder", prompt="mend the roof", allow_duplicate_role=True, allow_same_work=True)
    scene.count_is_right(2)
    return "the same role and the same work are refused, and allowed when asked for"


def live_concurrent_spawn(scene: Scene) -> str:
    task = scene.task(max_live=20)
    said = [lines[-1] for lines in scene.crowd(DEPLOY, 10, task=task, role=None)]
    rows = {each.agent_id: each.pid for each in scene.fleet.list_agents(task_id=task).agents}
    require(rows == dict(said) and len(rows) == 10, f"{len(rows)} rows, {len(dict(said))} answers")
    scene.count_is_right(10)
    return "10 deploys at once: 10 answers, 10 rows, 10 processes, the same ones"


STOP_IN_BETWEEN = """
import time
end = time.monotonic() + 3
said = []
while time.monotonic() < end:
    if me == 0:
        try:
            said.append(fleet.deploy(given["task"], role="target", harness="command",
                                     command=["/bin/sh", "-c", "exec sleep 600"]).agent_id)
        except HeadcountError as error:
            said.append(error.code)
            time.sleep(0.01)
    elif me == 1:
        for agent in fleet.list_agents(task_id=given["task"]).agents:
            fleet.kill_agent(agent.agent_id)
    else:
        fleet.validate_and_repair_registry(dry_run=False)
say(said)
"""


FAIR: Final = ("stopped_meanwhile", "duplicate_role")
"""How a deploy may end beside stops and repairs, if not with an agent."""


def race_simulation(scene: Scene) -> str:
    task = scene.task(max_agents=100_000)
    said = scene.crowd(STOP_IN_BETWEEN, 4, task=task)[0][-1]
    odd = [each for each in said if not each.startswith("target-") and each not in FAIR]
    require(not odd, f"deploys beside stops and repairs ended in {odd}")
    for agent in scene.fleet.list_agents(task_id=task).agents:
        scene.fleet.kill_agent(agent.agent_id)
    scene.count_is_right(0)
    counts = scene.fleet.get_task_status(task).counts
    require(counts["total"] == counts["ended"] + counts["lost"], f"counts {counts}")
    return f"deploys, kills and repairs at once over {counts['total']} runs: each is over once, none is left"


DIES = """
import os, signal, sys
at = int(sys.argv[3])
from headcount import Headcount, bootstrap
count = 0
def boundary(sql):
    global count
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
settings = {"views": False, "autostart": False, "min_memory_mb": 1}
fleet = Headcount.of(bootstrap.context(sys.argv[1], settings, on_statement=boundary))
fleet.deploy(sys.argv[2], role="builder", harness="command", command=["/bin/sh", "-c", "exec sleep 600"])
"""


def failure_injection(scene: Scene) -> str:
    died = 0
    for at in range(0, 40, 3):
        task = scene.task()
        argv = [sys.executable, "-c", DIES, str(scene.home), task, str(at)]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=30)
        died += done.returncode == -signal.SIGKILL
        until(lambda: _repaired(scene), f"a right count after a death at statement {at}")
        for agent in scene.fleet.list_agents(task_id=task).agents:
            require(alive(agent.pid), f"{agent.agent_id} is {agent.state} without a process")
            scene.fleet.kill_agent(agent.agent_id)
    require(died >= 8, f"only {died} deployers died on the way")
    return f"{died} deployers killed at different statements: the count was right one headcount later"


def _repaired(scene: Scene) -> bool:
    scene.fleet.validate_and_repair_registry(dry_run=False)
    return scene.fleet.registry_health_check().healthy


def performance(scene: Scene) -> str:
    task = scene.task(max_live=30, max_agents=40)
    bare, deploys = [], []
    scene.fleet.deploy(task, role="warm", harness="command", command=["true"])
    for n in range(15):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        middle = time.perf_counter()
        scene.sleeper(task, f"role{n}")
        bare.append(middle - began)
        deploys.append(time.perf_counter() - middle)
    ratio = statistics.median(deploys) / statistics.median(bare)
    words = f"a deploy takes {statistics.median(deploys) * 1000:.0f} ms, {ratio:.1f} x a bare Python start"
    require(ratio <= START_RATIO, f"{words}; the limit is {START_RATIO:g} x")
    return words


CHECKS: Final[Mapping[str, Check]] = {
    "file locking": file_locking,
    "atomic operations": atomic_operations,
    "deduplication": deduplication,
    "multiple-load check": multiple_load_check,
    "ghost entries": ghost_entries,
    "concurrent-spawn protection": concurrent_spawn_protection,
    "resource cleanup": resource_cleanup,
    "validation and repair": validation_and_repair,
    "redundant loads": redundant_loads,
    "deduplication enforcement": deduplication_enforcement,
    "live concurrent spawn": live_concurrent_spawn,
    "race simulation": race_simulation,
    "failure injection": failure_injection,
    "performance": performance,
}
"""The ten rows of the predecessor's integration report, and the four that it never ran."""
