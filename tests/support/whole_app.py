"""The daemon's whole application in this process: what it raises is raised in the test."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from headcount import Headcount
from headcount.daemon import serve
from headcount.daemon.watch import Watch
from headcount.doors.mcp.crew import Crew
from tests.support.daemons import META, MODERN

PERSON_TOKEN: Final = "the-person-of-this-test"
PATIENCE: Final = 30.0
"""Seconds after which an answer that has not come is a hang."""


class Idle:
    """A lock that nobody has."""

    def keep(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The JSON-RPC message in it, which may come as an event of a stream."""
        text = self.body.decode()
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            text = [line[5:] for line in text.splitlines() if line.startswith("data:")][-1]
        found: dict[str, Any] = json.loads(text)
        return found


class WholeApp:
    """Takes requests as the server hands them over, by the Unix socket or by the port."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def ask(
        self,
        method: str,
        path: str = "/mcp",
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        by_socket: bool = False,
    ) -> Reply:
        """Send one request; what the application raises is raised here."""
        sent = {"host": "localhost:4000", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (k.lower().encode("latin-1", "replace"), v.encode("latin-1", "replace"))
                for k, v in sent.items()
            ],
            "server": ("/daemon.sock", None) if by_socket else ("127.0.0.1", 4000),
            "client": None if by_socket else ("127.0.0.1", 4001),
            "state": {},
        }
        reply: Reply = self.wait(self._exchange(scope, body))
        return reply

    async def _exchange(self, scope: dict[str, Any], body: bytes) -> Reply:
        told = [{"type": "http.request", "body": body, "more_body": False}]
        over = asyncio.Event()
        status, headers, parts = 0, dict[str, str](), list[bytes]()

        async def receive() -> dict[str, Any]:
            if told:
                return told.pop()
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers.update((k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"])
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    over.set()

        await self._app(scope, receive, send)
        return Reply(status, headers, b"".join(parts))

    def post(self, message: object, *, token: str | None, by_socket: bool = False, **more: str) -> Reply:
        """Send a JSON-RPC message as a client does; `more` are headers."""
        head = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": MODERN,
            **({"authorization": f"Bearer {token}"} if token is not None else {}),
            **more,
        }
        return self.ask("POST", "/mcp", json.dumps(message).encode(), headers=head, by_socket=by_socket)

    def request(self, method: str, params: Mapping[str, Any], **how: Any) -> Reply:
        name = {"mcp-name": str(params["name"])} if "name" in params else {}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        return self.post(message, **{"mcp-method": method, **name, **how})

    def call(self, tool: str, arguments: Mapping[str, Any], *, token: str | None, **how: Any) -> Reply:
        """Call a tool."""
        return self.request("tools/call", {"name": tool, "arguments": arguments}, token=token, **how)

    def result(self, tool: str, arguments: Mapping[str, Any], *, token: str | None, **how: Any) -> Any:
        """Call a tool; return what it says: its answer, or {"error": ...}."""
        reply = self.call(tool, arguments, token=token, **how)
        assert reply.status == 200, (tool, reply)
        message = reply.message
        assert "result" in message, (tool, message)
        return message["result"]["structuredContent"]


@contextmanager
def whole_app(fleet: Headcount) -> Iterator[WholeApp]:
    """Have the application of a daemon over `fleet`, without the daemon's threads."""
    loop, crew = asyncio.new_event_loop(), Crew()
    thread = threading.Thread(target=loop.run_forever, name="app")
    thread.start()
    built = serve.config(fleet, crew, PERSON_TOKEN, Watch(fleet.context, Idle()))
    app = WholeApp(built.app, loop)
    ending, begun = asyncio.Event(), asyncio.Event()
    life = asyncio.run_coroutine_threadsafe(_live(built.app, begun, ending), loop)
    try:
        app.wait(begun.wait())
        yield app
    finally:
        loop.call_soon_threadsafe(ending.set)
        life.result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
        crew.dismiss()


async def _live(app: Any, begun: asyncio.Event, ending: asyncio.Event) -> None:
    """Hold the application's lifespan."""
    told = [{"type": "lifespan.startup"}]

    async def receive() -> dict[str, Any]:
        if told:
            return told.pop()
        await ending.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: dict[str, Any]) -> None:
        assert "failed" not in message["type"], message
        begun.set()

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
