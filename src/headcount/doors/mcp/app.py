"""The MCP server: the one module that knows the SDK's server side.

The SDK's middleware is "provisional" within 2.x; what leans on it here has tests in both protocol eras.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp.server import MCPServer
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools.base import Tool as SdkTool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, INVALID_REQUEST, CallToolResult, TextContent, ToolAnnotations
from pydantic import ConfigDict

from headcount import __version__
from headcount.domain.errors import HeadcountError, Infrastructure, NotAllowed
from headcount.doors.mcp import prompts, resources, wait
from headcount.doors.mcp.arguments import Arguments
from headcount.doors.mcp.asked import REQUEST, Asked
from headcount.doors.mcp.crew import Crew
from headcount.doors.mcp.schema import output_schema
from headcount.doors.mcp.shape import Page, failure
from headcount.doors.mcp.tools import BY_NAME, TOOLS, Tool, Who, mine, wait_for_agents
from headcount.doors.mcp.words import instructions
from headcount.services import rights

LOG: Final = logging.getLogger("headcount.mcp")
LISTS: Final = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
LIST_TTL_MS: Final = 300_000
"""The lists change only with the program, so clients may keep them."""


@dataclass(frozen=True, slots=True)
class Door:
    """What a call needs. `asked` says who sent a request (or raises NotAllowed); it blocks."""

    asked: Callable[[Any], Asked]
    crew: Crew


def make_server(door: Door, *, extra: Callable[[MCPServer[Any]], None] | None = None) -> MCPServer[Any]:
    """Return the server. `extra` mounts more on it, behind the same gate (the conformance suite does)."""
    server: MCPServer[Any] = MCPServer(
        "headcount",
        title="Headcount",
        version=__version__,
        description="Deploys, tracks and stops fleets of headless coding agents",
        instructions=instructions(Who.PERSON),
        tools=[_bind(tool, door) for tool in TOOLS],
        cache_hints={each: CacheHint(ttl_ms=LIST_TTL_MS) for each in LISTS},
        subscriptions=None if extra else False,  # nothing that we list changes while we run
        middleware=[_Gate(door)],
        log_level="WARNING",
    )
    prompts.mount(server)
    resources.mount(server, door)
    if extra is not None:
        extra(server)
    return server


class _Anything(ArgModelBase):
    """Lets every argument through to `Arguments`, whose errors say what is right in one line."""

    model_config = ConfigDict(extra="allow")

    def model_dump_one_level(self) -> dict[str, Any]:
        return {"given": dict(self.model_extra or {})}


def _bind(tool: Tool, door: Door) -> SdkTool:
    """Return the SDK's form of a tool: our schemas, our checks, our results."""
    arguments = Arguments(tool)

    async def run(given: dict[str, Any], ctx: Context[Any, Any]) -> CallToolResult:
        return _result(await _carry_out(tool, arguments, door, given, ctx))

    return SdkTool(
        fn=run,
        name=tool.name,
        title=tool.title,
        description=tool.description,
        parameters=arguments.schema,
        fn_metadata=FuncMetadata(arg_model=_Anything, output_schema=output_schema(tool.answer)),
        is_async=True,
        context_kwarg="ctx",
        annotations=_annotations(tool),
    )


def _annotations(tool: Tool) -> ToolAnnotations:
    return ToolAnnotations(
        title=tool.title,
        read_only_hint=tool.reads_only,
        destructive_hint=tool.destroys,
        idempotent_hint=tool.repeats_well,
        open_world_hint=tool.answer.__name__ == "Deployed",  # an agent may reach anything
    )


async def _carry_out(
    tool: Tool, arguments: Arguments, door: Door, given: Mapping[str, Any], ctx: Context[Any, Any]
) -> Page:
    """Run a tool for its caller; a domain error becomes an answer."""
    request = ctx.request_context.request

    def asked_for() -> Asked:
        asked = door.asked(request)
        _allow(tool, asked)
        return asked

    def work() -> Page:
        return tool.call(asked_for().fleet, **arguments.check(given))

    try:
        if tool.call is wait_for_agents:
            asked = await door.crew.do(asked_for)
            return await wait.follow(door.crew, asked.fleet, arguments.check(given), ctx.report_progress)
        return await door.crew.do(work, slow=tool.slow)
    except HeadcountError as error:
        return failure(error)
    except Exception as error:
        LOG.exception("tool_failed", extra={"tool": tool.name})
        return failure(
            Infrastructure(f"{tool.name} failed unexpectedly: {type(error).__name__}", hint="see daemon.log")
        )


def _allow(tool: Tool, asked: Asked) -> None:
    if asked.who not in tool.who:
        whose = "an agent" if asked.who is Who.AGENT else "a person"
        raise NotAllowed(f"{tool.name} is not for {whose}", hint=f"you have: {', '.join(mine(asked.who))}")
    if not tool.late:
        rights.check_live(asked.fleet.context)


def _result(page: Page) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=page.text)],
        structured_content=page.facts,
        is_error=page.failed,
    )


class _Gate:
    """Shows each caller its own tools and instructions."""

    def __init__(self, door: Door) -> None:
        self._door: Final = door

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        REQUEST.set(ctx.request)
        match ctx.method:
            case "tools/list":
                return self._listed(await call_next(ctx), await self._who(ctx))
            case "initialize" | "server/discover":
                result = await call_next(ctx)
                assert isinstance(result, dict)
                return {**result, "instructions": instructions(await self._who(ctx))}
            case "tools/call":
                return self._known(await call_next(ctx), ctx)
            case _:
                return await call_next(ctx)

    async def _who(self, ctx: ServerRequestContext[Any, Any]) -> Who:
        try:
            return (await self._door.crew.do(lambda: self._door.asked(ctx.request))).who
        except HeadcountError as error:
            raise MCPError(code=INVALID_REQUEST, message=f"{error.code}: {error.message}") from error

    def _listed(self, result: HandlerResult, who: Who) -> HandlerResult:
        assert isinstance(result, dict)
        hidden = BY_NAME.keys() - mine(who)
        return {**result, "tools": [each for each in result["tools"] if each["name"] not in hidden]}

    def _known(self, result: HandlerResult, ctx: ServerRequestContext[Any, Any]) -> HandlerResult:
        """An unknown tool is an error of the protocol; the SDK answers it as one of the tool."""
        name = str((ctx.params or {}).get("name"))
        if isinstance(result, dict) and result.get("isError") and _says(result, f"Unknown tool: {name}"):
            near = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; tools/list has them all"
            raise MCPError(code=INVALID_PARAMS, message=f"unknown tool {name[:64]!r}{hint}")
        return result


def _says(result: Mapping[str, Any], text: str) -> bool:
    return bool(result["content"]) and result["content"][0].get("text") == text
