"""The Gemini API: generateContent and streamGenerateContent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.support.model.answer import Answer, Conversation
from tests.support.model.script import Turn, Who
from tests.support.model.tools import Tool, as_text

STOPS: Final[Mapping[str, str]] = {"max_tokens": "MAX_TOKENS", "refusal": "SAFETY"}
STATUS: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
Event = tuple[str, dict[str, Any]]


def read(body: Mapping[str, Any]) -> Conversation:
    declared = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations") or ()]
    tools = [
        Tool(each["name"], each.get("parametersJsonSchema") or each.get("parameters") or {})
        for each in declared
    ]
    turns = [turn for content in body.get("contents") or () for turn in _turns(content)]
    wanted = body.get("generationConfig") or {}
    return Conversation(turns, tools, wanted.get("responseJsonSchema") or wanted.get("responseSchema"))


def _turns(content: Mapping[str, Any]) -> Iterator[Turn]:
    who = Who.MODEL if content.get("role") == "model" else Who.USER
    for part in content.get("parts") or ():
        if call := part.get("functionCall"):
            yield Turn(Who.MODEL, call=call.get("id") or "")
        elif answered := part.get("functionResponse"):
            yield Turn(Who.TOOL, as_text(answered.get("response")), answered.get("id") or "")
        elif part.get("text") and not part.get("thought"):
            yield Turn(who, part["text"])


def whole(answer: Answer, *, model: str) -> dict[str, Any]:
    return _chunk(answer, model, _parts(answer), last=True)


def events(answer: Answer, *, model: str) -> Iterator[Event]:
    """Yield a message as the chunks of a stream; how it ended and what it cost are in the last."""
    parts = _parts(answer)
    for part in parts[:-1]:
        yield "", _chunk(answer, model, [part], last=False)
    yield "", _chunk(answer, model, parts[-1:], last=True)


def _parts(answer: Answer) -> list[dict[str, Any]]:
    half = len(answer.text) // 2
    parts: list[dict[str, Any]] = []
    if answer.thought:
        parts.append({"text": answer.thought, "thought": True})
    parts += [{"text": piece} for piece in (answer.text[:half], answer.text[half:]) if piece]
    for call in answer.calls:
        made = {"id": f"call_{call.id}", "name": call.name, "args": call.arguments}
        parts.append({"functionCall": made, "thoughtSignature": "c2ln"})
    return parts


def _chunk(answer: Answer, model: str, parts: Sequence[Mapping[str, Any]], *, last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    chunk: dict[str, Any] = {"candidates": [candidate], "modelVersion": model, "responseId": answer.id}
    if last:
        candidate["finishReason"] = STOPS.get(answer.stop, "STOP")
        usage = answer.usage
        chunk["usageMetadata"] = {
            "promptTokenCount": usage["input_tokens"],
            "candidatesTokenCount": usage["output_tokens"],
            "cachedContentTokenCount": usage["cached_tokens"],
            "thoughtsTokenCount": usage["reasoning_tokens"],
            "totalTokenCount": usage["input_tokens"] + usage["output_tokens"] + usage["reasoning_tokens"],
        }
    return chunk


def error(status: int, words: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": words, "status": STATUS.get(status, "UNKNOWN")}}
