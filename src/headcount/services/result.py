"""An agent's final answer, held to the schema that was given at its deploy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from headcount.domain.account import Ending
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.harnesses.base import Harness, Verdict

STRUCTURED: Final = "structured"
"""The key of the result under which the answer stands as data."""


def held_to(schema: Mapping[str, Any], verdict: Verdict, harness: Harness, tail: bytes) -> Verdict:
    """Return the verdict over a run that has completed: with its answer as data, or failed with the place
    where that does not fit. `tail` is the end of the output, which is the answer of a plain program."""
    from headcount.services import schema as schemas

    result = dict(verdict.result or {})
    try:
        value = result[STRUCTURED] if STRUCTURED in result else schemas.parse(_answer(result, harness, tail))
    except ValueError as error:
        return _bad(verdict, f"its answer is not JSON: {error}")
    wrong = schemas.first_error(schema, value)
    if wrong is not None:
        return _bad(verdict, f"its answer does not fit the schema: {wrong}")
    return replace(verdict, result={**result, STRUCTURED: value})


def _bad(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, outcome=Outcome.FAILED, reason=reason, ending=Ending.BAD_RESULT)


def _answer(result: Mapping[str, object], harness: Harness, tail: bytes) -> str:
    said = result.get("text")
    if isinstance(said, str):
        return said
    if not harness.renders:
        return tail.decode("utf-8", "replace")
    for line in reversed(tail.splitlines()):
        for entry in harness.read(line):
            if entry.kind is EntryKind.TEXT:
                return entry.text
    return ""
