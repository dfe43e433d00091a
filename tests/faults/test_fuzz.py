"""Whatever is sent to a door, it answers in time, and never with a failure of our own.

A few hundred inputs here; FUZZ_EXAMPLES=1000 tries so many for each tool and door.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headcount import Headcount
from headcount.config import Home
from headcount.doors.mcp.app import LOG
from headcount.doors.mcp.arguments import Arguments
from headcount.doors.mcp.tools import BY_NAME, TOOLS, Who
from tests.support import daemons, leftovers, private
from tests.support.daemons import META, Bridge, daemon
from tests.support.fleets import fleet, new_task
from tests.support.junk import ANYTHING, AWKWARD, TEXTS, arguments
from tests.support.waiting import until
from tests.support.whole_app import PERSON_TOKEN, Reply, WholeApp, whole_app

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "0"))
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
OURS: Final = ("infrastructure", "registry_corrupt")
"""Codes of errors that are not the caller's."""


def tries(number: int) -> settings:
    """Return settings for so many inputs, the same ones in every run; for more, others each time."""
    return settings(
        max_examples=EXAMPLES or number,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
        suppress_health_check=list(HealthCheck),
    )


class Failures(logging.Handler):
    """Notes what a door logs as a failure of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.noted: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.noted.append(self.format(record))


@dataclass(frozen=True)
class Doors:
    app: WholeApp
    opened: Headcount
    known: dict[str, Sequence[object]]
    tokens: dict[Who, str]
    failures: Failures

    def check(self, reply: Reply) -> None:
        """An answer is one of the caller's errors or a result, and tells nothing of our insides."""
        assert reply.status < 500, reply
        assert b"Traceback" not in reply.body, reply
        noted = [each[:4_000] for each in self.failures.noted]
        self.failures.noted.clear()
        assert noted == [], "\n".join(noted)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    place = tmp_path_factory.mktemp("project")
    root = private.place_for_a_test(Path(os.environ[private.MARK]))
    (root / "h").mkdir(mode=0o700)
    failures = Failures()
    with fleet(root / "h") as opened:
        task = new_task(opened, place)
        over = opened.deploy(
            task, role="over", harness="command", command=["sh", "-c", 'echo "a b"; echo "$0" >&2']
        )
        opened.wait_for_agents([over.agent_id], timeout=30)
        live = opened.deploy(
            new_task(opened, place),
            role="live",
            harness="command",
            command=["sh", "-c", 'echo "$HEADCOUNT_TOKEN"; exec sleep 600'],
        )

        def token() -> str:
            return opened.get_agent_output(live.agent_id).text.strip()

        until(token, what="its token")
        known: dict[str, Sequence[object]] = {
            "task_id": [task],
            "agent_id": [over.agent_id],
            "agent_ids": [[over.agent_id], [over.agent_id] * 3],
            "parent": [over.agent_id],
            "approval_id": [f"{over.agent_id}.1.1"],
            "harness": ["command", "script", "claude", "acp"],
            "command": [["/bin/true"], ["true", "\0"], []],
            "project": [str(place), "/", "relative"],
            "cwd": [str(place), "/"],
            "timeout": [0, 0.01],
            "grace": [0],
            "role": ["builder"],
            "agent_type": ["builder"],
        }
        tokens = {Who.PERSON: PERSON_TOKEN, Who.AGENT: token()}
        full = Headcount(root / "h", views=False, autostart=False, machine_max_live=0, min_memory_mb=1)
        LOG.addHandler(failures)
        with full, whole_app(full) as app:  # nothing is deployed in it
            yield Doors(app, opened, known, tokens, failures)
        LOG.removeHandler(failures)
        assert opened.get_agent(live.agent_id).state == "running"
        assert opened.registry_health_check().strays == ()
    assert leftovers.await_none(root) == []
    private.remove(root)


CALLS: Final = [(tool.name, who) for tool in TOOLS for who in sorted(tool.who)]
PROBES: Final = {"list_harnesses"}
"""They start programs, whatever the arguments: asked less often."""


@pytest.mark.parametrize(("name", "who"), CALLS)
def test_every_tool_answers_whatever_its_arguments_are(name: str, who: Who, doors: Doors) -> None:
    schema = Arguments(BY_NAME[name]).schema

    @tries(3 if name in PROBES else 12)
    @given(sent=arguments(schema, doors.known))
    def fuzz(sent: dict[str, Any]) -> None:
        reply = doors.app.call(name, sent, token=doors.tokens[who])
        doors.check(reply)
        if reply.status == 200 and "result" in reply.message:
            said = reply.message["result"].get("structuredContent") or {}
            assert said.get("error", {}).get("code") not in OURS, said

    fuzz()


IDS: Final = st.one_of(st.integers(), TEXTS, st.none(), st.floats(allow_nan=False), ANYTHING)
METHODS: Final = st.one_of(
    st.sampled_from(
        [
            "initialize",
            "ping",
            "tools/list",
            "tools/call",
            "prompts/list",
            "prompts/get",
            "resources/list",
            "resources/read",
            "resources/templates/list",
            "resources/subscribe",
            "completion/complete",
            "logging/setLevel",
            "server/discover",
            "notifications/initialized",
            "notifications/cancelled",
        ]
    ),
    TEXTS,
)
PARAMS: Final = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {"_meta": st.one_of(st.just(META), ANYTHING)},
        optional={
            "name": st.one_of(st.sampled_from(sorted(BY_NAME)), TEXTS, ANYTHING),
            "uri": st.one_of(st.sampled_from(["tasks://list", "task://x/status", "agent://x/output"]), TEXTS),
            "arguments": ANYTHING,
            "cursor": ANYTHING,
            "protocolVersion": ANYTHING,
            "capabilities": ANYTHING,
            "clientInfo": ANYTHING,
        },
    ),
)
MESSAGES: Final = st.one_of(
    st.fixed_dictionaries(
        {"jsonrpc": st.one_of(st.just("2.0"), ANYTHING), "method": METHODS},
        optional={"id": IDS, "params": PARAMS, "result": ANYTHING, "error": ANYTHING},
    ),
    ANYTHING,
    st.lists(st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": IDS, "method": METHODS}), max_size=3),
)
BODIES: Final = st.one_of(
    MESSAGES.map(lambda message: json.dumps(message).encode()),
    MESSAGES.map(lambda message: json.dumps(message).encode()[:-1]),
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"9" * 100_000 + b"}}",
            b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
            b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping\xff"}',
            b"\xef\xbb\xbf{}",
            b" " * 5_000_000,
        ]
    ),
)
HEADERS: Final = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "accept",
            "mcp-protocol-version",
            "mcp-method",
            "mcp-name",
            "mcp-session-id",
            "last-event-id",
            "x-headcount-caller",
            "x-headcount-key",
            "content-length",
            "content-encoding",
            "transfer-encoding",
            "origin",
            "host",
            "authorization",
        ]
    ),
    st.one_of(st.sampled_from(AWKWARD[:20]), st.text(max_size=30), st.just("application/json")),
    max_size=4,
)


def test_the_http_door_answers_whatever_it_is_sent(doors: Doors) -> None:
    right = {"content-type": "application/json", "accept": "application/json, text/event-stream"}

    @tries(150)
    @given(
        method=st.sampled_from(["POST", "POST", "POST", "GET", "DELETE", "OPTIONS", "PUT", "HEAD", "X"]),
        path=st.one_of(
            st.sampled_from(["/mcp", "/mcp", "/mcp", "/health", "/"]), TEXTS.map(lambda t: f"/{t[:50]}")
        ),
        body=BODIES,
        headers=HEADERS,
        by_socket=st.booleans(),
    )
    def fuzz(method: str, path: str, body: bytes, headers: dict[str, str], by_socket: bool) -> None:
        if method == "GET" and path == "/mcp":
            headers = {**headers, "accept": "application/json"}  # else it is a stream that does not end
        sent = {**right, "authorization": f"Bearer {PERSON_TOKEN}", **headers}
        doors.check(doors.app.ask(method, path, body, headers=sent, by_socket=by_socket))

    fuzz()


RAW: Final = st.one_of(
    st.binary(max_size=400),
    st.builds(
        lambda line, headers, body: line + b"\r\n" + b"".join(headers) + b"\r\n" + body,
        st.sampled_from(
            [
                b"POST /mcp HTTP/1.1",
                b"GET /health HTTP/1.1",
                b"POST /mcp HTTP/9.9",
                b"PRI * HTTP/2.0",
                b"GET http://evil.example/ HTTP/1.1",
                b"CONNECT x:1 HTTP/1.1",
                b"GET /\xff\x00 HTTP/1.1",
                b"G\x16\x03\x01 / HTTP/1.1",
            ]
        ),
        st.lists(
            st.sampled_from(
                [
                    b"Host: localhost\r\n",
                    b"Content-Length: 5\r\n",
                    b"Content-Length: 99999999999999999999\r\n",
                    b"Content-Length: -1\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Transfer-Encoding: identity, chunked\r\n",
                    b"Expect: 100-continue\r\n",
                    b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
                    b"X: " + b"y" * 70_000 + b"\r\n",
                    b" folded\r\n",
                    b"No colon\r\n",
                    b"Authorization: Bearer \xff\xfe\r\n",
                    b"X-Headcount-Caller: e30=\r\n",
                ]
            ),
            max_size=4,
        ),
        st.one_of(
            st.binary(max_size=50), st.just(b"FFFFFFFFFFFFFFFFF\r\n"), st.just(b"5\r\n{}\r\n0\r\n\r\n")
        ),
    ),
)


def test_raw_bytes_harm_neither_the_socket_nor_the_port(home: Path) -> None:
    with daemon(home) as process, Bridge(home) as bridge:
        port = daemons.facts(home)["port"]

        @tries(60)
        @given(raw=RAW, by_socket=st.booleans())
        def fuzz(raw: bytes, by_socket: bool) -> None:
            with socket.socket(socket.AF_UNIX if by_socket else socket.AF_INET) as line:
                line.settimeout(20)
                line.connect(str(Home(home).daemon_socket) if by_socket else ("127.0.0.1", port))
                with suppress(BrokenPipeError, ConnectionResetError):
                    line.sendall(raw)
                    line.shutdown(socket.SHUT_WR)
                    while said := line.recv(65_536):
                        assert b" 500 " not in said[:20], (raw, said)
                        assert b"Traceback" not in said

        fuzz()
        assert bridge.call("list_tasks")["tasks"] == []
        assert process.poll() is None
    log = Home(home).daemon_log.read_text()
    at = log.find("Traceback")
    assert at < 0, log[max(at - 500, 0) : at + 3_000].replace("\\n", "\n")


def test_whatever_comes_by_stdio_the_next_call_is_answered(home: Path) -> None:
    with daemon(home):
        bridge = subprocess.Popen(
            daemons.BRIDGE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=daemons.environment(home),
        )
        assert bridge.stdin is not None
        assert bridge.stdout is not None
        assert bridge.stderr is not None
        number = 0

        @tries(60)
        @given(raw=st.lists(BODIES.filter(lambda body: len(body) < 1_000_000), min_size=1, max_size=3))
        def fuzz(raw: list[bytes]) -> None:
            nonlocal number
            number += 1
            assert bridge.stdin is not None
            assert bridge.stdout is not None
            mine = {"jsonrpc": "2.0", "id": f"mine-{number}", "method": "ping"}
            bridge.stdin.write(b"\n".join([*raw, json.dumps(mine).encode(), b""]))
            bridge.stdin.flush()
            for line in bridge.stdout:
                answer = json.loads(line)
                if answer.get("id") == mine["id"]:
                    return
            raise AssertionError(f"the bridge has ended after {raw!r}")

        try:
            fuzz()
        finally:
            bridge.stdin.close()
            with bridge.stdout, bridge.stderr:
                rest, errors = bridge.stdout.read(), bridge.stderr.read()
            bridge.wait(20)
        assert b"Traceback" not in errors + rest
        assert bridge.returncode == 0
