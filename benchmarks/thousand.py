"""A thousand live agents on one machine: what a deploy, a status, a whole headcount and the daemon cost then.

    python benchmarks/thousand.py [--slack 2] [--smoke] [--json]

The raw limit of each is the same with twenty live. Without views, which are capped by the file descriptors of
their server. Needs 4 GB of memory; `benchmarks/run.py` runs it only by name (`--only thousand`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from figures import Figure, amount, main, milliseconds, times
from footprint import idle
from grounds import Deployer, daemon, fleet, ground, until
from start_ratio import weight

from headcount import Headcount
from headcount.services import headcount
from tests.support.fleets import alive

DEPLOY, STATUS, TICK = 2.0, 60.0, 60.0
"""Times the same with twenty live. A deploy looks at the locks of all live runs; a status of their task and a
whole headcount look at each of the fifty times as many, so they may cost as much more."""
IDLE_PERCENT, DAEMON_MB = 5.0, 150.0


def figures(*, smoke: bool) -> Iterator[Figure]:
    few, many, rounds, seconds = (2, 6, 2, 1) if smoke else (20, 1000, 30, 20)
    with ground() as place, fleet(place / "h") as opened, daemon(place / "h", views=False) as pid:
        deployer = Deployer(opened, place)
        grow(deployer, few)
        before = costs(opened, deployer, rounds)
        grow(deployer, many - few)
        after = costs(opened, deployer, rounds)
        limits = {"deploy": DEPLOY, "status of the task": STATUS, "whole headcount": TICK}
        for name, most in limits.items():
            yield times(
                f"{name}, {many:,} live", after[name], before[name], most, raw_name=f"the same with {few}"
            )
        time.sleep(min(2, seconds))
        busy = idle(pid, seconds)
        idle_name = f"daemon with {many:,} idle agents, of a core"
        heavy_name = f"daemon with {many:,} agents, PSS"
        yield amount(idle_name, busy, IDLE_PERCENT, "%", raw=None, raw_name="nothing to do")
        yield amount(heavy_name, weight(pid), DAEMON_MB, "MB", raw=None, raw_name="one without agents")


def grow(deployer: Deployer, number: int) -> None:
    for _ in range(number):
        deployer.deploy()


def costs(opened: Headcount, deployer: Deployer, rounds: int) -> dict[str, Sequence[float]]:
    """Return the milliseconds that each act takes, `rounds` times, after one that fills the caches."""
    deploys(opened, deployer, 1)
    acts: dict[str, Callable[[], object]] = {
        "status of the task": lambda: opened.get_task_status(deployer.task),
        "whole headcount": lambda: headcount.tick(opened.context),
    }
    found = {name: [milliseconds(act) for _ in range(rounds + 1)][1:] for name, act in acts.items()}
    return {"deploy": deploys(opened, deployer, rounds), **found}


def deploys(opened: Headcount, deployer: Deployer, rounds: int) -> list[float]:
    """Time a deploy; the agent is ended again before the next, so that as many live as before."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        made = deployer.deploy()
        taken.append((time.perf_counter() - began) * 1000)
        opened.kill_agent(made.agent_id)
        until(lambda made=made: not alive(made.runner_pid))  # type: ignore[misc]
    return taken


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
