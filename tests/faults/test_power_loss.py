"""The power fails: what was acknowledged is there afterwards, as the disk has it.

The home lies on a file system in an image file, of which nothing is written but what somebody has synced. A
copy of the image, taken while everything that writes is stopped, is what a machine would find after its power
had failed at that moment.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from tests.support import needs
from tests.support.fleets import SLEEPER, alive, fleet
from tests.support.forks import together
from tests.support.leftovers import processes_under
from tests.support.waiting import until

SIZE_MB = 48
CUTS = 6
BOOT_ID = "/proc/sys/kernel/random/boot_id"
CLONE_NEWNS = 0x20000
Fact = tuple[str, str]
FACTS = 40

WORKLOAD = """
import json, sys
from headcount import Headcount
home, project = sys.argv[1:]
fleet = Headcount(home, views=False, autostart=False, min_memory_mb=1, min_disk_mb=1, grace=1)
task = fleet.create_task("a storm", project=project, max_agents=100_000).task_id
def known(*fact):
    print(json.dumps(fact), flush=True)
known("task", task)
number = 0
while True:
    number += 1
    made = fleet.deploy(task, role=f"role{number}", harness="command", command=["sleep", "600"])
    known("agent", made.agent_id)
    said = fleet.report_agent_finding("note", f"{number}", agent_id=made.agent_id)
    known("finding", f"{number}")
    fleet.update_agent_progress("working", f"{number}", agent_id=made.agent_id)
    known("report", f"{number}")
    if number > 3:
        old = fleet.list_agents(limit=1000).agents[-1].agent_id
        fleet.stop_agent(old)
        known("ended", old)
"""


@pytest.fixture
def disk(home: Path, require_root: None) -> Path:
    """An image with a file system, mounted below the home's place."""
    for name, package in (("mkfs.ext4", "e2fsprogs"), ("mount", "mount")):
        needs.program(name, how=f"apt-get install {package}")
    image = home / "disk"
    with image.open("wb") as made:
        made.truncate(SIZE_MB << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    return image


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """Mount it so that the file system writes nothing by the clock."""
    place = image.parent / "m"
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", "loop,commit=300", image, place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        needs.lacking(f"no image can be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


class Workload:
    """Works on a fleet, and says what was acknowledged."""

    def __init__(self, place: Path) -> None:
        (place / "p").mkdir()
        argv = (sys.executable, "-c", WORKLOAD, str(place / "h"), str(place / "p"))
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0)
        self.facts: list[Fact] = []
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        self._said = b""

    def hear(self) -> int:
        """Take what it has said so far; return how many facts that makes."""
        assert self.process.stdout
        self._said += self.process.stdout.read() or b""
        *whole, self._said = self._said.split(b"\n")
        self.facts += [tuple(json.loads(each)) for each in whole]
        return len(self.facts)

    def cut(self, image: Path, copy: Path) -> list[Fact]:
        """Copy the disk as it is while nobody writes; return what was acknowledged before."""
        os.kill(self.process.pid, signal.SIGSTOP)
        seen: list[int] = []

        def is_still() -> bool:  # runners that were just started write their records
            seen.append(image.stat().st_mtime_ns)
            return len(seen) > 10 and len(set(seen[-10:])) == 1

        until(is_still, what="nobody writes")
        self.hear()
        known = list(self.facts)
        shutil.copyfile(image, copy)
        os.kill(self.process.pid, signal.SIGCONT)
        return known

    def end(self, place: Path) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        for each in processes_under(place):
            os.kill(each.pid, signal.SIGKILL)
        until(lambda: not processes_under(place), what="all of it is gone")


@pytest.mark.timeout(240)
def test_what_was_acknowledged_before_the_power_failed_is_there(disk: Path) -> None:
    chance = random.Random(1)
    cuts: list[tuple[Path, list[Fact]]] = []
    with mounted(disk) as place:
        work = Workload(place)
        try:
            for number in range(CUTS):
                most = work.hear() + chance.randrange(1, FACTS // 2)
                until(lambda most=most: work.hear() >= most, what="it works", patience=60)  # type: ignore[misc]
                copy = disk.with_suffix(f".{number}")
                cuts.append((copy, work.cut(disk, copy)))
        finally:
            work.end(place)
    for copy, known in cuts:
        assert known, "nothing was acknowledged"
        with mounted(copy) as place:
            assert together(1, lambda _, known=known: after_a_boot(place, known)) == [None]  # type: ignore[misc]


def after_a_boot(place: Path, known: list[Fact]) -> None:
    """Look at it as the machine does when it has been started again."""
    kernel = ctypes.CDLL(None, use_errno=True)
    assert kernel.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    boot = place / "boot"
    boot.write_text(f"{uuid.uuid4()}\n")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", boot, BOOT_ID], check=True)
    with fleet(place / "h", min_disk_mb=1) as opened:
        check(opened, known)
        task = next(what for kind, what in known if kind == "task")
        assert alive(opened.deploy(task, role="next", harness="command", command=SLEEPER).pid)


def check(opened: Headcount, known: list[Fact]) -> None:
    assert opened.context.registry.integrity() == []
    said = {kind: {what for each, what in known if each == kind} for kind, _ in known}
    (task,) = said["task"]
    before = agents(opened)
    assert said["agent"] <= before.keys()
    for agent_id in said.get("ended", ()):
        assert (before[agent_id].state, before[agent_id].outcome) == ("ended", "stopped"), agent_id
    with opened.context.registry.read() as tx:
        assert said["finding"] <= {each.message for each in tx.findings.page(task, limit=100_000)}
        assert said["report"] <= {each.message for each in tx.reports.page(task, limit=100_000)}
    opened.validate_and_repair_registry(dry_run=False)
    health = opened.registry_health_check()
    assert (health.healthy, health.live_rows) == (True, 0), health
    after = agents(opened)
    assert {each.state for each in after.values()} <= {"ended", "lost"}


def agents(opened: Headcount) -> dict[str, Any]:
    found = opened.list_agents(all=True, limit=1000)
    assert found.next_cursor is None
    return {each.agent_id: each for each in found.agents}
