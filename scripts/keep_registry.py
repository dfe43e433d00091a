"""Keep a registry of the newest schema in tests/data, before a release: later code must open it for ever.

python scripts/keep_registry.py
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from headcount.domain.model import ReportStatus, RunKey, Severity  # noqa: E402  # after the path
from headcount.store import schema  # noqa: E402
from headcount.store.statements import SQL  # noqa: E402
from tests.support.registries import TASK, confirm, end, new_run, with_task  # noqa: E402

KEPT = ROOT / "tests" / "data" / "registry"


def main() -> None:
    target = KEPT / f"v{schema.newest()}.db"
    with tempfile.TemporaryDirectory() as home:
        opened = with_task(Path(home))
        with opened.write("keep") as tx:
            tx.runs.add(new_run("builder-1", takes_role=True, token_hash="01", prompt="build it"))
            tx.runs.add(new_run("fixer-2", parent="builder-1", depth=2))
            confirm(tx, RunKey("builder-1", 1))
            end(tx, RunKey("fixer-2", 1), result={"text": "done"}, usage={"tokens": 7})
            said: dict[str, Any] = {"message": "so far", "late": False, "now": 1002.0}
            tx.reports.add("builder-1", 1, TASK, status=ReportStatus.WORKING, progress=40, **said)
            tx.findings.add("fixer-2", 1, TASK, type="bug", severity=Severity.HIGH, data={"line": 3}, **said)
            tx.events.add("refused", now=1003.0, task_id=TASK, reason="max_live")
            tx.calls.put("builder-1", "k", request_hash="h", wrote={"id": 1, "late": False}, now=1002.0)
            tx.keys.put("deploy", "k", request_hash="h", agent_id="builder-1", run=1, now=1000.0)
        KEPT.mkdir(parents=True, exist_ok=True)
        opened.backup(target)
        opened.close()
    scripts = sorted((SQL / "migrations").glob("*.sql"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in scripts]
    (KEPT / "migrations.sha256").write_text("".join(lines))
    print(f"kept {target}")


if __name__ == "__main__":
    main()
