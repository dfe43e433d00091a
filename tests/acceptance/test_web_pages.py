"""No web page drives the daemon, and no other user: what a browser can send, and who may connect."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from headcount.config import Home
from headcount.daemon import serve
from tests.support import daemons, forks, leftovers, private
from tests.support.daemons import daemon
from tests.support.fleets import fleet
from tests.support.whole_app import PERSON_TOKEN, WholeApp, whole_app

OURS: Final = "127.0.0.1:4000"
EVIL: Final = "http://evil.example"
TOOL_CALL: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_task",'
    b'"arguments":{"description":"owned","project":"/"}}}'
)
JSON: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
MINE: Final = {"authorization": f"Bearer {PERSON_TOKEN}"}

PAGES: Final[Mapping[str, tuple[str, Mapping[str, str], int]]] = {
    "a name of its own that points at us": (
        "POST",
        {"host": "evil.example:4000", "origin": f"{EVIL}:4000"},
        421,
    ),
    "the same, reading": ("GET", {"host": "evil.example:4000", "sec-fetch-site": "same-origin"}, 421),
    "another site's fetch": ("POST", {"host": OURS, "origin": EVIL}, 403),
    "a page by TLS": ("POST", {"host": OURS, "origin": f"https://{OURS}"}, 403),
    "a page of another local port": ("POST", {"host": OURS, "origin": "http://127.0.0.1:3000"}, 403),
    "a page under our other name": ("POST", {"host": OURS, "origin": "http://localhost:4000"}, 403),
    "a sandboxed frame or a file": ("POST", {"host": OURS, "origin": "null"}, 403),
    "an origin that says nothing": ("POST", {"host": OURS, "origin": ""}, 403),
    "a form": (
        "POST",
        {"host": OURS, "origin": EVIL, "content-type": "application/x-www-form-urlencoded"},
        403,
    ),
    "a form that is text": ("POST", {"host": OURS, "origin": EVIL, "content-type": "text/plain"}, 403),
    "a form with files": ("POST", {"host": OURS, "origin": EVIL, "content-type": "multipart/form-data"}, 403),
    "a picture": ("GET", {"host": OURS, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
    "a link": ("GET", {"host": OURS, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    "a page of another port here": ("GET", {"host": OURS, "sec-fetch-site": "same-site"}, 403),
    "a preflight": (
        "OPTIONS",
        {
            "host": OURS,
            "origin": EVIL,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
            "access-control-request-private-network": "true",
        },
        403,
    ),
    "a WebSocket": (
        "GET",
        {"host": OURS, "origin": EVIL, "connection": "upgrade", "upgrade": "websocket"},
        403,
    ),
    "an event stream": ("GET", {"host": OURS, "origin": EVIL, "accept": "text/event-stream"}, 403),
}
"""What pages can make a browser send, and how it is refused."""

FOREIGN_NAMES: Final = (
    "",
    "evil.example",
    "127.0.0.1.evil.example:4000",
    "localhost.evil.example",
    "localhost:4000@evil.example",
    "evil.example:4000#localhost",
    "localhost:",
    "localhost:4000:4000",
    "localhost:port",
    "127.0.0.1 evil.example",
    "127.0.0.2",
    "0.0.0.0:4000",
    "2130706433:4000",
    "[::1]evil.example",
    "[::ffff:127.0.0.1]:4000",
    "localhost\t:4000",
    "127.0.0.1:４０００",
)
OUR_NAMES: Final = ("127.0.0.1", "127.0.0.1:4000", "localhost", "LocalHost:80", "[::1]:4000")


@pytest.fixture(scope="module")
def app() -> Iterator[WholeApp]:
    root = private.place_for_a_test(Path(os.environ[private.MARK]))
    (root / "h").mkdir(mode=0o700)
    with fleet(root / "h") as opened, whole_app(opened) as made:
        yield made
        assert opened.list_tasks().tasks == ()  # whatever was sent
    assert leftovers.await_none(root) == []
    private.remove(root)


@pytest.mark.parametrize("path", ["/mcp", "/health", "/metrics", "/", "/mcp/", "//mcp", "/no/such/page"])
@pytest.mark.parametrize("token", [True, False], ids=["with the token", "without"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_refused_everywhere_even_if_it_had_the_token(
    page: str, token: bool, path: str, app: WholeApp
) -> None:
    method, headers, expected = PAGES[page]
    reply = app.ask(method, path, TOOL_CALL, headers={**JSON, **headers, **(MINE if token else {})})
    assert reply.status == expected
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert PERSON_TOKEN.encode() not in reply.body


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_name_that_is_not_ours_is_refused(name: str, app: WholeApp) -> None:
    assert app.ask("GET", "/health", headers={**MINE, "host": name}).status == 421


@pytest.mark.parametrize("name", OUR_NAMES)
def test_under_our_own_names_we_answer_who_has_a_token(name: str, app: WholeApp) -> None:
    assert app.ask("GET", "/health", headers={"host": name}).status == 401
    assert app.ask("GET", "/health", headers={**MINE, "host": name}).status == 200
    own = {**MINE, "host": name, "origin": f"http://{name}", "sec-fetch-site": "same-origin"}
    assert app.ask("GET", "/health", headers=own).status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"]
)
def test_what_a_form_can_send_is_no_call_wherever_it_comes_from(kind: str, app: WholeApp) -> None:
    headers = {**JSON, **MINE, "host": OURS, "content-type": kind}
    assert app.ask("POST", "/mcp", TOOL_CALL, headers=headers).status == 400
    assert (
        app.ask("POST", "/mcp", TOOL_CALL, headers={**headers, "host": "localhost"}, by_socket=True).status
        == 400
    )


def test_on_the_wire_two_names_or_none_are_refused(home: Path) -> None:
    with daemon(home):
        port, token = daemons.facts(home)["port"], daemons.token(home)
        for hosts in ("", f"Host: {OURS}\r\nHost: evil.example\r\n", "Host: evil.example\r\n"):
            head = (
                f"GET /health HTTP/1.1\r\n{hosts}Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", port), 10) as line:
                line.sendall(head.encode())
                said = line.makefile("rb").read()
            assert said.split(b" ")[1] in (b"400", b"421"), said
        with pytest.raises(OSError):  # whichever the kernel says
            socket.create_connection((_address_of_this_machine(), port), 2)


def _address_of_this_machine() -> str:
    """Return an address of this machine that others can reach, or one that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        try:
            line.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.2"
        found: str = line.getsockname()[0]
    return found if not found.startswith("127.") else "127.0.0.2"


# ---------------------------------------------------------------- other users

NOBODY: Final = 65_534
HEALTH: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.usefixtures("require_root")
def test_another_user_is_hung_up_on_even_where_the_socket_was_opened_to_all(home: Path) -> None:
    def ask_as(user: int) -> Any:
        os.chdir(home)  # its parents are not open to others
        os.setgid(user)
        os.setuid(user)
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect("daemon.sock")
            try:
                line.sendall(HEALTH)
                return line.makefile("rb").read()
            except (ConnectionResetError, BrokenPipeError):  # hung up on, sooner or later
                return b""

    with daemon(home):
        with pytest.raises(PermissionError):
            raise forks.together(1, lambda _: ask_as(NOBODY))[0].error
        Home(home).daemon_socket.chmod(0o666)
        home.chmod(0o711)
        assert forks.together(1, lambda _: ask_as(NOBODY)) == [b""]
        (ours,) = forks.together(1, lambda _: ask_as(0))
        assert ours.startswith(b"HTTP/1.1 200")
        assert b'"pid"' in ours


def test_who_is_at_the_other_end_of_a_socket_is_asked_of_the_kernel() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        assert serve._is_foreign(here) is False
