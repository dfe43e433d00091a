"""An answer is held to its schema: where it does not fit, and what a schema may not be."""

from __future__ import annotations

from typing import Any

import pytest

from headcount.domain.errors import InvalidInput
from headcount.services import schema

BUGS: dict[str, Any] = {
    "type": "object",
    "required": ["bugs"],
    "properties": {
        "bugs": {"type": "array", "items": {"$ref": "#/$defs/bug"}},
        "version": {"type": "string", "pattern": "^v[0-9]+$"},
    },
    "patternProperties": {"^x-": {"type": "integer"}},
    "additionalProperties": False,
    "$defs": {"bug": {"type": "object", "required": ["line"], "properties": {"line": {"minimum": 1}}}},
}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"bugs": []}, None),
        ({"bugs": [{"line": 3}], "version": "v2", "x-y": 1}, None),
        ([], "at $: "),
        ({}, "at $: 'bugs' is a required"),
        ({"bugs": [{"line": 3}, {"line": 0}]}, "at $.bugs[1].line: 0 is less"),
        ({"bugs": [], "version": "2"}, "at $.version: '2' does not match"),
        ({"bugs": [], "x-y": "1"}, "at $.x-y: "),
        ({"bugs": [], "other": 1}, "at $: 'other' is not"),
    ],
)
def test_the_place_of_the_first_error_is_told(value: object, where: str | None) -> None:
    schema.check(BUGS)
    found = schema.first_error(BUGS, value)
    if where is None:
        assert found is None
    else:
        assert found is not None
        assert found.replace('["x-y"]', ".x-y").replace("['x-y']", ".x-y").startswith(where)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"type": "objekt"}, "at"),
        ({"$ref": "https://example.org/schema.json"}, "refers to"),
        ({"items": [{"$ref": "file:///etc/passwd"}]}, "refers to"),
        ({"pattern": "(?=a)b"}, "not a valid expression"),
        ({"patternProperties": {"(a": {}}}, "not a valid expression"),
    ],
)
def test_what_cannot_be_held_to_is_refused_at_once(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        schema.check(bad)


@pytest.mark.timeout(10)
def test_a_pattern_that_would_take_for_ever_does_not() -> None:
    greedy = {"type": "string", "pattern": "^(a+)+$"}
    assert schema.first_error(greedy, "a" * 50_000 + "b") is not None


def test_a_reference_to_nothing_is_an_answer_that_does_not_fit() -> None:
    assert schema.first_error({"$ref": "#/$defs/none"}, 1) is not None


@pytest.mark.parametrize("text", ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}\n```'])
def test_an_answer_may_stand_in_a_fence(text: str) -> None:
    assert schema.parse(text) == {"a": 1}


@pytest.mark.parametrize("text", ["", "Here it is: {}", "{'a': 1}", "[NaN]", "[" * 100_000])
def test_what_is_no_json_is_no_answer(text: str) -> None:
    with pytest.raises(ValueError):
        schema.parse(text)
