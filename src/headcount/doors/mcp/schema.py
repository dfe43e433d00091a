"""What clients may rely on in an answer: JSON Schema, drawn from the answer's dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

OURS: Final[Mapping[str, Mapping[str, str]]] = {
    "truncated": {"type": "boolean", "description": "Rows were left out to keep the answer short"},
    "left_out": {"type": "object", "description": "How many rows of which list were left out"},
    "shortened": {"type": "integer", "description": "How many characters of long texts were left out"},
    "next": {"type": "string", "description": "How to get the rest"},
    "error": {"type": "object", "description": "Instead of all else: code, message, hint and facts"},
}


def output_schema(answer: type) -> dict[str, Any]:
    """Return the schema of a tool's structured content.

    Nothing is required: some clients check errors against it too, which have only `error`, and rows of
    lists leave out what is empty.
    """
    made = TypeAdapter(answer).json_schema(mode="serialization")
    defs = {name: _lean(each) for name, each in made.get("$defs", {}).items()}
    schema = _lean(made)
    schema["properties"] |= {name: dict(each) for name, each in OURS.items()}
    return {**schema, "$defs": defs} if defs else schema


def _lean(made: Mapping[str, Any]) -> dict[str, Any]:
    properties = {name: _field(each) for name, each in made.get("properties", {}).items()}
    return {"type": "object", "properties": properties}


def _field(made: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in made.items() if name not in ("title", "default")}
