"""What a model answers to a conversation, before it is put in the words of an API."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from tests.support.model.script import Place, Step, Turn
from tests.support.model.tools import Call, NotOfferedError, Tool, calls_of, smallest

USAGE: Final[Mapping[str, int]] = {
    "input_tokens": 1000,
    "output_tokens": 20,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
}
"""What a message costs unless its step says something else; each API has its own words for these."""


@dataclass(frozen=True)
class Conversation:
    """A request, read. `schema` is what its answer has to fit, if it asks for that."""

    turns: Sequence[Turn]
    tools: Sequence[Tool]
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """One message of the model. `stop` is why it ends, where that is not its own wish.

    Each has an id of its own: clients tell messages apart by it, and count what they cost.
    """

    text: str = ""
    thought: str = ""
    calls: Sequence[Call] = ()
    usage: Mapping[str, int] = field(default_factory=lambda: USAGE)
    stop: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(12))


class Api(Protocol):
    """What the module of an API can do: read a request; write an answer whole, as a stream, or an error."""

    __name__: str

    def read(self, body: Mapping[str, Any], /) -> Conversation: ...
    def whole(self, answer: Answer, /, *, model: str) -> Mapping[str, Any]: ...
    def events(self, answer: Answer, /, *, model: str) -> Iterator[tuple[str, Mapping[str, Any] | str]]: ...
    def error(self, status: int, words: str, /) -> Mapping[str, Any]: ...


def without_script(conversation: Conversation) -> Answer:
    """Answer what plays no script: a title, a summary, a choice of model."""
    if conversation.schema:
        return Answer(json.dumps(smallest(conversation.schema)))
    return Answer("ok")


def from_step(step: Step, place: Place, tools: Sequence[Tool]) -> Answer:
    """Answer with a step, in the tools that there are."""
    number = place.number
    try:
        calls = calls_of(step, tools, searched=number in place.searched)
    except NotOfferedError as missing:
        return Answer(f"(cannot play step {number}: {missing})")
    if calls and calls[0].search:
        return Answer(calls=[replace(calls[0], id=f"search_{place.tag}_{number}")])
    named = [replace(call, id=f"script_{place.tag}_{number}_{count}") for count, call in enumerate(calls)]
    text, thought = step.get("text", ""), step.get("think", "")
    if not named and not text and not thought:
        text = "(nothing)"
    usage = {**USAGE, **step.get("usage", {})}
    return Answer(text, thought, named, usage, step.get("stop", ""))
