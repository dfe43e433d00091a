"""The audit passes on this build, and each of its rows fails on a build in which that guarantee is broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import headcount
from headcount.doors.audit.checks import CHECKS

SOURCE = Path(headcount.__file__).parent
Edit = tuple[str, str, str]

SABOTAGE: dict[str, list[Edit]] = {
    "file locking": [
        (
            "services/report.py",
            "return _wrote(context, tx, number, run)",
            "raise OSError('the write is lost')",
        ),
    ],
    "atomic operations": [("store/sql/runs.sql", "count(*) AS number", "count(*) + 1 AS number")],
    "deduplication": [
        ("domain/admission.py", "if facts.role_holders and not", "if not facts and not"),
        ("services/admit.py", "takes_role=not request.allow_duplicate_role", "takes_role=False"),
    ],
    "multiple-load check": [
        (
            "services/deploy.py",
            "        admitted = reserve(settle.look(context, act=True))\n",
            "        settle.observe(context)\n        admitted = reserve(settle.look(context, act=True))\n",
        )
    ],
    "ghost entries": [("domain/plan.py", "        return Reap(seen)\n", "        return None\n")],
    "concurrent-spawn protection": [
        ("domain/admission.py", "if len(live) >= most:", "if len(live) > most + 1:")
    ],
    "resource cleanup": [("services/stop.py", "        context.placement.unmark(run.key)\n", "")],
    "validation and repair": [
        (
            "services/headcount.py",
            "    if dry_run:\n        return check",
            "    if not context:\n        return check",
        )
    ],
    "redundant loads": [
        ("services/settle.py", "    if not plan(context, looked, rows):\n        return []\n", ""),
    ],
    "deduplication enforcement": [
        ("domain/admission.py", "if facts.work_holders and not", "if not facts and not"),
        ("services/admit.py", "takes_work=not request.allow_same_work", "takes_work=False"),
    ],
    "live concurrent spawn": [("services/deploy.py", "pid=run.process.pid if", "pid=run.process.pid + 1 if")],
    "race simulation": [  # no kill is sent, nor sent again by a repair
        ("services/stop.py", "    context.placement.signal_stop(run.key, run.path, grace=grace)\n", ""),
        (
            "services/stop.py",
            "    context.placement.signal_stop(row.key, row.path,",
            "    _ = (row.key, row.path,",
        ),
        ("services/stop.py", "grace=context.settings.grace)", "context.settings.grace)"),
    ],
    "failure injection": [
        ("domain/plan.py", "return Adopt(row, seen.start) if adoptable", "return None if adoptable"),
    ],
    "performance": [
        (
            "services/deploy.py",
            "        admitted = reserve(settle.look(context, act=True))\n",
            "        context.clock.pause(0.4)\n        admitted = reserve(settle.look(context, act=True))\n",
        ),
    ],
}


def audit(source: Path, *words: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "headcount", "audit", "--json", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.timeout(240)
def test_this_build_is_ready_for_production(home: Path) -> None:
    code, facts = audit(SOURCE.parent)
    assert (code, facts["production_ready"], facts["passed"], facts["total"]) == (0, True, 14, 14), facts


def test_every_row_has_a_sabotage() -> None:
    assert set(SABOTAGE) == set(CHECKS)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("row", SABOTAGE)
def test_a_sabotaged_build_fails_in_the_matching_row(row: str, home: Path, tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "headcount", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in SABOTAGE[row]:
        file = tmp_path / "headcount" / name
        text = file.read_text()
        assert text.count(old) >= 1, f"{name} has no {old!r} any more"
        file.write_text(text.replace(old, new))
    code, facts = audit(tmp_path, "--only", row)
    assert (code, facts["production_ready"]) == (1, False), facts
