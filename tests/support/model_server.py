"""A scripted model on loopback for agent programs under test, in the words of each API that they speak.

    POST .../messages                                       Anthropic Messages
    POST .../responses                                      OpenAI Responses
    POST .../chat/completions                               OpenAI Chat Completions
    POST .../models/M:generateContent, :streamGenerateContent    Gemini

A script is a list of steps, one for each message of the model. It travels in the prompt (`play(steps)`), so
that one server serves any number of agents and keeps no state but a log and a count of tries. It may stand
anywhere in what the user says, and the last one counts. A step may have

    text STRING                      what the model says; without a call it ends the turn
    think STRING                     what it thinks before
    bash COMMAND                     the client's shell tool
    write {path, content}            its tool for new files; some want the path absolute
    edit {path, old, new}            its tool for changes; whole lines, for clients that take only patches
    read PATH                        its tool to read a file, or the shell's
    mcp {server, tool, arguments}    a tool of an MCP server, by the client's tool search if it is hidden
    tool {name, input}               any tool by its exact name
    calls [STEP...]                  several calls at once
    usage {input_tokens, output_tokens, cached_tokens, reasoning_tokens}
    stop "max_tokens" | "refusal"    why the message ends, if that is not the model's own wish; the last step
                                     with it is said again to a client that asks again

`${2}` in a step's strings is what the call of step 2 was answered, `${2.1}` its second call, and
`${2:agents.0.agent_id}` a part of an answer that is JSON somehow: a whole string keeps that part's type.
`${2:agent_id}` is found in lines such as `agent_id: builder-01` too.

    gate true                        say nothing until the test sets `ModelServer.gate`
    delay SECONDS                    say nothing for so long
    trickle SECONDS                  wait so long between the pieces of a stream
    hang true                        begin a stream and say no more, until the client is gone or the test over
    cut true                         break the connection in the middle of the stream
    status N, message STRING, retry_after SECONDS     an HTTP error
    times K                          that error, hang or cut for the first K tries only (default: always)

Tries are counted by script and step: agents that play the same words share them. A request that offers no
tools (a title, a summary), or whose conversation has no script, is answered with a short text or with the
smallest JSON that fits what it asks for.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import urlsplit

from tests.support.model import anthropic, chat, gemini, responses
from tests.support.model.answer import Answer, Api, from_step, without_script
from tests.support.model.script import Place, Step, find_place, play

__all__ = ["Asked", "ModelServer", "Step", "play"]

APIS: Final[Mapping[str, Api]] = {
    "/messages": anthropic,
    "/responses": responses,
    "/chat/completions": chat,
    ":generateContent": gemini,
    ":streamGenerateContent": gemini,
}
ALWAYS: Final = 10**9


@dataclass(frozen=True)
class Asked:
    """One request for a message; `step` is None without a script or without tools, as for a title."""

    path: str
    api: str
    model: str
    step: int | None
    tools: tuple[str, ...]
    key: str | None
    body: Mapping[str, Any] = field(repr=False)


class ModelServer:
    """Serves on a free port of loopback from `with` to its end. `asked` logs what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.gate = threading.Event()
        self.over = threading.Event()
        self._tries: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def fails(self, step: Step, place: Place) -> bool:
        """Say whether this try of a step is one of those that go wrong."""
        with self._lock:
            self._tries[json.dumps(place.steps), place.number] += 1
            tries = self._tries[json.dumps(place.steps), place.number]
        return tries <= int(step.get("times", ALWAYS))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    model: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed in the middle of an answer is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "model"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is `ModelServer.asked`."""

    def do_HEAD(self) -> None:
        self._json(200, {})

    def do_GET(self) -> None:
        self._json(404, anthropic.error(404, self.path))

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        path = urlsplit(self.path).path
        if path.endswith("/count_tokens"):
            self._json(200, {"input_tokens": 1000})
        elif path.endswith(":countTokens"):
            self._json(200, {"totalTokens": 1000})
        elif api := next((api for end, api in APIS.items() if path.endswith(end)), None):
            self._message(api, path, body)
        else:
            self.do_GET()

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    # ---------------------------------------------------------------- what to say

    def _message(self, api: Api, path: str, body: Mapping[str, Any]) -> None:
        conversation = api.read(body)
        place = find_place(conversation.turns) if conversation.tools else None
        model = body.get("model") or path.rsplit("/", 1)[-1].partition(":")[0]
        tools = tuple(tool.whole_name for tool in conversation.tools)
        number = place.number if place else None
        name = api.__name__.rsplit(".", 1)[-1]
        self.server.model.note(Asked(path, name, model, number, tools, self._key(), body))
        streams = body.get("stream") or path.endswith(":streamGenerateContent")
        if place is None:
            self._say(api, without_script(conversation), {}, model=model, streams=streams)
            return
        step = place.step
        self._wait(step)
        fails = self.server.model.fails(step, place)
        if fails and "status" in step:
            self._refuse(api, step)
            return
        faults = step if fails else {"trickle": step.get("trickle", 0)}
        self._say(api, from_step(step, place, conversation.tools), faults, model=model, streams=streams)

    def _key(self) -> str | None:
        given = self.headers.get("x-api-key") or self.headers.get("x-goog-api-key")
        return given or self.headers.get("authorization", "").removeprefix("Bearer ") or None

    def _wait(self, step: Step) -> None:
        if step.get("gate"):
            self.server.model.gate.wait()
        self.server.model.over.wait(step.get("delay", 0))

    def _refuse(self, api: Api, step: Step) -> None:
        after = {"retry-after": str(step["retry_after"])} if "retry_after" in step else {}
        words = step.get("message", f"scripted error {step['status']}")
        self._json(step["status"], api.error(step["status"], words), after)

    # ---------------------------------------------------------------- saying it

    def _say(self, api: Api, answer: Answer, faults: Step, *, model: str, streams: bool) -> None:
        whole = json.dumps(api.whole(answer, model=model)).encode()
        if streams:
            self._stream(list(_lines(api.events(answer, model=model))), faults)
        elif faults.get("cut") or faults.get("hang"):
            self._head("application/json", {"content-length": str(len(whole))})
            self.wfile.write(whole[: len(whole) // 2])
            self._break_off(faults)
        else:
            self._send(200, "application/json", whole, {})

    def _stream(self, lines: list[bytes], faults: Step) -> None:
        self._head("text/event-stream", {"transfer-encoding": "chunked", "cache-control": "no-cache"})
        broken = faults.get("cut") or faults.get("hang")
        for line in lines[: max(1, len(lines) // 2)] if broken else lines:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.server.model.over.wait(faults.get("trickle", 0))
        if broken:
            self._break_off(faults)
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _break_off(self, faults: Step) -> None:
        """End the connection with the answer unfinished; for a hang, once nobody waits for it."""
        if faults.get("hang"):
            while not self.server.model.over.is_set() and not self._client_is_gone():
                pass
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _client_is_gone(self) -> bool:
        ready, _, _ = select.select([self.connection], [], [], 0.1)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def _json(self, status: int, value: object, more: Mapping[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(value).encode(), more or {})

    def _send(self, status: int, kind: str, data: bytes, more: Mapping[str, str]) -> None:
        self._head(kind, {"content-length": str(len(data)), **more}, status)
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, kind: str, more: Mapping[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, **more}.items():
            self.send_header(name, value)
        self.end_headers()


def _lines(events: Iterator[tuple[str, object]]) -> Iterator[bytes]:
    """Yield the events of a stream as they stand on the wire."""
    for name, value in events:
        words = value if isinstance(value, str) else json.dumps(value)
        yield f"{f'event: {name}{chr(10)}' if name else ''}data: {words}\n\n".encode()
