"""Every public method of the Python API has an example in its docstring, which runs as a test."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headcount
from headcount import Headcount
from tests.support import fleets

SETTINGS = {"AUTOSTART": "0", "MIN_MEMORY_MB": "1", "GRACE": "2"}
WITH_VIEWS = {"attach_command"}


def _examples() -> dict[str, doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=False).find(Headcount, name="Headcount", globs={})
    return {each.name.partition(".")[2]: each for each in found}


EXAMPLES = _examples()
PUBLIC = sorted(name for name in vars(Headcount) if not name.startswith("_"))


@pytest.fixture
def fleet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Headcount]:
    """Open the fleet of the examples; at the end, end every agent of it."""
    views = request.node.callspec.params["name"] in WITH_VIEWS
    if views:
        request.getfixturevalue("require_tmux")
    for name, value in {**SETTINGS, "VIEWS": "1" if views else "0"}.items():
        monkeypatch.setenv(f"HEADCOUNT_{name}", value)
    monkeypatch.chdir(tmp_path)
    yield Headcount()
    with Headcount() as opened:
        opened.release_halt()
        fleets.clear(opened)
        opened.context.views.shut()


@pytest.mark.parametrize("name", ["", "__init__", *PUBLIC])
def test_its_example_is_true(name: str, fleet: Headcount) -> None:
    example = EXAMPLES[name]
    assert example.examples, f"{name or 'the class'} has no example"
    # the class's example makes its own task, and with it a role that is free
    task = None if name in {"", "doctor"} else fleet.create_task("a piece of work").task_id
    example.globs.update(vars(headcount), Headcount=Headcount, fleet=fleet, task=task)
    told: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(
        example, out=told.append, clear_globs=True
    )
    fleet.close()
    assert outcome.failed == 0, "".join(told)


@pytest.mark.parametrize("name", ["__init__", *PUBLIC])
def test_it_is_typed_and_explained(name: str) -> None:
    member = inspect.getattr_static(Headcount, name)
    function: Any = member.fget if isinstance(member, property) else getattr(Headcount, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    given = [each for each in signature.parameters.values() if each.name != "self"]
    assert all(each.annotation is not inspect.Parameter.empty for each in given), name
    assert (function.__doc__ or "").strip()
    positional = [each for each in given if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 2, "more than two arguments are given by name"


@pytest.mark.parametrize("name", headcount.__all__)
def test_what_the_package_offers_is_there(name: str) -> None:
    assert getattr(headcount, name)
