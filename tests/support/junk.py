"""What no well-meaning client sends: values of every wrong kind, and arguments by a tool's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

LONG: Final = ("x" * 70_000, "é" * 20_001, "(a+)+$" * 3_000, "\n" * 5_000)
AWKWARD: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "\udcff\udc80",
    "\u202e\u200b\ufeff",
    "\x1b[2J\x1b]0;x\x07",
    "../../../../etc/passwd",
    "/proc/self/environ",
    "file:///etc/passwd",
    "'; DROP TABLE run; --",
    "%s%n{0}{__class__}${HOME}$(id)`id`",
    "-rf",
    "--help",
    "null",
    "[]",
    "{}",
    "[" * 5_000,
    '{"a":' * 5_000,
    "NaN",
    "9" * 5_000,
    "task-0000000000000000",
    "builder-0000000000000000",
    "builder-0000000000000000.1.1",
    "𝕥𝕒𝕤𝕜-0000000000000000",
)
NUMBERS: Final = (0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324)


def deep(levels: int, leaf: object) -> object:
    found = leaf
    for level in range(levels):
        found = [found] if level % 2 else {"a": found}
    return found


TEXTS: Final = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(max_size=40),
    st.text(st.characters(), max_size=8),
    st.sampled_from(LONG),
)
ANYTHING: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(NUMBERS),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.recursive(
        st.one_of(st.none(), st.integers(-3, 3), TEXTS),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
        ),
        max_leaves=8,
    ),
    st.sampled_from([1, 40, 150]).map(lambda levels: deep(levels, "leaf")),
)


def fitting(field: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return what a field's schema allows."""
    if "enum" in field:
        return st.sampled_from(field["enum"])
    match field.get("type"):
        case "string":
            return TEXTS
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(field.get("minimum", -5), field.get("maximum", 2**63))
        case "number":
            return st.floats(field.get("minimum", -5.0), field.get("maximum", 1e9))
        case "array":
            return st.lists(fitting(field.get("items", {})), max_size=4)
        case "object" if isinstance(field.get("additionalProperties"), dict):
            return st.dictionaries(TEXTS, fitting(field["additionalProperties"]), max_size=4)
        case "object":
            return st.dictionaries(TEXTS, ANYTHING, max_size=4)
        case _:
            return ANYTHING


def arguments(schema: Mapping[str, Any], known: Mapping[str, Sequence[object]]) -> st.SearchStrategy[Any]:
    """Return arguments for a schema: most fit, some are junk, missing or too many. `known` has for the names
    of some fields what leads further in."""
    fields = schema["properties"]
    fit = {
        name: st.one_of(st.sampled_from(list(known[name])), fitting(field))
        if name in known
        else fitting(field)
        for name, field in fields.items()
    }
    needed = {name: fit[name] for name in schema.get("required", ())}
    right = st.fixed_dictionaries(needed, optional={k: v for k, v in fit.items() if k not in needed})
    loose = {name: st.one_of(each, ANYTHING) for name, each in fit.items()}
    wrong = st.fixed_dictionaries({}, optional=loose)
    strange = st.builds(lambda a, b: {**a, **b}, right, st.dictionaries(TEXTS, ANYTHING, max_size=2))
    return st.one_of(right, wrong, strange, right)
