"""The program of the `script` harness: an agent whose mind is a list of steps.

    python -I -S script_agent.py STEPS.json CONVERSATION headcount mcp

It acts as a model-driven agent does: it speaks MCP to a stdio server (the words behind the file) that it
starts at its first call, and writes one JSON line for each act to stdout. Standard library only, and what
is slow to import is imported when it is needed.

A step is an object with one act, and perhaps "allow_error": true:

    {"say": TEXT}                          {"report": {status, progress, message}}
    {"run": COMMAND or [ARGV...]}          {"finding": {finding_type, severity, message, data}}
    {"edit": {path, content or append}}    {"spawn": {role, steps, ...}}
    {"sleep": SECONDS}                     {"call": {tool, arguments}}
    {"wait_for": PATH or {path, timeout}}  {"exit": CODE}

The exit code is that of `exit`, else 0, or 1 if any act failed that was not allowed to.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

WAIT_MAX = 3600.0  # seconds that any one step may last
LOOK = 0.05  # seconds between two looks into the inbox while a step waits
CALL_TIMEOUT = 120.0  # seconds for an answer of the MCP server
SHOWN = 4000  # characters of a command's output in the stream
PROTOCOL = "2025-06-18"

TOOLS = {"report": "update_agent_progress", "finding": "report_agent_finding", "spawn": "spawn_child_agent"}


class Step:
    """One step; `value` has the shape that `CHECKS` demands of its act."""

    __slots__ = ("act", "allow_error", "value")

    def __init__(self, act: str, value: Any, *, allow_error: bool) -> None:
        self.act = act
        self.value = value
        self.allow_error = allow_error


class ActFailed(Exception):
    """An act was not done; the message says why."""


class Inbox:
    """What this agent is told in the middle of its work: notes in its run directory, each answered once."""

    def __init__(self, folder: str, write: Callable[[dict[str, object]], None]) -> None:
        self._folder = folder if os.path.isdir(folder) else None
        self._write = write

    def look(self) -> None:
        """Take what is new.

        Raises:
            ActFailed: the wish is among it that the step which waits be cancelled.
        """
        if self._folder is None:
            return
        there = os.listdir(self._folder)
        new = {name[:-5] for name in there if name.endswith(".json")}
        new -= {name[:-5] for name in there if name.endswith(".done")}
        for name in sorted(new, key=lambda each: (len(each), each)):
            with open(os.path.join(self._folder, name + ".json"), encoding="utf-8") as file:
                note = json.load(file)
            if note.get("kind") == "message":
                said = f"told by {note.get('sender') or 'a person'}: {note.get('text')}"
                self._write({"type": "text", "text": said})
            self._answer(name)
            if note.get("kind") == "cancel":
                raise ActFailed("cancelled")

    def _answer(self, name: str) -> None:
        done = os.path.join(str(self._folder), name + ".done")
        with open(done + ".tmp", "w", encoding="utf-8") as file:
            json.dump({"id": name, "state": "delivered"}, file)
        os.rename(done + ".tmp", done)

    def pause(self, seconds: float) -> None:
        """Wait, and take what comes in meanwhile."""
        until = _now() + seconds
        self.look()
        while (left := until - _now()) > 0:
            pause(min(left, LOOK) if self._folder else left)
            self.look()


# ---------------------------------------------------------------- reading a script


def parse_steps(text: str) -> list[Step]:
    """Return the steps of a script; blank text is a script without steps.

    Raises:
        ValueError: it is not a list of steps; the message names the first bad one.
    """
    if not text.strip():
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a script is a JSON list of steps, and this is not JSON: {error}") from None
    if not isinstance(found, list):
        raise ValueError(  # noqa: TRY004 - one kind of error for every wrong script
            'a script is a JSON list of steps, such as [{"say": "hello"}, {"exit": 0}]'
        )
    return [_step(number, each) for number, each in enumerate(found, 1)]


def _step(number: int, found: object) -> Step:
    if not isinstance(found, dict):
        raise ValueError(  # noqa: TRY004 - one kind of error for every wrong script
            f"step {number} is not an object"
        )
    acts = [key for key in found if key != "allow_error"]
    if len(acts) != 1 or acts[0] not in CHECKS:
        raise ValueError(
            f"step {number} needs exactly one act of {', '.join(CHECKS)}; it has {', '.join(acts) or 'none'}"
        )
    act = acts[0]
    if not CHECKS[act](found[act]):
        raise ValueError(f"step {number}: the value of {act!r} is not valid")
    return Step(act, found[act], allow_error=found.get("allow_error") is True)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= WAIT_MAX


def _is_code(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _is_command(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, str) for each in value)
    return isinstance(value, str) and bool(value)


def _is_edit(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return False
    texts = [value[key] for key in ("content", "append") if key in value]
    return len(texts) == 1 and isinstance(texts[0], str) and len(value) == 2


def _is_wait(value: object) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("path"), str) and _is_seconds(value.get("timeout", 0))
    return isinstance(value, str) and bool(value)


def _is_call(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("tool"), str)
        and _is_object(value.get("arguments", {}))
    )


CHECKS: Mapping[str, Callable[[object], bool]] = {
    "say": _is_text,
    "report": _is_object,
    "finding": _is_object,
    "spawn": _is_object,
    "edit": _is_edit,
    "sleep": _is_seconds,
    "run": _is_command,
    "wait_for": _is_wait,
    "call": _is_call,
    "exit": _is_code,
}


# ---------------------------------------------------------------- speaking MCP


class Bridge:
    """One stdio MCP server as a child process. JSON-RPC, one message a line."""

    def __init__(self, argv: Sequence[str]) -> None:
        import subprocess

        try:
            self._child = subprocess.Popen(list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise ActFailed(f"the MCP server {argv[0]!r} cannot be started: {error.strerror}") from error
        self._stdin: Any = self._child.stdin
        self._stdout: Any = self._child.stdout
        self._unread = b""
        self._last_id = 0
        self._ask(
            "initialize",
            {
                "protocolVersion": PROTOCOL,
                "capabilities": {},
                "clientInfo": {"name": "headcount-script", "version": "1"},
            },
        )
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, tool: str, arguments: Mapping[str, object]) -> str:
        """Call a tool; return the text of its answer.

        Raises:
            ActFailed: the tool answered with an error, or there was no answer.
        """
        result = self._ask("tools/call", {"name": tool, "arguments": arguments})
        content = result.get("content")
        parts = content if isinstance(content, list) else []
        text = "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
        if result.get("isError"):
            raise ActFailed(text)
        return text

    def close(self) -> None:
        """End the server as clients do: by the end of its input."""
        import subprocess

        with suppress(OSError):  # it may have gone first
            self._stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _ask(self, method: str, params: Mapping[str, object]) -> dict[str, object]:
        self._last_id += 1
        self._send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        deadline = _now() + CALL_TIMEOUT
        while True:
            message = self._receive(deadline, method)
            if message.get("id") == self._last_id and "method" not in message:
                break
            if "id" in message and "method" in message:  # the server asks us; we can do nothing for it
                refusal = {"code": -32601, "message": "not supported"}
                self._send({"jsonrpc": "2.0", "id": message["id"], "error": refusal})
        error = message.get("error")
        if isinstance(error, dict):
            raise ActFailed(str(error.get("message", error)))
        result = message.get("result")
        return result if isinstance(result, dict) else {}

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except OSError as error:
            raise ActFailed(f"the MCP server is gone (exit code {self._child.poll()})") from error

    def _receive(self, deadline: float, method: str) -> dict[str, object]:
        import select

        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._stdout], [], [], max(0.0, deadline - _now()))
            if not ready:
                raise ActFailed(f"the MCP server did not answer {method} within {CALL_TIMEOUT:.0f} s")
            chunk = os.read(self._stdout.fileno(), 65536)
            if not chunk:
                raise ActFailed(f"the MCP server ended before it answered {method}")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            found = json.loads(line)
        except ValueError:
            raise ActFailed(f"the MCP server wrote what is not JSON: {line[:200]!r}") from None
        return found if isinstance(found, dict) else {}


def _now() -> float:
    import time

    return time.monotonic()


# ---------------------------------------------------------------- acting


class Agent:
    """Carries out steps and writes down each one."""

    def __init__(
        self, bridge_argv: Sequence[str], inbox: Inbox, write: Callable[[dict[str, object]], None]
    ) -> None:
        self._bridge_argv = bridge_argv
        self._inbox = inbox
        self._bridge: Bridge | None = None
        self._write = write
        self._calls = 0
        self.failed = 0

    def act(self, step: Step) -> None:
        """Do one step (any but `exit`)."""
        if step.act == "say":
            self._write({"type": "text", "text": step.value})
            return
        self._calls += 1
        name, arguments, do = self._plan(step)
        self._write({"type": "tool_call", "id": self._calls, "tool": name, "arguments": arguments})
        try:
            text, is_error = do(), False
        except (ActFailed, OSError, ValueError) as error:  # ValueError: a path with a NUL
            text, is_error = str(error), True
            self.failed += not step.allow_error
        self._write({"type": "tool_result", "id": self._calls, "is_error": is_error, "text": text})

    def close(self) -> None:
        if self._bridge is not None:
            self._bridge.close()

    def _plan(self, step: Step) -> tuple[str, object, Callable[[], str]]:
        value = step.value
        if step.act in OWN_ACTS:
            return step.act, value, lambda: OWN_ACTS[step.act](value, self._inbox)
        if step.act == "call":
            tool, arguments = value["tool"], value.get("arguments", {})
        else:
            tool, arguments = TOOLS[step.act], child(value) if step.act == "spawn" else value
        return tool, arguments, lambda: self._tool(tool, arguments)

    def _tool(self, tool: str, arguments: Mapping[str, object]) -> str:
        if self._bridge is None:
            if not self._bridge_argv:
                raise ActFailed("no MCP server was named on the command line")
            self._bridge = Bridge(self._bridge_argv)
        return self._bridge.call(tool, arguments)


def child(value: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments of spawn_child_agent: `steps` become the prompt of another script agent."""
    arguments = {"agent_type" if name == "role" else name: each for name, each in value.items()}
    if "steps" in arguments:
        arguments["prompt"] = json.dumps(arguments.pop("steps"))
        arguments.setdefault("harness", "script")
    return arguments


def edit(value: Any, _inbox: Inbox) -> str:
    path, mode = value["path"], "a" if "append" in value else "w"
    text = value["append"] if mode == "a" else value["content"]
    parent = os.path.dirname(path)
    if parent:
        os.makedirs(parent, exist_ok=True)
    with open(path, mode, encoding="utf-8") as file:
        file.write(text)
    return f"{'appended' if mode == 'a' else 'wrote'} {len(text)} characters to {path}"


def run(value: Any, _inbox: Inbox) -> str:
    """Run a command (a text by the shell, a list as it is); its output is the answer."""
    import subprocess

    argv = ["/bin/sh", "-c", value] if isinstance(value, str) else value
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise ActFailed(f"the command did not end within {WAIT_MAX:.0f} s") from None
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    if len(text) > SHOWN:
        text = f"{text[:SHOWN]}\n({len(text) - SHOWN} more characters)"
    if done.returncode != 0:
        raise ActFailed(f"exit code {done.returncode}\n{text}")
    return text


def wait_for(value: object, inbox: Inbox) -> str:
    """Wait until a file is there."""
    path, timeout = (
        (value["path"], value.get("timeout", 60.0)) if isinstance(value, dict) else (str(value), 60.0)
    )
    deadline = _now() + timeout
    while not os.path.lexists(path):
        if _now() >= deadline:
            raise ActFailed(f"{path} was not there within {timeout:g} s")
        inbox.look()
        pause(0.01)
    return f"{path} is there"


def sleep(value: Any, inbox: Inbox) -> str:
    inbox.pause(value)
    return f"slept {value:g} s"


def pause(seconds: float) -> None:
    import time

    time.sleep(seconds)


OWN_ACTS: Mapping[str, Callable[[object, Inbox], str]] = {
    "edit": edit,
    "run": run,
    "wait_for": wait_for,
    "sleep": sleep,
}


def perform(steps: Sequence[Step], agent: Agent) -> int:
    """Carry out the steps up to the first `exit`; return the exit code."""
    for step in steps:
        if step.act == "exit":
            return int(step.value)
        agent.act(step)
    return 1 if agent.failed else 0


def emit(line: dict[str, object]) -> None:
    """Write one JSON line at once: whoever watches sees each act when it happens."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> int:
    with open(argv[1], encoding="utf-8") as file:
        text = file.read()
    try:
        steps = parse_steps(text)
    except ValueError as error:
        emit({"type": "error", "text": str(error)})
        return 2
    who = {key: os.environ.get(f"HEADCOUNT_{key.upper()}") for key in ("agent_id", "run", "task_id")}
    emit({"type": "session", "session_id": argv[2], **who, "steps": len(steps)})
    inbox = Inbox(os.path.join(os.path.dirname(argv[1]), "inbox"), emit)
    agent = Agent(argv[3:], inbox, emit)
    try:
        code = perform(steps, agent)
    finally:
        agent.close()
    emit({"type": "result", "exit_code": code, "failed": agent.failed})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
