"""What each process of a crowd is told; the crowd itself is the audit's."""

from __future__ import annotations

from pathlib import Path

from headcount.doors.audit.crowd import at_once

__all__ = ["at_once", "given"]


def given(home: Path, **more: object) -> dict[str, object]:
    """Return what each process of a crowd is told."""
    return {"home": str(home), **more}
