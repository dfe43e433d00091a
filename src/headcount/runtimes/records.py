"""The records of a run directory, read. docs/run-directory.md has their form.

A reader takes every format up to its own: a key that it does not know is passed over, a key that an older
format lacks has the value that was true then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from headcount.domain.model import ExitRecord, Order, Process, RunKey, StartRecord, VoidRecord

FORMAT: Final = 1
START: Final = "start.json"
EXIT: Final = "exit.json"
VOID: Final = "void.json"
ORDER: Final = "order.json"


T = TypeVar("T")


class Unreadable(Exception):
    """A record is there, but it cannot be understood. That is not the same as no record."""


def read_object(path: str) -> Mapping[str, Any] | None:
    """Return the JSON object of a file, None if there is no such file.

    Raises:
        Unreadable: it cannot be read, is damaged, or is of a newer format.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a file: no link, no pipe
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    try:
        found = json.loads(_read_all(fd))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} is damaged: {error}") from error
    finally:
        os.close(fd)
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise Unreadable(f"{path} is damaged: it is not a record")
    if found["format"] > FORMAT:
        raise Unreadable(
            f"{path} was written by a newer Headcount (format {found['format']}, this one reads {FORMAT})"
        )
    return found


def _read_all(fd: int) -> bytes:
    data = os.read(fd, 1 << 16)
    if len(data) < 1 << 16:
        return data
    parts = [data]
    while more := os.read(fd, 1 << 20):
        parts.append(more)
    return b"".join(parts)


def read_start(path: str) -> StartRecord | None:
    """Return the start record of the run directory `path`, if there is one."""
    return _record(f"{path}/{START}", _start)


def read_exit(path: str) -> ExitRecord | None:
    """Return the exit record of the run directory `path`, if there is one."""
    return _record(f"{path}/{EXIT}", _exit)


def read_void(path: str) -> VoidRecord | None:
    """Return the void record of the run directory `path`, if there is one."""
    return _record(f"{path}/{VOID}", lambda found: VoidRecord(str(found["reason"]), float(found["at"])))


def read_deployer(path: str) -> Process | None:
    """Return who deployed the run in `path`, if its order is there."""
    return _record(f"{path}/{ORDER}", lambda found: _process(found["deployer"]))


def read_order(path: str) -> Order | None:
    """Return the order of the run in `path`; what it has on stdin and its files stay where they are."""
    return _record(f"{path}/{ORDER}", _order)


def order_object(order: Order) -> dict[str, Any]:
    """Return an order as it is stored: everything but what goes into files of its own."""
    return {
        "format": FORMAT,
        "deployer": _process_object(order.deployer),
        "agent_id": order.key.agent_id,
        "run": order.key.n,
        **{name: getattr(order, name) for name in _PLAIN},
        "argv": list(order.argv),
        "stdin": order.stdin is not None,
        "files": sorted(order.files),
        "interrupts": order.interrupts,
    }


_PLAIN: Final = (
    "task_id",
    "role",
    "parent",
    "depth",
    "harness",
    "model",
    "effort",
    "cwd",
    "prompt",
    "grace",
    "output_cap",
    "reserved_at",
    "renders",
    "rows",
)


def _record(path: str, parse: Callable[[Mapping[str, Any]], T]) -> T | None:
    found = read_object(path)
    if found is None:
        return None
    try:
        return parse(found)
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"{path} is damaged: {error!r}") from error


def _process(found: Mapping[str, Any]) -> Process:
    return Process(int(found["pid"]), int(found["ticks"]), str(found["boot_id"]))


def _process_object(process: Process) -> dict[str, Any]:
    return {"pid": process.pid, "ticks": process.ticks, "boot_id": process.boot_id}


def _start(found: Mapping[str, Any]) -> StartRecord:
    return StartRecord(
        runner=_process(found["runner"]),
        process=_process(found["process"]),
        pidns=str(found["pidns"]),
        started_at=float(found["started_at"]),
        layers=tuple(map(str, found["layers"])),
        cgroup=found["cgroup"],
    )


def _exit(found: Mapping[str, Any]) -> ExitRecord:
    return ExitRecord(
        code=found["code"],
        signal=found["signal"],
        error=found["error"],
        stopped=bool(found["stopped"]),
        started_at=found["started_at"],
        ended_at=float(found["ended_at"]),
        max_rss_kb=int(found["max_rss_kb"]),
        cpu_ms=int(found["cpu_ms"]),
        output_bytes=int(found["output_bytes"]),
        output_cut=int(found["output_cut"]),
        stderr_bytes=int(found["stderr_bytes"]),
        stderr_cut=int(found["stderr_cut"]),
        survivors=tuple(map(int, found["survivors"])),
        oom_kills=found.get("oom_kills"),
    )


def _order(found: Mapping[str, Any]) -> Order:
    return Order(
        key=RunKey(str(found["agent_id"]), int(found["run"])),
        argv=tuple(map(str, found["argv"])),
        stdin=None,
        files={},
        deployer=_process(found["deployer"]),
        interrupts=bool(found.get("interrupts", False)),
        **{name: found[name] for name in _PLAIN},
    )
