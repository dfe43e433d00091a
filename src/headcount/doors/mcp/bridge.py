"""`headcount mcp`: stdio on one side, the daemon's Unix socket on the other.

One runs for every client and every agent, so it is stdlib-only and small. It answers what never changes
(initialize, discover, the lists) from a catalogue at once, starts the daemon if there is none, and rides
over its restarts: a call under which the daemon died is sent again with the same key.
"""

import errno
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from headcount import client
from headcount.client import META_VERSION, NoAnswer, Reply, caller_header, post
from headcount.daemon import start
from headcount.domain.errors import Infrastructure
from headcount.doors.mcp import place

Json = dict[str, Any]

FIRST_WAIT = 0.01
LONGEST_WAIT = 0.1
LOST_MOST = 5
"""Times that one call may take a daemon with it; then it is the call."""
LAST_WORDS = 5.0
"""Seconds in which calls under way are still answered after the end of stdin."""
LINE_MAX = 16_000_000
NAME_AT = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
PARSE_ERROR, INVALID_REQUEST, INTERNAL, UNSUPPORTED_VERSION = -32700, -32600, -32603, -32022


class Call:
    """One request of the client, from its arrival to its answer."""

    def __init__(self, message: Json, request: bytes, *, patience: float) -> None:
        now = time.monotonic()
        self.id = message["id"]
        self.method = str(message["method"])
        self.name = str((message.get("params") or {}).get("name", ""))
        self.modern = _version(message) is not None
        self.request = request
        self.give_up = now + patience
        self.due = now
        self.pause = FIRST_WAIT
        self.lost = 0
        self.line: socket.socket | None = None
        self.unsent = b""
        self.reply = Reply()

    def hang_up(self) -> None:
        if self.line is not None:
            self.line.close()
        self.line, self.unsent, self.reply = None, b"", Reply()


class Bridge:
    """The loop. `environ` is the caller's; it goes to the daemon by allow-list, with each tool call."""

    def __init__(self, where: place.Place, environ: Mapping[str, str]) -> None:
        self._where = where
        self._environ = environ
        self._inside = "HEADCOUNT_AGENT_ID" in environ
        self._path = (environ.get("HEADCOUNT_SOCKET") if self._inside else None) or where.daemon_socket
        self._token = environ.get("HEADCOUNT_TOKEN") or ("missing" if self._inside else None)
        self._catalogue = _Catalogue("agent" if self._token else "person")
        self._version = self._catalogue.versions[-1]
        no = ("0", "false", "no", "off")
        self._starts = self._setting("autostart", "1").lower() not in no
        self._patience = _seconds(self._setting("start_timeout", ""), client.DAEMON_WAIT)
        self._calls: list[Call] = []
        self._in = bytearray()
        self._out = bytearray()
        self._open = True
        self._until: float | None = None
        self._spawned = 0.0

    # the loop

    def run(self) -> int:
        """Serve until stdin ends or nobody reads stdout."""
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        try:
            while self._wanted():
                self._turn()
        except BrokenPipeError:
            return 0
        return 0

    def _wanted(self) -> bool:
        if self._open:
            return True
        return bool(self._calls or self._out) and time.monotonic() < (self._until or 0.0)

    def _turn(self) -> None:
        now = time.monotonic()
        for call in [each for each in self._calls if each.line is None and each.due <= now]:
            self._dial(call, now)
        ready = {fd for fd, _ in self._poll(now)}
        if 0 in ready:
            self._read()
        if self._out:
            self._write()
        for call in [each for each in self._calls if each.line is not None and each.line.fileno() in ready]:
            self._talk(call)

    def _poll(self, now: float) -> list[tuple[int, int]]:
        poll = select.poll()
        if self._open:
            poll.register(0, select.POLLIN)
        if self._out:
            poll.register(1, select.POLLOUT)
        for call in self._calls:
            if call.line is not None:
                poll.register(call.line, select.POLLOUT | select.POLLIN if call.unsent else select.POLLIN)
        return poll.poll(self._idle(now))

    def _idle(self, now: float) -> float | None:
        """Return the milliseconds until something is due; None: until something happens."""
        dues = [call.due for call in self._calls if call.line is None]
        dues += [self._until] if self._until is not None else []
        return max(0.0, (min(dues) - now) * 1000) + 1 if dues else None

    def _read(self) -> None:
        try:
            data = os.read(0, 65_536)
        except BlockingIOError:
            return
        if not data:
            self._open, self._until = False, time.monotonic() + LAST_WORDS
        self._in += data
        while (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            if line.strip():
                self._take(line)
        if len(self._in) > LINE_MAX:
            self._in.clear()
            self._fail(None, PARSE_ERROR, f"a message may have {LINE_MAX} bytes")

    def _write(self) -> None:
        try:
            del self._out[: os.write(1, self._out)]
        except BlockingIOError:
            return

    def _say(self, message: Json) -> None:
        self._out += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._write()

    def _fail(self, number: Any, code: int, message: str, data: Any = None) -> None:
        error = {"code": code, "message": message, **({"data": data} if data is not None else {})}
        self._say({"jsonrpc": "2.0", "id": number, "error": error})

    # messages of the client

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return self._fail(None, PARSE_ERROR, "this is not JSON")
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return self._fail(None, INVALID_REQUEST, "this is no JSON-RPC 2.0 message; batches are not taken")
        if not isinstance(message.get("method"), str):
            return None  # an answer: we ask the client nothing
        if "id" not in message:
            return self._note(message)
        if not isinstance(message["id"], str | int) or not isinstance(message.get("params", {}), dict):
            return self._fail(None, INVALID_REQUEST, "the id is to be a string or a number, params an object")
        return self._ask(message)

    def _note(self, message: Json) -> None:
        """Take a notification; one that cancels ends the call's connection, which ends the call there."""
        if message["method"] != "notifications/cancelled":
            return
        number = (message.get("params") or {}).get("requestId")
        for call in [each for each in self._calls if each.id == number]:
            call.hang_up()
            self._calls.remove(call)

    def _ask(self, message: Json) -> None:
        version = _version(message)
        if version is not None and version != client.PROTOCOL:
            data = {"supported": [client.PROTOCOL], "requested": version}
            return self._fail(message["id"], UNSUPPORTED_VERSION, "Unsupported protocol version", data)
        known = self._known(message, modern=version is not None)
        if known is not None:
            return self._say({"jsonrpc": "2.0", "id": message["id"], "result": known})
        request = self._request(message, version)
        if len(request) > client.BODY_MAX:
            return self._refuse(
                message["id"], str(message["method"]), _too_large(len(request)), modern=bool(version)
            )
        self._calls.append(Call(message, request, patience=self._patience))
        return None

    def _known(self, message: Json, *, modern: bool) -> Json | None:
        """Return the answer that never changes, if this is such a request."""
        method = message["method"]
        if method == "initialize" and not modern:
            wanted = (message.get("params") or {}).get("protocolVersion")
            self._version = wanted if wanted in self._catalogue.versions else self._catalogue.versions[-1]
            return {**self._catalogue.answers["legacy"]["initialize"], "protocolVersion": self._version}
        if method == "ping" and not modern:
            return {}
        found: Json | None = self._catalogue.answers["modern" if modern else "legacy"].get(method)
        return found

    def _request(self, message: Json, version: str | None) -> bytes:
        """Return the HTTP request for a message; its key stays the same however often it is sent."""
        params, method = message.get("params") or {}, message["method"]
        head = {"MCP-Protocol-Version": version or self._version}
        if version is not None:
            head["Mcp-Method"] = method
            if method in NAME_AT:
                head["Mcp-Name"] = _header_value(str(params.get(NAME_AT[method], "")))
        if self._token:
            head["Authorization"] = f"Bearer {self._token}"
        if method == "tools/call":
            head["X-Headcount-Key"] = os.urandom(16).hex()
            head["X-Headcount-Caller"] = self._caller(params.get("arguments"))
        return post(json.dumps(message, separators=(",", ":")).encode(), head)

    def _caller(self, arguments: Any) -> str:
        named = arguments.get("env") if isinstance(arguments, dict) else None
        names = {*self._catalogue.env_names, *self._configured()}
        names |= {each for each in named if isinstance(each, str)} if isinstance(named, list) else set()
        starts, never = self._catalogue.env_prefixes, self._catalogue.env_never
        kept = {
            name: value
            for name, value in self._environ.items()
            if (name in names or name.startswith(starts)) and not name.startswith(never)
        }
        return caller_header(_cwd(), kept, sorted(self._environ.keys() - kept.keys()))

    def _configured(self) -> list[str]:
        """Return the variables that the user's settings let every agent have."""
        named = self._environ.get("HEADCOUNT_ENV", "").replace(",", " ").split()
        return [*named, *map(str, self._settings().get("env", ()))]  # the daemon's settings choose among them

    def _setting(self, name: str, default: str) -> str:
        return self._environ.get(f"HEADCOUNT_{name.upper()}") or str(self._settings().get(name, default))

    def _settings(self) -> Json:
        """Return what the settings file says; the daemon complains of what is wrong there."""
        try:
            with open(os.path.join(self._where.root, "settings.toml"), "rb") as file:
                import tomllib  # only for those who have settings

                return tomllib.load(file)
        except (OSError, ValueError):
            return {}

    # the daemon

    def _dial(self, call: Call, now: float) -> None:
        """Connect, or try again a little later until the patience of the call is over."""
        line = socket.socket(socket.AF_UNIX)
        line.setblocking(False)
        try:
            client.connect(line, self._path)
        except OSError as error:
            line.close()
            self._not_there(call, error, now)
            return
        call.line, call.unsent = line, call.request

    def _not_there(self, call: Call, error: OSError, now: float) -> None:
        if now >= call.give_up:
            return self._unreachable(call, error)
        absent = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
        if absent and self._starts and now - self._spawned > 1.0:
            self._spawned = now
            self._start()
        call.due, call.pause = now + call.pause, min(call.pause * 1.5, LONGEST_WAIT)
        return None

    def _start(self) -> None:
        try:
            self._where.make()
            ensure = start.ensure_from_inside if self._inside else start.ensure
            ensure(self._where, self._environ)
        except (OSError, Infrastructure) as error:
            print(f"headcount mcp: the daemon cannot be started: {error}", file=sys.stderr)

    def _talk(self, call: Call) -> None:
        """Move bytes between a call and the daemon."""
        assert call.line is not None
        try:
            if call.unsent:
                call.unsent = call.unsent[call.line.send(call.unsent) :]
            data = call.line.recv(65_536)
            if not data:
                call.reply.end()
            self._relay(call, call.reply.feed(data) if data else iter(()))
        except BlockingIOError:
            return
        except (NoAnswer, ConnectionError):
            self._lost(call)
        except ValueError as error:
            self._finish(call)
            self._fail(call.id, INTERNAL, f"the daemon's answer cannot be read: {error}")

    def _relay(self, call: Call, messages: Iterator[Json]) -> None:
        answered = False
        for message in messages:
            answered = answered or "method" not in message
            self._say(message if "method" in message else {**message, "id": call.id})
        if answered or call.reply.complete:
            self._finish(call)
            if not answered:
                self._fail(call.id, INTERNAL, f"the daemon answered with HTTP status {call.reply.status}")

    def _finish(self, call: Call) -> None:
        if call.line is not None:
            call.line.close()
            call.line = None
        self._calls.remove(call)

    def _lost(self, call: Call) -> None:
        """The daemon ended during the call: send it again, if that does it once at most."""
        now = time.monotonic()
        call.hang_up()
        call.lost += 1
        call.due, call.give_up = now + FIRST_WAIT, now + self._patience
        repeats = call.method != "tools/call" or call.name in self._catalogue.repeats
        if call.lost > LOST_MOST or not repeats:
            self._unreachable(call, None)

    def _unreachable(self, call: Call, error: OSError | None) -> None:
        """Say that there is no daemon, and whether the call may have run."""
        self._calls.remove(call)
        facts = _may_have_run() if call.lost else self._did_not_run(error)
        self._refuse(call.id, call.method, facts, modern=call.modern)

    def _refuse(self, number: Any, method: str, facts: dict[str, str], *, modern: bool) -> None:
        """Answer as the daemon would, in its stead."""
        if method != "tools/call":
            return self._fail(number, INTERNAL, facts["message"], facts)
        text = f"{facts['code']}: {facts['message']}\nNext: {facts['hint']}"
        result = {
            "content": [{"type": "text", "text": text}],
            "structuredContent": {"error": facts},
            "isError": True,
        }
        whole = {"resultType": "complete", **result} if modern else result
        return self._say({"jsonrpc": "2.0", "id": number, "result": whole})

    def _did_not_run(self, error: OSError | None) -> dict[str, str]:
        why = error.strerror if error else "it is gone"
        return {
            "code": "daemon_unreachable",
            "message": f"no daemon answers at {self._path} ({why}); the call was not carried out",
            "hint": "run 'headcount up' outside of the agents" if self._inside else "see 'headcount doctor'",
        }


def _too_large(size: int) -> dict[str, str]:
    return {
        "code": "invalid_input",
        "message": f"the call has {size} bytes, the limit is {client.BODY_MAX}",
        "hint": "put the material into a file and name it",
    }


def _may_have_run() -> dict[str, str]:
    return {
        "code": "outcome_unknown",
        "message": "the daemon ended during the call, which may or may not have been carried out",
        "hint": "look before you repeat it: list_agents, get_task_status, get_findings, 'headcount events'",
    }


class _Catalogue:
    """What the daemon would answer, as it was when this version was built."""

    def __init__(self, who: str) -> None:
        path = os.path.join(os.path.dirname(__file__), "catalogue", f"{who}.json")
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        self.versions: list[str] = found["versions"]
        self.repeats = frozenset(found["repeats"])
        self.env_names = frozenset(found["env"]["names"])
        self.env_prefixes = tuple(found["env"]["prefixes"])
        self.env_never = tuple(found["env"]["never"])
        legacy = found["legacy"]
        modern = {name: {**legacy.get(name, {}), **extra} for name, extra in found["modern"].items()}
        self.answers: dict[str, Json] = {"legacy": legacy, "modern": modern}


def _seconds(given: str, default: float) -> float:
    try:
        return float(given)
    except ValueError:
        return default


def _version(message: Json) -> str | None:
    """Return the protocol version that a request of the stateless era names, else None."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta.get(META_VERSION) if isinstance(meta, dict) else None


def _header_value(value: str) -> str:
    """Return `value` as a routing header carries it: what is not plain ASCII goes in base64."""
    plain = value == value.strip() and value.isascii() and value.isprintable()
    if plain and not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    import binascii

    return f"=?base64?{binascii.b2a_base64(value.encode(), newline=False).decode()}?="


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def main(argv: list[str]) -> int:
    """Run the bridge until its client is gone; return the exit code."""
    if argv and (len(argv) != 2 or argv[0] != "--home"):
        print("usage: headcount mcp [--home DIR]", file=sys.stderr)
        return 2
    root = os.path.abspath(argv[1]) if argv else place.root(os.environ)
    try:
        return Bridge(place.Place(root, os.environ), dict(os.environ)).run()
    except KeyboardInterrupt:
        return 130
