"""Run the checks and print the table."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from headcount.domain.errors import EXIT_DONE, EXIT_FAILED, HeadcountError, NotAllowed
from headcount.doors.audit.checks import CHECKS, Check
from headcount.doors.audit.scene import Failed, close_scene, open_scene
from headcount.doors.cli.text import paint, table

LIMIT: Final = 60.0
"""Seconds that the whole audit may take."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table."""

    check: str
    passed: bool
    detail: str
    seconds: float


def main(*, only: Sequence[str] = (), as_json: bool = False) -> int:
    """Run the audit, or `only` some rows of it; return 0 if every row passes, else 1.

    Raises:
        NotAllowed: an agent asks; its end would end what the audit starts.
    """
    if "HEADCOUNT_AGENT_ID" in os.environ:
        raise NotAllowed("the audit starts agents of its own", hint="run it outside of an agent")
    names = [name for name in CHECKS if not only or name in only]
    results = [_run(name, CHECKS[name], progress=not as_json) for name in names]
    if as_json:
        print(json.dumps(_facts(results)))
    else:
        _print(results)
    return EXIT_DONE if all(each.passed for each in results) else EXIT_FAILED


def _run(name: str, check: Check, *, progress: bool) -> Result:
    """Run one check in a home of its own, which is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="hc-audit-"))
    began = time.monotonic()
    scene = open_scene(place)
    try:
        detail, passed = check(scene), True
    except (Failed, HeadcountError, AssertionError, OSError) as error:
        detail, passed = f"{error}".strip().splitlines()[-1] if f"{error}".strip() else repr(error), False
    finally:
        close_scene(scene)
        shutil.rmtree(place, ignore_errors=True)
    if progress and sys.stderr.isatty():
        print(f"{'ok' if passed else 'FAILED'}  {name}", file=sys.stderr, flush=True)
    return Result(name, passed, detail, round(time.monotonic() - began, 2))


def _facts(results: Sequence[Result]) -> dict[str, object]:
    passed = sum(each.passed for each in results)
    return {
        "production_ready": passed == len(CHECKS),
        "passed": passed,
        "total": len(results),
        "pass_rate": round(100 * passed / len(results), 1),
        "seconds": round(sum(each.seconds for each in results), 1),
        "checks": [asdict(each) for each in results],
    }


def _print(results: Sequence[Result]) -> None:
    rows = [
        (
            paint("pass", "green") if each.passed else paint("FAIL", "red"),
            each.check,
            f"{each.seconds:.1f} s",
            each.detail,
        )
        for each in results
    ]
    print(table(rows, head=("", "check", "time", "what was seen")))
    for each in results:
        if not each.passed:
            print(f"{each.check}: {each.detail}")
    passed = sum(each.passed for each in results)
    print(f"pass rate: {passed}/{len(results)} ({100 * passed / len(results):.0f} %)")
    print(f"production ready: {_verdict(passed, len(results))}")


def _verdict(passed: int, ran: int) -> str:
    if passed < ran:
        return "no"
    return "yes" if ran == len(CHECKS) else f"only the whole audit says; this was {ran} of {len(CHECKS)} rows"
