"""The daemon's HTTP door: one ASGI app for the Unix socket and for one port of 127.0.0.1.

On the socket, which only the user can reach, a request without a token is the person's. On the port,
which anybody on the machine can reach, everything needs a token: the person's or an agent's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import pwd
import re
from collections.abc import Callable
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headcount import __version__
from headcount.api import Headcount
from headcount.domain.errors import HeadcountError, InvalidInput, NotAllowed
from headcount.domain.model import Caller
from headcount.doors.mcp.asked import Asked
from headcount.doors.mcp.crew import Crew
from headcount.services import given, rights

CALLER_HEADER: Final = "x-headcount-caller"
KEY_HEADER: Final = "x-headcount-key"
EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
CALLER_MAX: Final = 200_000
"""Bytes; an environment may hold 128 KiB in one variable."""


class Identity:
    """Says who sent a request. Nothing that a caller sends of its environment is kept or logged."""

    def __init__(self, fleet: Headcount, person_token: str) -> None:
        self._fleet: Final = fleet
        self._person_token: Final = person_token

    def is_person(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._person_token.encode())

    def asks_as_person(self, request: Request) -> bool:
        token = bearer(request.headers)
        return token is None or self.is_person(token)  # without one it came through the socket

    def asked(self, request: Any) -> Asked:
        """Return the request as the doors see it. Blocks: it reads the registry for an agent's token.

        Raises:
            NotAllowed: the token is nobody's.
            InvalidInput: the caller header cannot be read, or the key is too long.
        """
        headers = request.headers if isinstance(request, Request) else Headers()
        told = _told(headers.get(CALLER_HEADER))
        token = bearer(headers)
        who = (
            Caller()
            if token is None or self.is_person(token)
            else rights.identify(self._fleet.context, token)
        )
        caller = Caller(who.agent_id, who.run, cwd=told.cwd, env=told.env, dropped_env=told.dropped_env)
        key = given.maybe_text(KEY_HEADER, headers.get(KEY_HEADER), most=given.LABEL_MAX)
        return Asked(self._fleet.acting_as(caller, call=key or None))


def bearer(headers: Headers) -> str | None:
    """Return the token of a request, if it has one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _told(header: str | None) -> Caller:
    """Return the caller's directory and variables; without the header, those of a fresh login."""
    if header is None:
        user = pwd.getpwuid(os.getuid())
        path = f"{user.pw_dir}/.local/bin:/usr/local/bin:/usr/bin:/bin"
        return Caller(
            cwd=user.pw_dir, env={"PATH": path, "HOME": user.pw_dir, "USER": user.pw_name, "LANG": "C.UTF-8"}
        )
    try:
        if len(header) > CALLER_MAX:
            raise ValueError("too long")
        told = json.loads(base64.b64decode(header, validate=True))
        env = {str(name): str(value) for name, value in dict(told["env"]).items()}
        cwd = str(told["cwd"])
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise InvalidInput(
            f"the header {CALLER_HEADER} cannot be read", hint="leave it out, or use 'headcount mcp'"
        ) from error
    if not os.path.isabs(cwd) or "\0" in cwd or any("\0" in each for pair in env.items() for each in pair):
        raise InvalidInput(f"the header {CALLER_HEADER} holds a path or variable that cannot be")
    return Caller(cwd=cwd, env=env, dropped_env=tuple(map(str, told.get("dropped", ()))))


LOCAL_NAME: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)


def page_refusal(headers: Headers) -> tuple[int, str] | None:
    """Return the status and the reason why a web page, which a browser sends to us, is refused; None: it is
    none. There is no page of ours, so nothing is answered that lets a browser read an answer either."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not LOCAL_NAME.fullmatch(hosts[0]):  # a page may point a name of its own at us
        return 421, "this is no name of ours: call us as 127.0.0.1 or localhost"
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return 403, "a web page may not call us"
    if any(site.lower() not in ("none", "same-origin") for site in headers.getlist("sec-fetch-site")):
        return 403, "a web page may not call us"
    return None


class TokenOnThePort:
    """Turns away what comes to the port from a web page, or without a token that is somebody's."""

    def __init__(self, app: ASGIApp, identity: Identity, crew: Crew) -> None:
        self._app: Final = app
        self._identity: Final = identity
        self._crew: Final = crew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or by_socket(scope):
            await self._app(scope, receive, send)
            return
        if page := page_refusal(Headers(scope=scope)):
            await JSONResponse({"error": NotAllowed(page[1]).facts()}, page[0])(scope, receive, send)
            return
        try:
            await self._crew.do(lambda: self._known(Request(scope)))
        except HeadcountError as error:
            refused = JSONResponse({"error": error.facts()}, 401, {"WWW-Authenticate": "Bearer"})
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, request: Request) -> None:
        if bearer(request.headers) is None:
            raise NotAllowed(
                "a token is needed here",
                hint="send 'Authorization: Bearer TOKEN', with the TOKEN of the file 'token'",
            )
        self._identity.asked(request)


def by_socket(scope: Scope) -> bool:
    """Say whether a request came through the Unix socket, which has a path and no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


def health(count: Callable[[], dict[str, Any]]) -> Callable[[Request], Any]:
    """Return the endpoint that says that the daemon lives, without asking the registry."""

    async def answer(_: Request) -> JSONResponse:
        return JSONResponse({"name": "headcount", "version": __version__, "pid": os.getpid(), **count()})

    return answer


def figures(expose: Callable[[], bytes], identity: Identity, crew: Crew) -> Callable[[Request], Any]:
    """Return the endpoint of Prometheus. It is the person's: an agent learns nothing of others by it."""

    def told(request: Request) -> bytes:
        if not identity.asks_as_person(request):
            raise NotAllowed("the figures are the person's", hint="send the TOKEN of the file 'token'")
        return expose()

    async def answer(request: Request) -> Response:
        try:
            text = await crew.do(lambda: told(request))
        except HeadcountError as error:
            status = 403 if isinstance(error, NotAllowed) else 503
            return JSONResponse({"error": error.facts()}, status)
        return Response(text, media_type=EXPOSITION)

    return answer
