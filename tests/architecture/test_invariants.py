"""The page of invariants names files and tests that exist, and every promise on it is broken once."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.breaks import BREAKS, Break

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "invariants.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:src|tests)/[^`\s]+)`", PAGE)))
INVARIANTS = [f"I{number}" for number in range(1, 12)]


@cache
def names_in(file: str) -> set[str]:
    """Return the names of a file's tests and of the classes that hold tests, as they stand in node ids."""
    found = set()
    for node in ast.parse((REPOSITORY / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("named", NAMED)
def test_what_the_page_names_exists(named: str) -> None:
    file, _, test = named.partition("::")
    assert (REPOSITORY / file).exists()
    assert not test or test in names_in(file)


@pytest.mark.parametrize("broken", BREAKS, ids=lambda each: f"{each.promise}: {each.name}")
def test_a_break_is_up_to_date(broken: Break) -> None:
    source = (REPOSITORY / "src" / "headcount" / broken.file).read_text()
    assert source.count(broken.old) == 1, "write the break anew: what it edits has changed"
    for each in broken.tests:
        file, _, test = each.partition("::")
        assert not test or test in names_in(file), each


def test_every_promise_has_a_section_tests_and_a_break() -> None:
    sections = dict(re.findall(r"^## (I\d+) .*?$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert list(sections) == INVARIANTS
    broken = {each.promise for each in BREAKS}
    said = {word.strip() for text in re.findall(r"\*([^*]+)\*", PAGE) for word in re.split(r"[:,.]", text)}
    for name, text in sections.items():
        assert "Tests: `tests/" in text
        assert name in broken
    assert broken <= {" ".join(each.split()) for each in said}
