"""The systemd user unit of a daemon. Pure: what it says is decided here, and nothing is done."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

WATCHDOG_S: Final = 90
"""Seconds of silence after which the daemon is restarted: its loop speaks every third of that."""

_UNIT: Final = """\
# Written by 'headcount service install', removed by 'headcount service remove'.
[Unit]
Description=Headcount, the supervisor of coding agents ({home})
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Environment={path}
WatchdogSec={watchdog}
Restart=on-failure
RestartSec=2
TimeoutStartSec=60
TimeoutStopSec=10
# The end of the daemon, or of one agent for want of memory, ends no agent.
KillMode=process
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def unit_name(home: str, *, is_default: bool) -> str:
    """Return the unit's file name: there is one daemon for each home."""
    if is_default:
        return "headcount.service"
    return f"headcount-{hashlib.sha256(home.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}.service"


def unit_text(command: Sequence[str], *, home: str, path: str) -> str:
    """Return the unit that keeps the daemon of a home alive, with the PATH that it gets."""
    return _UNIT.format(
        home=_specifiers(" ".join(home.split())),
        command=" ".join(_quoted(word).replace("$", "$$") for word in command),
        path=_quoted(f"PATH={path}"),
        watchdog=WATCHDOG_S,
    )


def _quoted(word: str) -> str:
    """Return a word in systemd's quotes; line breaks cannot end it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{_specifiers(escaped)}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")
