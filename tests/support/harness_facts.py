"""What a harness is asked with, for tests that care about one part of it."""

from pathlib import Path

from headcount.domain.model import ExitRecord, RunKey
from headcount.domain.options import Options
from headcount.harnesses.base import Session, Spec


def spec(directory: Path, **given: object) -> Spec:
    facts: dict[str, object] = {
        "key": RunKey("builder-01jx5e2k9pab12cd", 1),
        "task_id": "task-01jx5e2k9pab12cd",
        "prompt": "",
        "command": (),
        "options": Options(),
        "session": Session("00000000-0000-4000-8000-000000000001"),
        "cwd": str(directory),
        "run_path": str(directory / "run"),
        "headcount": ("/opt/bin/headcount",),
        "env": {"PATH": str(directory / "bin")},
    }
    return Spec(**{**facts, **given})  # type: ignore[arg-type]  # a test names what differs


def program(directory: Path, name: str, mode: int = 0o755) -> Path:
    path = directory / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def record(**given: object) -> ExitRecord:
    facts: dict[str, object] = {
        "code": 0,
        "signal": None,
        "error": None,
        "stopped": False,
        "started_at": 1.0,
        "ended_at": 2.0,
        "max_rss_kb": 1,
        "cpu_ms": 1,
        "output_bytes": 0,
        "output_cut": 0,
        "stderr_bytes": 0,
        "stderr_cut": 0,
    }
    return ExitRecord(**{**facts, **given})  # type: ignore[arg-type]  # a test names what differs
