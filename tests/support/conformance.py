"""What the official conformance suite calls: its fixture tools, resources and prompts, mounted on our own
server, so that what it tests is our stack. Run as a program it serves them on a port, which it prints.

The names and answers are the suite's; see its scenarios.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, UserMessage
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    Completion,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    JSONRPCMessage,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field, JsonValue

from headcount import Headcount
from headcount.daemon.serve import only_this_machine
from headcount.doors.mcp.app import Door, make_server
from headcount.doors.mcp.asked import Asked
from headcount.doors.mcp.crew import Crew

PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WAV: Final = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="
Ctx = Context[Any, Any]


def mount(server: MCPServer[Any]) -> None:
    """Put the suite's fixtures on a server."""
    for tool in (
        test_simple_text,
        test_image_content,
        test_audio_content,
        test_embedded_resource,
        test_multiple_content_types,
        test_tool_with_logging,
        test_tool_with_progress,
        test_error_handling,
        test_reconnection,
        test_sampling,
        test_elicitation,
        test_elicitation_sep1034_defaults,
        test_elicitation_sep1330_enums,
        test_custom_header,
        test_missing_capability,
        test_streaming_elicitation,
        test_logging_tool,
        test_trigger_tool_change,
        test_trigger_prompt_change,
        test_input_required_result_elicitation,
        test_input_required_result_sampling,
        test_input_required_result_list_roots,
        test_input_required_result_request_state,
        test_input_required_result_multiple_inputs,
        test_input_required_result_multi_round,
        test_input_required_result_tampered_state,
        test_input_required_result_capabilities,
    ):
        server.tool(description=tool.__name__.replace("_", " "))(tool)
    _mount_schema_tool(server)
    _mount_resources(server)
    for prompt in (
        test_simple_prompt,
        test_prompt_with_arguments,
        test_prompt_with_embedded_resource,
        test_prompt_with_image,
        test_input_required_result_prompt,
    ):
        server.prompt(description=prompt.__name__.replace("_", " "))(prompt)
    _mount_handlers(server)


# content


def test_simple_text() -> str:
    return "This is a simple text response for testing."


def test_image_content() -> list[ImageContent]:
    return [_png()]


def test_audio_content() -> list[AudioContent]:
    return [AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


def test_embedded_resource() -> list[EmbeddedResource]:
    return [_embedded("test://embedded-resource", "This is an embedded resource content.")]


def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    text = TextContent(type="text", text="Multiple content types test:")
    return [
        text,
        _png(),
        _embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ]


def test_error_handling() -> str:
    raise ToolError("This tool intentionally returns an error for testing")


def _png() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def _embedded(uri: str, text: str, kind: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(
        type="resource", resource=TextResourceContents(uri=uri, mime_type=kind, text=text)
    )


# notes under way


async def test_tool_with_logging(ctx: Ctx) -> str:
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message(level="info", data=text, related_request_id=ctx.request_id)
        await asyncio.sleep(0.05)
    return "done"


async def test_logging_tool(ctx: Ctx) -> str:
    await ctx.session.send_log_message(level="info", data="a note", related_request_id=ctx.request_id)
    return "done"


async def test_tool_with_progress(ctx: Ctx) -> str:
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(0.05)
    return "done"


async def test_reconnection(ctx: Ctx) -> str:
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return "Reconnection test completed successfully."


async def test_trigger_tool_change(ctx: Ctx) -> str:
    await ctx.notify_tools_changed()
    return "done"


async def test_trigger_prompt_change(ctx: Ctx) -> str:
    await ctx.notify_prompts_changed()
    return "done"


# questions to the client, in the era of the handshake


class Answer(BaseModel):
    response: str = Field(description="User's response")


class Defaults(BaseModel):
    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True)


def _titled(key: str, values: Mapping[str, str]) -> dict[str, JsonValue]:
    return {key: [{"const": name, "title": title} for name, title in values.items()]}


PLAIN: Final[list[JsonValue]] = ["option1", "option2", "option3"]
TITLED: Final = {"value1": "First Option", "value2": "Second Option", "value3": "Third Option"}


class Enums(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": PLAIN})  # noqa: N815  the suite's names
    titledSingle: str = Field(json_schema_extra=_titled("oneOf", TITLED))  # noqa: N815
    legacyEnum: str = Field(json_schema_extra={"enum": PLAIN, "enumNames": ["One", "Two", "Three"]})  # noqa: N815
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": PLAIN}})  # noqa: N815
    titledMulti: list[str] = Field(json_schema_extra={"items": _titled("anyOf", TITLED)})  # noqa: N815


async def test_sampling(prompt: str, ctx: Ctx) -> str:
    asked = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message(messages=[asked], max_tokens=100)
    return f"LLM response: {getattr(answer.content, 'text', '')}"


async def _elicited(ctx: Ctx, message: str, schema: type[BaseModel]) -> str:
    answer = await ctx.elicit(message, schema)
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    return f"Elicitation completed: action={answer.action}, content={content}"


async def test_elicitation(message: str, ctx: Ctx) -> str:
    return (await _elicited(ctx, message, Answer)).replace("Elicitation completed", "User response")


async def test_elicitation_sep1034_defaults(ctx: Ctx) -> str:
    return await _elicited(ctx, "Please fill in", Defaults)


async def test_elicitation_sep1330_enums(ctx: Ctx) -> str:
    return await _elicited(ctx, "Please choose", Enums)


# input that a result asks for, in the stateless era


def _form(message: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(properties), "required": list(properties)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def _sample(text: str, tokens: int) -> dict[str, Any]:
    message = {"role": "user", "content": {"type": "text", "text": text}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens}}


ROOTS: Final = {"method": "roots/list", "params": {}}
NAME: Final = _form("What is your name?", {"name": {"type": "string"}})


def _ask(requests: Mapping[str, Any], state: str | None = None) -> InputRequiredResult:
    found: InputRequiredResult = InputRequiredResult.model_validate(
        {"resultType": "input_required", "inputRequests": dict(requests), "requestState": state}
    )
    return found


def _given(ctx: Ctx, key: str) -> Any:
    """Return the client's answer as JSON, None if it gave none that is one."""
    found = (ctx.input_responses or {}).get(key)
    return None if found is None else found.model_dump(mode="json", by_alias=True, exclude_none=True)


def _field(ctx: Ctx, key: str, field: str) -> Any:
    answer = _given(ctx, key) or {}
    return (answer.get("content") or {}).get(field) if answer.get("action") == "accept" else None


async def test_input_required_result_elicitation(ctx: Ctx) -> str | InputRequiredResult:
    name = _field(ctx, "user_name", "name")
    return f"Hello, {name}!" if isinstance(name, str) else _ask({"user_name": NAME})


async def test_input_required_result_sampling(ctx: Ctx) -> str | InputRequiredResult:
    answer = _given(ctx, "capital_question")
    question = _sample("What is the capital of France?", 100)
    return json.dumps(answer) if answer else _ask({"capital_question": question})


async def test_input_required_result_list_roots(ctx: Ctx) -> str | InputRequiredResult:
    answer = _given(ctx, "client_roots")
    return json.dumps(answer) if answer else _ask({"client_roots": ROOTS})


async def test_input_required_result_request_state(ctx: Ctx) -> str | InputRequiredResult:
    if ctx.request_state == "waiting" and _given(ctx, "confirm"):
        return "state-ok"
    return _ask({"confirm": _form("Please confirm", {"ok": {"type": "boolean"}})}, "waiting")


async def test_input_required_result_tampered_state(ctx: Ctx) -> str | InputRequiredResult:
    return await test_input_required_result_request_state(ctx)


async def test_input_required_result_multiple_inputs(ctx: Ctx) -> str | InputRequiredResult:
    asked = {"user_name": NAME, "greeting": _sample("Generate a greeting", 50), "client_roots": ROOTS}
    answers = {key: _given(ctx, key) for key in asked}
    return json.dumps(answers) if all(answers.values()) else _ask(asked, "waiting")


async def test_input_required_result_multi_round(ctx: Ctx) -> str | InputRequiredResult:
    if ctx.request_state == "two" and (color := _field(ctx, "step2", "color")):
        return f"All done: {color}"
    if ctx.request_state == "one" and _field(ctx, "step1", "name"):
        return _ask(
            {"step2": _form("Step 2: What is your favorite color?", {"color": {"type": "string"}})}, "two"
        )
    return _ask({"step1": _form("Step 1: What is your name?", {"name": {"type": "string"}})}, "one")


async def test_input_required_result_capabilities(ctx: Ctx) -> str | InputRequiredResult:
    has = ctx.client_capabilities
    asked: dict[str, Any] = {}
    if has is not None and has.sampling is not None:
        asked["question"] = _sample("What?", 10)
    if has is not None and has.elicitation is not None:
        asked["user_name"] = NAME
    return "done" if ctx.input_responses or not asked else _ask(asked)


async def test_streaming_elicitation(ctx: Ctx) -> str | InputRequiredResult:
    return await test_input_required_result_elicitation(ctx)


async def test_missing_capability(ctx: Ctx) -> str:
    has = ctx.client_capabilities
    if has is None or has.sampling is None:
        lacking: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(code=MISSING_REQUIRED_CLIENT_CAPABILITY, message="sampling is needed", data=lacking)
    return "done"


async def test_custom_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
) -> str:
    return region


# prompts


def test_simple_prompt() -> list[UserMessage]:
    return [UserMessage("This is a simple prompt for testing.")]


def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]


def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803  the suite's name
    embedded = _embedded(resourceUri, "Embedded resource content for testing.")
    return [UserMessage(embedded), UserMessage("Please process the embedded resource above.")]


def test_prompt_with_image() -> list[UserMessage]:
    return [UserMessage(_png()), UserMessage("Please analyze the image above.")]


async def test_input_required_result_prompt(ctx: Ctx) -> str | InputRequiredResult:
    context = _field(ctx, "user_context", "context")
    question = _form("What context should the prompt use?", {"context": {"type": "string"}})
    return f"Use {context}" if context else _ask({"user_context": question})


# what has no function of its own


def _mount_schema_tool(server: MCPServer[Any]) -> None:
    def json_schema_2020_12_tool(name: str = "") -> str:
        return name

    server.tool(description="Tool with JSON Schema 2020-12 features")(json_schema_2020_12_tool)
    tool = server._tool_manager.get_tool("json_schema_2020_12_tool")
    assert tool is not None
    text = {"type": "string"}
    street = {"$anchor": "addressDef", "type": "object", "properties": {"street": text, "city": text}}
    tool.parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": street},
        "properties": {
            "name": text,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": text,
            "email": text,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }


def _mount_resources(server: MCPServer[Any]) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        import base64

        return base64.b64decode(PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        return "Watched resource content"


def _mount_handlers(server: MCPServer[Any]) -> None:
    async def taken(_: Any, __: Any) -> EmptyResult:
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, taken)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, taken)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, taken)

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # as the SDK has it
    async def complete(_: Any, __: Any, ___: Any) -> Completion:
        return Completion(values=[], total=0, has_more=False)


class Events(EventStore):
    """What was sent, so that a stream can be taken up again."""

    def __init__(self) -> None:
        self._sent: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._sent.append((stream_id, message))
        return str(len(self._sent))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not last_event_id.isdecimal() or not 0 < int(last_event_id) <= len(self._sent):
            return None
        stream, _ = self._sent[int(last_event_id) - 1]
        for number, (each, message) in enumerate(self._sent[int(last_event_id) :], int(last_event_id) + 1):
            if each == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def main(home: str, kind: str) -> None:
    """Serve: `fixtures` with what the suite calls and with sessions, `product` as the daemon does, but for
    the token."""
    fleet = Headcount(home, autostart=False, views=False)
    door = Door(lambda _: Asked(fleet), Crew())
    if kind == "fixtures":
        server = make_server(door, extra=mount)
        app = server.streamable_http_app(
            event_store=Events(), retry_interval=100, transport_security=only_this_machine()
        )
    else:
        server = make_server(door)
        app = server.streamable_http_app(stateless_http=True, transport_security=only_this_machine())
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
    asyncio.run(uvicorn.Server(config).serve([listening]))


if __name__ == "__main__":
    main(*sys.argv[1:])
