"""OpenAI's Chat Completions API, which most others speak too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.support.model.answer import Answer, Conversation
from tests.support.model.script import Turn, Who
from tests.support.model.tools import Call, Tool, as_text

STOPS: Final[Mapping[str, str]] = {"max_tokens": "length", "refusal": "content_filter"}
CODES: Final[Mapping[int, str]] = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
KINDS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    429: "rate_limit_error",
}
Event = tuple[str, dict[str, Any] | str]


def read(body: Mapping[str, Any]) -> Conversation:
    tools = [_tool(tool) for tool in body.get("tools") or ()]
    turns = [turn for message in body.get("messages") or () for turn in _turns(message)]
    wanted = (body.get("response_format") or {}).get("json_schema") or {}
    return Conversation(turns, tools, wanted.get("schema"))


def _tool(tool: Mapping[str, Any]) -> Tool:
    if tool.get("type") == "custom":
        return Tool(tool["custom"]["name"], free=True)
    inner = tool["function"]
    return Tool(inner["name"], inner.get("parameters") or {}, search=inner["name"] == "tool_search")


def _turns(message: Mapping[str, Any]) -> Iterator[Turn]:
    text = as_text(message.get("content"))
    match message["role"]:
        case "user":
            yield Turn(Who.USER, text)
        case "tool":
            yield Turn(Who.TOOL, text, message["tool_call_id"])
        case "assistant":
            yield Turn(Who.MODEL, text)
            for call in message.get("tool_calls") or ():
                yield Turn(Who.MODEL, call=call["id"])


def whole(answer: Answer, *, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.thought:
        message["reasoning_content"] = answer.thought
    if answer.calls:
        message["tool_calls"] = [_call(call) for call in answer.calls]
    choice = {"index": 0, "message": message, "finish_reason": _stop(answer)}
    return {**_head("chat.completion", answer, model), "choices": [choice], "usage": _usage(answer)}


def events(answer: Answer, *, model: str) -> Iterator[Event]:
    """Yield a message as the chunks of a stream, the usage in the last."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if answer.thought:
        deltas.append({"reasoning_content": answer.thought})
    half = len(answer.text) // 2
    deltas += [{"content": piece} for piece in (answer.text[:half], answer.text[half:]) if piece]
    deltas += [{"tool_calls": [{"index": at, **_call(call)}]} for at, call in enumerate(answer.calls)]
    for delta in deltas:
        yield _chunk(answer, model, [{"index": 0, "delta": delta, "finish_reason": None}])
    yield _chunk(answer, model, [{"index": 0, "delta": {}, "finish_reason": _stop(answer)}])
    yield _chunk(answer, model, [], usage=_usage(answer))
    yield "", "[DONE]"


def _chunk(answer: Answer, model: str, choices: list[dict[str, Any]], **more: object) -> Event:
    return "", {**_head("chat.completion.chunk", answer, model), "choices": choices, **more}


def _head(kind: str, answer: Answer, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{answer.id}", "object": kind, "created": 1_800_000_000, "model": model}


def _stop(answer: Answer) -> str:
    return STOPS.get(answer.stop) or ("tool_calls" if answer.calls else "stop")


def _call(call: Call) -> dict[str, Any]:
    if isinstance(call.given, str):
        inner = {"name": call.name, "input": call.given}
        return {"id": f"call_{call.id}", "type": "custom", "custom": inner}
    function = {"name": call.name, "arguments": json.dumps(call.given)}
    return {"id": f"call_{call.id}", "type": "function", "function": function}


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["input_tokens"] + usage["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": usage["cached_tokens"]},
        "completion_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
    }


def error(status: int, words: str) -> dict[str, Any]:
    kind = KINDS.get(status, "server_error")
    return {"error": {"message": words, "type": kind, "param": None, "code": CODES.get(status)}}
