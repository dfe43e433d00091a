"""The Anthropic Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.support.model.answer import Answer, Conversation
from tests.support.model.script import Turn, Who
from tests.support.model.tools import Tool, as_text

ERRORS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
Event = tuple[str, dict[str, Any]]


def read(body: Mapping[str, Any]) -> Conversation:
    tools = [
        Tool(tool["name"], tool.get("input_schema") or {}, search=tool["name"] == "ToolSearch")
        for tool in body.get("tools") or ()
        if not tool.get("defer_loading")
    ]
    turns = [turn for message in body.get("messages") or () for turn in _turns(message)]
    wanted = (body.get("output_config") or {}).get("format") or {}
    return Conversation(turns, tools, wanted.get("schema"))


def _turns(message: Mapping[str, Any]) -> Iterator[Turn]:
    content = message["content"]
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        match message["role"], block["type"]:
            case "assistant", "tool_use":
                yield Turn(Who.MODEL, call=block["id"])
            case "assistant", "text":
                yield Turn(Who.MODEL, block["text"])
            case "user", "tool_result":
                yield Turn(Who.TOOL, as_text(block.get("content")), block["tool_use_id"])
            case "user", "text":
                yield Turn(Who.USER, block["text"])


def whole(answer: Answer, *, model: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if answer.thought:
        content.append({"type": "thinking", "thinking": answer.thought, "signature": "c2ln"})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [
        {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": call.arguments}
        for call in answer.calls
    ]
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": answer.stop or ("tool_use" if answer.calls else "end_turn"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": answer.usage["input_tokens"],
            "output_tokens": answer.usage["output_tokens"],
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": answer.usage["cached_tokens"],
        },
    }


def events(answer: Answer, *, model: str) -> Iterator[Event]:
    """Yield a message as the events of a stream."""
    message = whole(answer, model=model)
    begins = {**message, "content": [], "stop_reason": None}
    begins["usage"] = {**message["usage"], "output_tokens": 1}
    yield _event("message_start", message=begins)
    for index, block in enumerate(message["content"]):
        empty, *deltas = _pieces(block)
        yield _event("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    ends = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=ends, usage={"output_tokens": message["usage"]["output_tokens"]})
    yield _event("message_stop")


def _event(kind: str, **more: object) -> Event:
    return kind, {"type": kind, **more}


def _pieces(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a block without what it says, then what it says."""
    match block["type"]:
        case "thinking":
            yield {**block, "thinking": "", "signature": ""}
            yield {"type": "thinking_delta", "thinking": block["thinking"]}
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "text":
            yield {**block, "text": ""}
            half = len(block["text"]) // 2
            yield {"type": "text_delta", "text": block["text"][:half]}
            yield {"type": "text_delta", "text": block["text"][half:]}
        case _:
            yield {**block, "input": {}}
            yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}


def error(status: int, words: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": ERRORS.get(status, "api_error"), "message": words}}
