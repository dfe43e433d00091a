"""OpenAI's Responses API, which Codex speaks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.support.model.answer import Answer, Conversation
from tests.support.model.chat import error
from tests.support.model.script import Turn, Who
from tests.support.model.tools import Call, Tool, as_text

__all__ = ["error", "events", "read", "whole"]

STOPS: Final[Mapping[str, str]] = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}
CALLS: Final = {"function_call", "custom_tool_call", "tool_search_call"}
Event = tuple[str, dict[str, Any]]


def read(body: Mapping[str, Any]) -> Conversation:
    given = body.get("input") or []
    items: Sequence[Mapping[str, Any]] = (
        [{"role": "user", "content": given}] if isinstance(given, str) else given
    )
    tools = [tool for each in body.get("tools") or () for tool in _tools(each)]
    for item in items:
        if item.get("type") in {"tool_search_output", "additional_tools"}:
            tools += [tool for each in item.get("tools") or () for tool in _tools(each)]
    wanted = (body.get("text") or {}).get("format") or {}
    return Conversation([turn for item in items for turn in _turns(item)], tools, wanted.get("schema"))


def _tools(tool: Mapping[str, Any], namespace: str = "") -> Iterator[Tool]:
    match tool.get("type"):
        case "namespace":
            for inner in tool.get("tools") or ():
                yield from _tools(inner, tool["name"])
        case "tool_search" if tool.get("execution") == "client":
            yield Tool("tool_search", tool.get("parameters") or {}, free=True, search=True)
        case kind if "name" in tool:
            yield Tool(tool["name"], tool.get("parameters") or {}, namespace, free=kind == "custom")


def _turns(item: Mapping[str, Any]) -> Iterator[Turn]:
    kind = item.get("type", "message")
    if kind == "message" and item["role"] in {"user", "assistant"}:
        who = Who.USER if item["role"] == "user" else Who.MODEL
        yield Turn(who, as_text(item.get("content")))
    elif kind in CALLS:
        yield Turn(Who.MODEL, call=item["call_id"])
    elif kind.endswith("_output"):
        yield Turn(Who.TOOL, as_text(item.get("output")), item.get("call_id") or "")


def whole(answer: Answer, *, model: str) -> dict[str, Any]:
    return _response(answer, model, "incomplete" if answer.stop else "completed", _items(answer))


def _response(answer: Answer, model: str, status: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    usage, over = answer.usage, status != "in_progress"
    counted = {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": usage["cached_tokens"]},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
        "total_tokens": usage["input_tokens"] + usage["output_tokens"],
    }
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": 1_800_000_000,
        "status": status,
        "model": model,
        "output": items,
        "error": None,
        "incomplete_details": {"reason": STOPS[answer.stop]} if status == "incomplete" else None,
        "usage": counted if over else None,
    }


def _items(answer: Answer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if answer.thought:
        summary = [{"type": "summary_text", "text": answer.thought}]
        items.append({"type": "reasoning", "id": f"rs_{answer.id}", "summary": summary})
    if answer.text:
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        items.append(
            {
                "type": "message",
                "id": f"msg_{answer.id}",
                "role": "assistant",
                "status": "completed",
                "content": content,
            }
        )
    return items + [_call(call) for call in answer.calls]


def _call(call: Call) -> dict[str, Any]:
    item: dict[str, Any] = {"id": f"item_{call.id}", "call_id": f"call_{call.id}", "status": "completed"}
    if call.search:
        return {**item, "type": "tool_search_call", "execution": "client", "arguments": call.given}
    if isinstance(call.given, str):
        return {**item, "type": "custom_tool_call", "name": call.name, "input": call.given}
    named = {**item, "type": "function_call", "name": call.name, "arguments": json.dumps(call.given)}
    return {**named, "namespace": call.namespace} if call.namespace else named


def events(answer: Answer, *, model: str) -> Iterator[Event]:
    """Yield a response as the events of a stream."""
    last = whole(answer, model=model)
    every: list[Event] = [("response.created", {"response": _response(answer, model, "in_progress", [])})]
    for index, item in enumerate(last["output"]):
        every += [(kind, {"output_index": index, **more}) for kind, more in _pieces(item)]
    every.append((f"response.{last['status']}", {"response": last}))
    for count, (kind, more) in enumerate(every):
        yield kind, {"type": kind, "sequence_number": count, **more}


def _pieces(item: Mapping[str, Any]) -> Iterator[Event]:
    empty = {**item, "status": "in_progress"}
    part = {"item_id": item["id"]}
    match item["type"]:
        case "message":
            text, whole_part = item["content"][0]["text"], {**part, "content_index": 0}
            yield "response.output_item.added", {"item": {**empty, "content": []}}
            blank = {"type": "output_text", "text": "", "annotations": []}
            yield "response.content_part.added", {**whole_part, "part": blank}
            for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield "response.output_text.delta", {**whole_part, "delta": piece}
            yield "response.output_text.done", {**whole_part, "text": text}
        case "function_call":
            yield "response.output_item.added", {"item": {**empty, "arguments": ""}}
            yield "response.function_call_arguments.delta", {**part, "delta": item["arguments"]}
            yield "response.function_call_arguments.done", {**part, "arguments": item["arguments"]}
        case "custom_tool_call":
            yield "response.output_item.added", {"item": {**empty, "input": ""}}
            yield "response.custom_tool_call_input.delta", {**part, "delta": item["input"]}
            yield "response.custom_tool_call_input.done", {**part, "input": item["input"]}
        case _:
            yield "response.output_item.added", {"item": item}
    yield "response.output_item.done", {"item": item}
