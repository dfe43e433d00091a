"""Hold an agent's answer to the JSON Schema that was given with it.

The library is imported only where there is a schema. Patterns in one are searched by RE2, in linear time:
what holds an answer to a schema is a daemon that everybody waits for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headcount.domain.errors import InvalidInput
from headcount.services.search import searcher

SHOWN: Final = 300
"""Characters of an error that are told: it may quote the whole answer."""
_FENCE: Final = "```"


def check(schema: Mapping[str, Any]) -> None:
    """Check that a schema can be held to.

    Raises:
        InvalidInput: it is no JSON Schema, refers to another document, or has a pattern that is not RE2's.
    """
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]  # it has no types

    for pattern in _patterns(schema):
        searcher(pattern, what="a pattern of result_schema")
    try:
        _validator(schema).check_schema(schema)
    except SchemaError as error:
        raise InvalidInput(
            f"result_schema is no JSON Schema: at {error.json_path}: {error.message[:SHOWN]}",
            hint="correct it, or leave it out",
        ) from None
    except RecursionError:
        raise InvalidInput("result_schema is too deep", hint="make it simpler") from None


def first_error(schema: Mapping[str, Any], value: object) -> str | None:
    """Return where an answer does not fit and why, None if it fits."""
    from referencing.exceptions import Unresolvable

    try:
        found = next(_validator(schema).iter_errors(value), None)
    except (Unresolvable, RecursionError) as error:
        return f"the schema cannot be applied: {type(error).__name__}"
    return None if found is None else f"at {found.json_path}: {found.message[:SHOWN]}"


def parse(text: str) -> Any:
    """Return the JSON value that an answer is; a fence around it is taken off.

    Raises:
        ValueError: it is none.
    """
    stripped = text.strip()
    if stripped.startswith(_FENCE) and stripped.endswith(_FENCE):
        stripped = stripped.removesuffix(_FENCE).partition("\n")[2]
    try:
        return json.loads(stripped, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is too deep") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _patterns(schema: object) -> Iterator[str]:
    """Yield the patterns that a schema may apply; refuse references to elsewhere."""
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise InvalidInput(
                f"result_schema refers to {reference[:80]!r}",
                hint="put all of it into one object, under $defs",
            )
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), dict):
            yield from schema["patternProperties"]
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _patterns(each)


def _validator(schema: Mapping[str, Any]) -> Any:
    """Return what holds a value to the schema, without ever fetching one."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types
    from jsonschema.validators import extend, validator_for  # type: ignore[import-untyped]  # likewise
    from referencing import Registry

    named = validator_for(schema, default=Draft202012Validator)
    ours = extend(
        named,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
        },
    )
    return ours(schema, registry=Registry())


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _pattern(_validator: Any, pattern: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _finds(pattern, instance):
        yield _error(f"{instance[:80]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, below in patterns.items():
        for name, value in instance.items():
            if _finds(pattern, name):
                yield from validator.descend(value, below, path=name, schema_path=pattern)


def _additional_properties(validator: Any, below: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(_finds(pattern, name) for pattern in patterns):
            continue
        if below is False:
            yield _error(f"{name[:80]!r} is not a property that it may have")
        elif isinstance(below, dict):
            yield from validator.descend(value, below, path=name)


def _finds(pattern: str, text: str) -> bool:
    return bool(searcher(pattern, what="a pattern")(text.encode("utf-8", "replace")))
