"""Real daemons and real bridges, each a process of its own on the test's home."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, Self

from headcount.config import Home
from headcount.daemon import start
from tests.support import leftovers, private
from tests.support.commands import QUIET
from tests.support.waiting import until

PATIENCE = 30.0
"""Seconds in which a daemon must be there on a machine that does much else."""
DAEMON = (sys.executable, "-P", "-m", "headcount.daemon")
BRIDGE = (sys.executable, "-P", "-m", "headcount", "mcp")
LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {**QUIET, "HEADCOUNT_AUTOSTART": "1", "HEADCOUNT_HEADCOUNT_EVERY": "1"}
    return {**os.environ, **kept, "HEADCOUNT_HOME": str(home), **(more or {})}


@contextmanager
def daemon(home: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon in the foreground of the test; at the end no daemon of the home is left."""
    process = subprocess.Popen([*DAEMON, "--home", str(home)], env=environment(home, more))
    try:
        wait_ready(home)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)
        end(home)


@contextmanager
def shared(**more: str) -> Iterator[Path]:
    """Run a daemon on a home of its own, for all the tests of a module."""
    home = private.place_for_a_test(Path(os.environ[private.MARK])) / "h"
    home.mkdir(mode=0o700)
    with daemon(home, **more):
        yield home
    left = leftovers.await_none(home.parent)
    leftovers.end_all(home.parent)
    private.remove(home.parent)
    assert not left, left


def wait_ready(home: Path) -> None:
    assert start.wait_ready(Home(home), PATIENCE), f"no daemon came: {_log(home)}"
    until(Home(home).daemon_facts.exists, what="the daemon says where it is")


def _log(home: Path) -> str:
    log = Home(home).daemon_log
    return log.read_text()[-2000:] if log.exists() else "it has no log"


def facts(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Home(home).daemon_facts.read_text())
    return found


def token(home: Path) -> str:
    """Return the person's token for the port."""
    return Path(facts(home)["token_file"]).read_text()


def end(home: Path) -> None:
    """End whatever daemon the home has, such as one that a bridge started."""
    assert start.stop(Home(home), 20), "the daemon does not end"


def kill(home: Path) -> int:
    """Kill the home's daemon with SIGKILL; return the pid that it had."""
    pid = start.holder(Home(home))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: start.holder(Home(home)) != pid, what="the killed daemon is gone")
    return pid


@dataclass(frozen=True, slots=True)
class Manager:
    """What a service manager would hear."""

    line: socket.socket
    env: dict[str, str]

    def hears(self) -> dict[str, str]:
        """Return the next message."""
        said = self.line.recv(4096).decode()
        return dict(each.split("=", 1) for each in said.splitlines())


@contextmanager
def manager(address: str, watchdog: float) -> Iterator[Manager]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as line:
        line.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        line.settimeout(PATIENCE)
        yield Manager(line, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(watchdog * 1e6))})


class Bridge:
    """One `headcount mcp`, spoken to line by line."""

    def __init__(self, home: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            BRIDGE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(home, env),
            cwd=cwd,
        )
        self.notes: Queue[dict[str, Any]] = Queue()
        self._answers: dict[Any, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._number = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            return
        finally:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if "method" in message:
                self.notes.put(message)
                continue
            with self._news:
                self._answers[message.get("id")] = message
                self._news.notify_all()

    def write(self, raw: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(raw)
        self.process.stdin.flush()

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        """Send a request without waiting; return its id."""
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": dict(params or {})}
        self.write(json.dumps(message).encode() + b"\n")
        return self._number

    def answer(self, number: Any, *, patience: float = PATIENCE) -> dict[str, Any]:
        """Return the answer to a request."""
        with self._news:
            came = self._news.wait_for(lambda: number in self._answers, patience)
            assert came, f"no answer to {number} within {patience:g} s"
            return self._answers.pop(number)

    def ask(self, method: str, params: Mapping[str, Any] | None = None, **how: Any) -> dict[str, Any]:
        return self.answer(self.send(method, params), **how)

    def call(self, tool: str, *, patience: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
        """Call a tool, which must succeed; return its structured content."""
        result = self.result(tool, patience=patience, **arguments)
        assert result["isError"] is False, result
        found: dict[str, Any] = result["structuredContent"]
        return found

    def error(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool, which must fail; return its error's facts."""
        result = self.result(tool, **arguments)
        assert result["isError"] is True, result
        found: dict[str, Any] = result["structuredContent"]["error"]
        assert found["code"] in result["content"][0]["text"]
        assert found["message"] in result["content"][0]["text"]
        return found

    def result(self, tool: str, *, patience: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return its result, whatever it is."""
        message = self.ask("tools/call", {"name": tool, "arguments": arguments}, patience=patience)
        assert "result" in message, message
        found: dict[str, Any] = message["result"]
        return found
