"""A tool's arguments: one schema for clients, and errors in one line: field, problem, allowed, nearest."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any, Final, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from headcount.domain.errors import InvalidInput
from headcount.doors.mcp.tools import Tool

OTHER_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "role": ("agent_type",),
    "type": ("agent_type", "finding_type"),
    "agent": ("agent_id", "agent_ids"),
    "agent_id": ("agent_ids",),
    "id": ("agent_id", "task_id"),
    "task": ("task_id",),
    "client_cwd": ("cwd", "project"),
    "lines": ("tail",),
    "regex": ("filter",),
    "max": ("limit",),
    "name": ("description",),
}
"""What users of other tools call ours; tried before the nearest spelling."""


class Arguments:
    """Checks what a client sent against the signature of the tool's function."""

    def __init__(self, tool: Tool) -> None:
        hints = get_type_hints(tool.call, include_extras=True)
        inputs = [each for each in inspect.signature(tool.call).parameters.values() if each.name != "fleet"]
        fields = {
            each.name: (hints[each.name], ... if each.default is inspect.Parameter.empty else each.default)
            for each in inputs
        }
        self._tool: Final = tool.name
        self._texts: Final = {name for name, (hint, _) in fields.items() if _is_text(hint)}
        self._model: Final = create_model(  # type: ignore[call-overload]  # fields are known only here
            f"{tool.name}_arguments", __config__=ConfigDict(extra="forbid"), **fields
        )
        self.names: Final = tuple(fields)
        self.schema: Final = _schema(self._model.model_json_schema())

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, in the types of the signature, defaults filled in.

        Raises:
            InvalidInput: one is missing, unknown or of a wrong type.
        """
        parsed = {name: self._parsed(name, value) for name, value in given.items()}
        try:
            checked = self._model.model_validate(parsed)
        except ValidationError as error:
            raise self._explain(error) from None
        return {name: getattr(checked, name) for name in self.names}

    def _parsed(self, name: str, value: Any) -> Any:
        """Some clients send lists and objects as JSON in a string."""
        if isinstance(value, str) and name not in self._texts and value[:1] in ("[", "{"):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
        return value

    def _explain(self, error: ValidationError) -> InvalidInput:
        problems = [self._problem(dict(each)) for each in error.errors(include_url=False)]
        return InvalidInput(
            f"{self._tool}: {'; '.join(problems[:5])}",
            hint=f"{self._tool} takes {', '.join(self.names) or 'no arguments'}",
            code="invalid_arguments",
        )

    def _problem(self, error: Mapping[str, Any]) -> str:
        where = ".".join(str(part) for part in error["loc"])
        match error["type"]:
            case "extra_forbidden":
                return f"unknown argument {_shown(where)}{self._nearest(where)}"
            case "missing":
                return f"{where} is missing"
            case "literal_error":
                return f"{where} is {_shown(error['input'])}, not one of {error['ctx']['expected']}"
            case _:
                wrong = str(error["msg"]).removeprefix("Input ").replace("\n", " ")
                return f"{where} is {_shown(error['input'])}: it {wrong}"

    def _nearest(self, name: str) -> str:
        near = [each for each in OTHER_WORDS.get(name, ()) if each in self.names]
        near += difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        return f", did you mean {near[0]!r}?" if near else ""


def _is_text(hint: Any) -> bool:
    kinds = {str(hint), *map(str, getattr(hint, "__args__", ()))}
    return any("str" in kind and "list" not in kind and "dict" not in kind for kind in kinds)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _schema(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema without what no model needs: generated titles, and null as a way to leave out."""
    properties = {name: _lean(each) for name, each in made.get("properties", {}).items()}
    lean: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if made.get("required"):
        lean["required"] = made["required"]
    return lean


def _lean(field: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in field.items() if name != "title"}
    choices = [each for each in kept.pop("anyOf", []) if each.get("type") != "null"]
    if len(choices) == 1:
        kept = {**choices[0], **kept}
    elif choices:
        kept["anyOf"] = choices
    if kept.get("default", ...) is None:
        del kept["default"]
    return kept
