"""How an agent is to work: one vocabulary, strict, and each harness says what it can."""

import json
from typing import Any

import pytest

from headcount.domain.errors import InvalidInput
from headcount.domain.options import NAMES, Ability, Effort, Options, Permissions, parse_options
from headcount.harnesses.abilities import check_options
from headcount.harnesses.catalogue import find, names

FULL: dict[str, Any] = {
    "model": "opus",
    "effort": "high",
    "permissions": "bypass",
    "allowed_tools": ["shell(git)", "web"],
    "denied_tools": ["edit"],
    "max_turns": 7,
    "budget_usd": 2,
    "system_prompt": "Be brief.",
    "result_schema": {"type": "object"},
    "only_our_mcp": True,
    "steer": True,
    "peers": True,
}


def test_every_option_is_parsed_and_written_back_as_it_was_given() -> None:
    assert set(FULL) == set(NAMES)
    options = parse_options(FULL)
    assert (options.effort, options.permissions) == (Effort.HIGH, Permissions.BYPASS)
    assert parse_options(json.loads(json.dumps(options.given()))) == options
    assert parse_options(dict.fromkeys(NAMES)) == Options()
    assert Options().given() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 1),
        ("model", ""),
        ("model", 7),
        ("model", "a\0b"),
        ("model", "m" * 201),
        ("effort", "huge"),
        ("effort", ["high"]),
        ("permissions", "root"),
        ("allowed_tools", "shell"),
        ("denied_tools", [7]),
        ("max_turns", 0),
        ("max_turns", True),
        ("max_turns", 1.5),
        ("budget_usd", 0),
        ("budget_usd", float("nan")),
        ("budget_usd", float("inf")),
        ("result_schema", []),
        ("result_schema", {"x": "y" * 70_000}),
        ("steer", "yes"),
    ],
)
def test_what_is_no_option_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=name):
        parse_options({name: value})


@pytest.mark.parametrize("name", names())
def test_what_a_harness_cannot_do_is_refused_and_never_dropped(name: str) -> None:
    harness = find(name)
    for option, value in FULL.items():
        asked = parse_options({option: value})
        refused = [each for each, _ in asked.needs() if each not in harness.abilities]
        if asked.permissions not in {Permissions.EDIT, *harness.permissions}:
            refused.append(Ability.TOOL_RULES)
        if refused:
            with pytest.raises(InvalidInput, match=name):
                check_options(harness, asked)
        else:
            check_options(harness, asked)


@pytest.mark.parametrize("name", names())
def test_a_harness_takes_the_defaults(name: str) -> None:
    check_options(find(name), Options())
