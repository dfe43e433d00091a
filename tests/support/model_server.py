"""A scripted model on loopback that answers the Anthropic Messages API, for agent programs under test.

A script is a list of steps, one for each message of the model. It travels in the prompt (`play(steps)`), so
that one server serves any number of agents and keeps no state but a log. A step may have

    text STRING                      what the model says; without a call it ends the turn
    bash COMMAND                     the client's shell tool
    write {path, content}            its tool for new files
    edit {path, old, new}            its tool for changes
    mcp {server, tool, arguments}    a tool of an MCP server, by the client's tool search if it is hidden
    tool {name, input}               any tool by its exact name
    calls [STEP...]                  several calls at once
    usage {input_tokens, output_tokens}
    status N, message STRING, times K   an HTTP error, for the first K tries (default: always)
    gate true                        say nothing until the test sets `ModelServer.gate`
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

MARK = re.compile(r"<<<SCRIPT (.*?) SCRIPT>>>", re.DOTALL)
STEP_ID = re.compile(r"toolu_script_(\d+)_(\d+)")
SEARCH_ID = re.compile(r"toolu_search_(\d+)")
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}

Step = Mapping[str, Any]
Block = dict[str, Any]


def play(steps: Sequence[Step]) -> str:
    """Return the words that make a prompt play these steps."""
    return f"<<<SCRIPT {json.dumps(steps)} SCRIPT>>>"


@dataclass(frozen=True)
class Asked:
    """One request for a message; `step` is None without a script or without tools, as for a title."""

    path: str
    model: str
    step: int | None
    tools: tuple[str, ...]
    key: str | None
    body: Mapping[str, Any] = field(repr=False)


# ---------------------------------------------------------------- what to say


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (str(block["text"]) for block in content if block.get("type") == "text")


def _ids(content: object, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Yield the ids of tool calls and of answers to them."""
    for block in content if isinstance(content, list) else ():
        for key in ("id", "tool_use_id"):
            if match := pattern.fullmatch(str(block.get(key, ""))):
                yield match


def find_script(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Step], int, set[int]] | None:
    """Return the last script in the conversation, the step to play, and the steps that were searched for."""
    for at in reversed(range(len(messages))):
        if messages[at]["role"] != "user":
            continue
        for text in reversed(list(_texts(messages[at]["content"]))):
            if marks := MARK.findall(text):
                later = [message["content"] for message in messages[at:]]
                done = [int(match[1]) for content in later for match in _ids(content, STEP_ID)]
                searched = {int(match[1]) for content in later for match in _ids(content, SEARCH_ID)}
                return json.loads(marks[-1]), max(done, default=-1) + 1, searched
    return None


def say(step: Step, number: int, *, tools: Sequence[str], searched: bool) -> list[Block]:
    """Return the blocks of the message for a step."""
    blocks: list[Block] = [{"type": "text", "text": step["text"]}] if step.get("text") else []
    calls = [_call(each, tools) for each in step.get("calls", [step])]
    for count, call in enumerate(each for each in calls if each is not None):
        name, given = call
        if name not in tools and "ToolSearch" in tools and not searched:
            query = {"query": f"select:{name}", "max_results": 5}
            return [
                {"type": "tool_use", "id": f"toolu_search_{number}", "name": "ToolSearch", "input": query}
            ]
        blocks.append(
            {"type": "tool_use", "id": f"toolu_script_{number}_{count}", "name": name, "input": given}
        )
    return blocks or [{"type": "text", "text": "(nothing)"}]


def _call(step: Step, tools: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    match step:
        case {"bash": command}:
            return _offered(("Bash", "bash"), tools), {"command": command, "description": "scripted"}
        case {"write": {"path": path, "content": content}}:
            return _offered(("Write", "write"), tools), {"file_path": path, "content": content}
        case {"edit": {"path": path, "old": old, "new": new}}:
            given = {"file_path": path, "old_string": old, "new_string": new}
            return _offered(("Edit", "edit"), tools), given
        case {"mcp": {"server": server, "tool": tool, "arguments": given}}:
            return f"mcp__{server}__{tool}", given
        case {"tool": {"name": name, "input": given}}:
            return name, given
    return None


def _offered(names: Sequence[str], tools: Sequence[str]) -> str:
    return next((name for name in names if name in tools), names[0])


# ---------------------------------------------------------------- saying it in the protocol


def message(blocks: Sequence[Block], *, model: str, number: int, usage: Mapping[str, int]) -> dict[str, Any]:
    calls = any(block["type"] == "tool_use" for block in blocks)
    return {
        "id": f"msg_script_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(blocks),
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1000,
            "output_tokens": 20,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            **usage,
        },
    }


def events(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message as the events of a stream."""
    begins = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield {"type": "message_start", "message": begins}
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ends = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {
        "type": "message_delta",
        "delta": ends,
        "usage": {"output_tokens": whole["usage"]["output_tokens"]},
    }
    yield {"type": "message_stop"}


class ModelServer:
    """Serves on a free port of loopback from `with` to its end. `asked` logs what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.gate = threading.Event()
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
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        """Return the status and the message, or the error, for a request."""
        with self._lock:
            self.asked.append(asked)
        found = find_script(asked.body.get("messages", []))
        if found is None or asked.step is None:
            return 200, message([{"type": "text", "text": "ok"}], model=asked.model, number=0, usage={})
        steps, number, searched = found
        step: Step = steps[number] if number < len(steps) else {"text": "(the script is over)"}
        if step.get("gate"):
            self.gate.wait()
        if "status" in step and self._try(steps, number) <= step.get("times", 10**9):
            kind = ERRORS.get(step["status"], "api_error")
            words = step.get("message", f"scripted error {step['status']}")
            return step["status"], {"type": "error", "error": {"type": kind, "message": words}}
        blocks = say(step, number, tools=asked.tools, searched=number in searched)
        return 200, message(blocks, model=asked.model, number=number, usage=step.get("usage", {}))

    def _try(self, steps: Sequence[Step], number: int) -> int:
        with self._lock:
            self._tries[json.dumps(steps), number] += 1
            return self._tries[json.dumps(steps), number]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    model: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed in the middle of an answer is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is `ModelServer.asked`."""

    def do_HEAD(self) -> None:
        self._json(200, {})

    def do_GET(self) -> None:
        self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": self.path}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = urlsplit(self.path).path
        if path.endswith("/count_tokens"):
            self._json(200, {"input_tokens": 1000})
        elif path.endswith("/messages"):
            self._message(path, body)
        else:
            self.do_GET()

    def _message(self, path: str, body: Mapping[str, Any]) -> None:
        tools = tuple(tool["name"] for tool in body.get("tools") or [] if not tool.get("defer_loading"))
        found = find_script(body.get("messages", [])) if tools else None
        asked = Asked(path, body["model"], found and found[1], tools, self.headers.get("x-api-key"), body)
        status, answer = self.server.model.answer(asked)
        if status != 200 or not body.get("stream"):
            self._json(status, answer)
            return
        stream = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events(answer))
        self._send(200, "text/event-stream", stream.encode())

    def _json(self, status: int, value: object) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
