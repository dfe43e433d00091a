"""Word to the service manager that started us: ready, alive, stopping (the protocol of sd_notify(3)).

Without a manager nobody is told anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final


class Notifier:
    """The manager's socket, if it gave us one."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """`watchdog`: the seconds of silence after which the manager takes us for hung."""
        self._address: Final = address
        self.watchdog: Final = watchdog

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Return the notifier that the environment names, and take it out: no agent is to speak for us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = address[:1] in {"/", "@"} and pid in {"", str(os.getpid())}
        watchdog = int(microseconds) / 1e6 if ours and microseconds.isdecimal() else None
        return cls(address if address[:1] in {"/", "@"} else "", watchdog or None)

    def __bool__(self) -> bool:
        return bool(self._address)

    def ready(self) -> None:
        self._send(f"READY=1\nMAINPID={os.getpid()}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        """Send without waiting: a manager that does not listen must not hold us up."""
        if not self._address:
            return
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)
            line.sendto(text.encode(), name)
