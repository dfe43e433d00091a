"""What the daemon does while it lives: answer requests, and keep the count right."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import h11
import structlog
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware import Middleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from headcount.api import Headcount
from headcount.config import Home
from headcount.daemon import log
from headcount.daemon.lock import Held
from headcount.daemon.metrics import Metrics
from headcount.daemon.notify import Notifier
from headcount.daemon.progress import Progress
from headcount.daemon.watch import Watch
from headcount.doors.http.app import CALLER_MAX, Identity, TokenOnThePort, figures, health
from headcount.doors.mcp.app import Door, make_server
from headcount.doors.mcp.crew import Crew

GRACEFUL: Final = 1
"""Seconds for requests under way after SIGTERM. A client may hold a stream open for ever."""
KEEP_ALIVE: Final = 75
ENDING: Final = (signal.SIGTERM, signal.SIGINT)
SWITCH: Final = 0.0005
"""Seconds for which a thread that computes may keep one waiting that has word from the kernel. At Python's
own 5 ms, an end is noticed after ten system calls of 5 ms each while a request or a headcount is served."""


def run(
    home: Home,
    held: Held,
    listen: Callable[[], list[socket.socket]],
    person_token: str,
    manager: Notifier,
) -> None:
    """Serve until SIGTERM or SIGINT; agents are left as they are.

    Ends are noticed before anybody can connect: who finds the daemon finds the count kept.
    """
    sys.setswitchinterval(SWITCH)
    log.configure(home.daemon_log)
    fleet = Headcount(home.root, autostart=False)
    metrics = Metrics(fleet.context)
    fleet.context.registry.around = metrics.transaction
    watch = Watch(fleet.context, held, figures=metrics)
    crew = Crew()
    watch.begin()
    server = Server(config(fleet, crew, person_token, watch), manager, watch.progress)
    server.heed_signals()
    server.config.load()
    spare_what_is_loaded()
    sockets = listen()
    structlog.get_logger("headcount.daemon").info("daemon_started", pid=os.getpid(), home=str(home.root))
    try:
        asyncio.run(server.serve_until_told(sockets))
    finally:
        manager.stopping()
        structlog.get_logger("headcount.daemon").info("daemon_stopped", pid=os.getpid())
        watch.end()
        crew.dismiss()


def spare_what_is_loaded() -> None:
    """Keep the garbage collector from what stays for ever: to look through it stops all threads for 70 ms."""
    gc.collect()
    gc.freeze()
    gc.enable()


def config(fleet: Headcount, crew: Crew, person_token: str, watch: Watch) -> uvicorn.Config:
    """Return the whole application, and how it is served."""
    identity = Identity(fleet, person_token)
    mcp = make_server(Door(identity.asked, crew))
    mcp.custom_route("/health", ["GET"])(health(watch.counters))
    mcp.custom_route("/metrics", ["GET"])(figures(watch.exposition, identity, crew))
    app = mcp.streamable_http_app(stateless_http=True, transport_security=only_this_machine())
    app.user_middleware.append(Middleware(TokenOnThePort, identity=identity, crew=crew))
    return uvicorn.Config(
        app,
        http=PeerChecked,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACEFUL,
        h11_max_incomplete_event_size=2 * CALLER_MAX,
    )


def only_this_machine() -> TransportSecuritySettings:
    """Return the names under which we may be called: a web page that points its own at us has another."""
    hosts = ["127.0.0.1", "localhost", "[::1]"]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[*hosts, *(f"{host}:*" for host in hosts)],
        allowed_origins=[f"http://{host}{port}" for host in hosts for port in ("", ":*")],
    )


class PeerChecked(H11Protocol):
    """Takes no connection from another user, even if the socket's directory were opened to one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        if _is_foreign(transport.get_extra_info("socket")):
            transport.abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP. A request in the middle of which it comes gets no second answer: that
        would be an error of ours in the log, whenever anybody likes."""
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()


def _is_foreign(peer: Any) -> bool:
    if peer is None or peer.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return False
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid not in (os.getuid(), 0)


class Server(uvicorn.Server):
    """Ends on SIGTERM within about a second, without passing the signal on to itself afterwards.

    A service manager is told that we are alive by this loop, so that it hears nothing if that hangs, and only
    while the supervision comes round.
    """

    def __init__(self, config: uvicorn.Config, manager: Notifier, progress: Progress) -> None:
        super().__init__(config)
        self._manager: Final = manager
        self._progress: Final = progress
        self._begun: Final = asyncio.Event()

    def heed_signals(self) -> None:
        """Take note of a signal that comes before there is a loop. An exception instead could be lost: in the
        middle of the loop's making there is code that swallows any."""
        for each in ENDING:
            signal.signal(each, lambda *_: self._told())

    async def serve_until_told(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for each in ENDING:
            loop.add_signal_handler(each, self._told)
        alive = loop.create_task(self._say_alive())
        await self.serve(sockets)
        alive.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._manager.ready()
        self._begun.set()

    async def _say_alive(self) -> None:
        await self._begun.wait()
        while self._manager.watchdog is not None:
            stuck = self._progress.stuck()
            if stuck:
                structlog.get_logger("headcount.daemon").error("supervision_stuck", loops=stuck)
            else:
                self._manager.alive()
            await asyncio.sleep(self._manager.watchdog / 3)

    def _told(self) -> None:
        self.force_exit = self.should_exit  # the second time
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
