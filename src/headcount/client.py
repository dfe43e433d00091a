"""A small client of the daemon: HTTP/1.1 over its Unix socket, stdlib only.

The bridge is built on it, and so is what runs inside an agent's tree, where nothing may be started and
the daemon does it instead.
"""

import binascii
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from headcount.domain.errors import (
    HeadcountError,
    Infrastructure,
    InvalidInput,
    NotAllowed,
    NotFound,
    PlacementFailed,
    Refused,
    RegistryBusy,
    RegistryCorrupt,
    RegistryTooNew,
    WaitRanOut,
)

PROTOCOL = "2026-07-28"
META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
DAEMON_WAIT = 20.0
"""Seconds that a call waits for a daemon to be there: starting one takes about one."""
ALONE_WAIT = 1.0
"""The same where none runs and none can be started: the last one may be making room for the next."""
ANSWER_WAIT = 120.0
RETRY_PAUSE = 0.05
HEAD_MAX = 65_536
BODY_MAX = 4 * 1024 * 1024
"""Bytes of one request that the daemon takes."""


def connect(line: socket.socket, path: str) -> None:
    """Connect to the daemon. One of another user's, at a socket that was put in the place of ours, would get
    our token.

    Raises:
        OSError: nobody listens there, or another user does.
    """
    line.connect(path)
    if hasattr(socket, "SO_PEERCRED"):
        pid_uid_gid = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if int.from_bytes(pid_uid_gid[4:8], sys.byteorder) not in (os.getuid(), 0):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "it is another user's")


class NoAnswer(Exception):
    """The connection ended before the answer: the call may or may not have run."""


class Place(Protocol):
    @property
    def daemon_socket(self) -> str | os.PathLike[str]: ...


def _cwd() -> str:
    """Return where this process is; where that has been deleted, the root, which is in nobody's project."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def caller_header(cwd: str, env: Mapping[str, str], dropped: Iterable[str] = ()) -> str:
    """Return who calls from where, for the daemon to act in the caller's place."""
    told = {"cwd": cwd, "env": dict(env), "dropped": list(dropped)}
    return binascii.b2a_base64(json.dumps(told, separators=(",", ":")).encode(), newline=False).decode()


def post(body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return one POST to the MCP endpoint, for a connection of its own."""
    fixed = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"{name}: {value}" for name, value in {**fixed, **headers}.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header holds a line break")
    return ("POST /mcp HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Reply:
    """Takes the bytes of one response as they come and gives the JSON-RPC messages in it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self._raw = bytearray()
        self._body = bytearray()
        self._chunk_left: int | None = None

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take more bytes; yield the messages that are complete now.

        Raises:
            ValueError: this is no HTTP.
        """
        self._raw += data
        if not self.status and not self._read_head():
            return
        self._read_body()
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            yield from self._events()
        elif self.complete and self._body:
            found = json.loads(self._body)
            self._body.clear()
            if isinstance(found, dict):
                yield found

    def end(self) -> None:
        """Take note that the connection was closed.

        Raises:
            NoAnswer: it was closed too early.
        """
        if self.status and "content-length" not in self.headers and not self._chunked:
            self.complete = True
        if not self.complete:
            raise NoAnswer

    @property
    def _chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    def _read_head(self) -> bool:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            if len(self._raw) > HEAD_MAX:
                raise ValueError("the head of the answer does not end")
            return False
        first, *lines = bytes(self._raw[:end]).decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        del self._raw[: end + 4]
        return True

    def _read_body(self) -> None:
        if self._chunked:
            while self._read_chunk():
                pass
            return
        self._body += self._raw
        self._raw.clear()
        length = self.headers.get("content-length")
        self.complete = length is not None and len(self._body) >= int(length)

    def _read_chunk(self) -> bool:
        """Move one chunk, or what is there of it, to the body; False if there is nothing to move."""
        if self._chunk_left is None:
            end = self._raw.find(b"\r\n")
            if end < 0 or self.complete:
                return False
            self._chunk_left = int(bytes(self._raw[:end]).split(b";")[0], 16)
            del self._raw[: end + 2]
            self.complete = self._chunk_left == 0
        part = self._raw[: self._chunk_left]
        self._body += part
        del self._raw[: len(part)]
        self._chunk_left -= len(part)
        if self._chunk_left or len(self._raw) < 2:
            return False
        del self._raw[:2]
        self._chunk_left = None
        return not self.complete

    def _events(self) -> Iterator[dict[str, Any]]:
        """Yield the messages of the server-sent events that are complete."""
        while (cut := _event_end(self._body)) is not None:
            end, skip = cut
            lines = bytes(self._body[:end]).decode("utf-8", "replace").splitlines()
            del self._body[: end + skip]
            data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
            if data:
                found = json.loads(data)
                if isinstance(found, dict):
                    yield found


def _event_end(body: bytearray) -> tuple[int, int] | None:
    found = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := body.find(mark)) >= 0]
    return min(found) if found else None


class DaemonClient:
    """The daemon, for a program in an agent's tree."""

    def __init__(
        self, home: Place, environ: Mapping[str, str], wake: Callable[[], bool] = lambda: True
    ) -> None:
        """`wake` is asked while no daemon answers: it has one started, and says whether one will come."""
        self._wake = wake
        self._path = environ.get("HEADCOUNT_SOCKET") or os.fspath(home.daemon_socket)
        self._environ = environ

    def call(self, tool: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """Call a tool and return its structured answer. A call under which the daemon died is repeated
        with the same key, so that it is applied once.

        Raises:
            HeadcountError: the domain's own errors, as the daemon raised them.
            Infrastructure: no daemon came.
        """
        head, body = self._request(tool, arguments)
        began = time.monotonic()
        patience, asked = DAEMON_WAIT, 0.0
        while True:
            try:
                return _answer(_exchange(self._path, post(body, head)))
            except (NoAnswer, ConnectionError, FileNotFoundError) as error:
                problem = error
            now = time.monotonic()
            if now - asked >= 1.0:
                patience, asked = DAEMON_WAIT if self._wake() else ALONE_WAIT, now
            if now - began >= patience:
                raise _no_daemon(self._path, problem) from problem
            time.sleep(RETRY_PAUSE)

    def _request(self, tool: str, arguments: Mapping[str, object]) -> tuple[dict[str, str], bytes]:
        meta = {
            META_VERSION: PROTOCOL,
            META_CAPABILITIES: {},
            META_CLIENT: {"name": "headcount", "version": "1"},
        }
        params = {"name": tool, "arguments": dict(arguments), "_meta": meta}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        env = {name: value for name, value in self._environ.items() if not name.startswith("HEADCOUNT_")}
        head = {
            "MCP-Protocol-Version": PROTOCOL,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
            "X-Headcount-Caller": caller_header(_cwd(), env),
            "X-Headcount-Key": os.urandom(16).hex(),
        }
        head["Authorization"] = f"Bearer {self._environ.get('HEADCOUNT_TOKEN') or 'missing'}"
        return head, json.dumps(call).encode()


def _exchange(path: str, request: bytes) -> dict[str, Any]:
    """Send one request, and return the last message of its answer."""
    reply, last = Reply(), None
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_WAIT)
        connect(line, path)
        line.sendall(request)
        while not reply.complete:
            data = line.recv(65_536)
            if not data:
                reply.end()
                break
            for message in reply.feed(data):
                last = message
    if last is None:
        raise Infrastructure(
            f"the daemon answered with HTTP status {reply.status}", hint="see its log, daemon.log"
        )
    return last


def _answer(message: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the structured content of a tool's result, or raise the error that it is."""
    if "result" not in message:
        facts = message.get("error", {})
        raise Infrastructure(f"the daemon refused the request: {facts.get('message', facts)}")
    result = message["result"]
    found: dict[str, Any] = result.get("structuredContent") or {}
    if result.get("isError"):
        raise _error(found.get("error") or {"message": result["content"][0]["text"]})
    return found


_KINDS: Mapping[str, type[HeadcountError]] = {
    kind.code: kind
    for kind in (
        InvalidInput,
        NotFound,
        WaitRanOut,
        Infrastructure,
        RegistryCorrupt,
        RegistryTooNew,
        PlacementFailed,
    )
}


def _error(facts: Mapping[str, Any]) -> HeadcountError:
    """Return the error that the daemon raised."""
    code, message, hint = (str(facts.get(name) or "") for name in ("code", "message", "hint"))
    if code == NotAllowed(message).code:
        return NotAllowed(message, hint=hint)
    if code == RegistryBusy.code:
        return RegistryBusy(
            message, holder_pid=facts.get("holder_pid"), stopped=bool(facts.get("stopped")), hint=hint
        )
    if "limit" in facts:
        held = tuple(map(str, facts.get("holders") or ()))
        return Refused(
            message, code=code, limit=facts["limit"], value=facts.get("value"), holders=held, hint=hint
        )
    if code == "invalid_arguments":
        return InvalidInput(message, hint=hint, code=code)
    return _KINDS.get(code, Infrastructure)(message, hint=hint)


def _no_daemon(path: str, problem: Exception) -> Infrastructure:
    if isinstance(problem, NoAnswer | ConnectionResetError):
        return Infrastructure(
            "the daemon ended during the call, which may or may not have been carried out",
            hint="look before you repeat it: headcount ps, headcount events",
        )
    return Infrastructure(
        f"no daemon answers at {path}",
        hint="run 'headcount up' outside of the agents: it cannot be started from here",
    )
