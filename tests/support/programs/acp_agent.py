"""An agent that speaks the Agent Client Protocol and does what its prompt says.

    python acp_agent.py [OPTION...]

A prompt's last line that begins with "DO " is a JSON list of steps, each an object with one of: say, think,
edit (a path: it asks first), shell (a command: it asks first), use (an update of the session as it is), raw
(a line as it is), ask (a request to the client), wait_for (a path), error (of the prompt), crash (an exit
code), hang, stop (a reason).

Options: no-load, old (another version of the protocol), no-login, silent (answers nothing), stubborn (ends by
no EOF and no SIGTERM), and for a prompt in the middle of a turn: replace, late (as replace, and the ended
prompt is answered last), refuse, or else queue. Its sessions are files: `$ACP_SESSIONS/<id>`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any

OPTIONS = frozenset(sys.argv[1:])
SESSIONS = Path(os.environ.get("ACP_SESSIONS", "."))
ALLOW = {"optionId": "yes", "name": "Yes", "kind": "allow_once"}
DENY = {"optionId": "no", "name": "No", "kind": "reject_once"}


class Cancelled(Exception):
    """The turn is to end."""


class Agent:
    def __init__(self) -> None:
        self.out = threading.Lock()
        self.answers: dict[int, Queue[Any]] = {}
        self.asked = 0
        self.session = ""
        self.cancel = threading.Event()
        self.turn = threading.Lock()
        self.superseded = False

    def write(self, message: dict[str, Any]) -> None:
        self.raw(json.dumps({"jsonrpc": "2.0", **message}))

    def raw(self, line: str) -> None:
        with self.out:
            sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
            sys.stdout.flush()

    def update(self, **facts: Any) -> None:
        self.write({"method": "session/update", "params": {"sessionId": self.session, "update": facts}})

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        self.asked += 1
        answer: Queue[Any] = Queue()
        self.answers[self.asked] = answer
        self.write({"id": self.asked, "method": method, "params": params})
        while True:
            try:
                return answer.get(timeout=0.02)
            except Empty:
                if self.cancel.is_set() and method != "session/request_permission":
                    raise Cancelled from None

    # requests

    def take(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        if method is None:
            self.answers.pop(int(number or 0)).put(message)
        elif method == "session/cancel":
            self.cancel.set()
        elif method == "session/prompt":
            threading.Thread(target=self.prompt, args=(number, message["params"]), daemon=True).start()
        else:
            self.write({"id": number, **self.open(method, message.get("params", {}))})

    def open(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            can = {"loadSession": "no-load" not in OPTIONS}
            info = {"name": "scripted", "version": "1"}
            version = 99 if "old" in OPTIONS else 1
            return {"result": {"protocolVersion": version, "agentCapabilities": can, "agentInfo": info}}
        if "no-login" in OPTIONS:
            return {"error": {"code": -32000, "message": "Authentication required"}}
        models = {"currentModelId": "m1", "availableModels": [{"modelId": "m1"}, {"modelId": "m2"}]}
        if method == "session/new":
            self.session = f"session-{os.getpid()}"
            (SESSIONS / self.session).write_text(json.dumps([params]))
            return {"result": {"sessionId": self.session, "models": models}}
        if method == "session/load":
            return self.load(params)
        if method == "session/set_model":
            self.keep("model", params["modelId"])
            return {"result": {}}
        return {"error": {"code": -32601, "message": f"no {method}"}}

    def load(self, params: dict[str, Any]) -> dict[str, Any]:
        self.session = params["sessionId"]
        try:
            earlier = json.loads((SESSIONS / self.session).read_text())
        except FileNotFoundError:
            return {
                "error": {"code": -32603, "message": "Internal error", "data": {"details": "no such session"}}
            }
        for each in earlier[1:]:
            self.update(sessionUpdate="user_message_chunk", content={"type": "text", "text": str(each)})
            self.update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "of old"})
        return {"result": {}}

    def keep(self, *said: str) -> None:
        path = SESSIONS / self.session
        path.write_text(json.dumps([*json.loads(path.read_text()), list(said)]))

    # turns

    def prompt(self, number: int, params: dict[str, Any]) -> None:
        text = params["prompt"][0]["text"]
        if not self.turn.acquire(blocking=False):
            if "refuse" in OPTIONS:
                self.write({"id": number, "error": {"code": -32602, "message": "a turn goes on"}})
                return
            if "replace" in OPTIONS or "late" in OPTIONS:
                self.cancel.set()
            self.turn.acquire()
        self.cancel.clear()
        self.keep("user", text)
        try:
            said = self.play(text)
        except Cancelled:
            said = {"result": {"stopReason": "cancelled"}}
        finally:
            self.turn.release()
        if "late" in OPTIONS and said["result"]["stopReason"] == "cancelled":
            time.sleep(0.3)
        self.write({"id": number, **said})

    def play(self, text: str) -> dict[str, Any]:
        steps = [line[3:] for line in text.splitlines() if line.startswith("DO ")]
        for at, step in enumerate(json.loads(steps[-1]) if steps else [{"say": f"heard: {text[-200:]}"}]):
            ((act, value),) = step.items()
            if act == "stop":
                return {"result": {"stopReason": value, "usage": {"inputTokens": 10, "outputTokens": 2}}}
            if act == "error":
                return {"error": value}
            getattr(self, f"do_{act}")(value, f"call_{at}")
            if self.cancel.is_set():
                raise Cancelled
        usage = {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}
        return {"result": {"stopReason": "end_turn", "usage": usage}}

    def do_say(self, text: str, _call: str) -> None:
        for piece in (text[:2], text[2:]):
            self.update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": piece})

    def do_think(self, text: str, _call: str) -> None:
        self.update(sessionUpdate="agent_thought_chunk", content={"type": "text", "text": text})

    def do_use(self, update: dict[str, Any], _call: str) -> None:
        self.update(**update)

    def do_raw(self, line: str, _call: str) -> None:
        self.raw(line)

    def do_ask(self, method: str, _call: str) -> None:
        self.do_say(json.dumps(self.ask(method, {}).get("error")), "")

    def do_edit(self, path: str, call: str) -> None:
        change = {"type": "diff", "path": path, "oldText": None, "newText": "made\n"}
        facts = {"toolCallId": call, "title": f"Write {path}", "kind": "edit", "locations": [{"path": path}]}
        self.update(sessionUpdate="tool_call", **facts, status="pending", rawInput={})
        if self.permitted({**facts, "rawInput": {"path": path}}):
            Path(path).write_text("made\n")
            self.update(
                sessionUpdate="tool_call_update", toolCallId=call, status="completed", content=[change]
            )

    def do_shell(self, command: str, call: str) -> None:
        facts = {"toolCallId": call, "title": command, "kind": "execute", "rawInput": {"command": command}}
        self.update(sessionUpdate="tool_call", **facts, status="pending")
        if self.permitted(facts):
            output = os.popen(command).read()
            content = [{"type": "content", "content": {"type": "text", "text": output}}]
            self.update(
                sessionUpdate="tool_call_update", toolCallId=call, status="completed", content=content
            )

    def permitted(self, call: dict[str, Any]) -> bool:
        """Ask; a refusal is told, and the turn goes on."""
        asked = {"sessionId": self.session, "toolCall": call, "options": [DENY, ALLOW]}
        outcome = self.ask("session/request_permission", asked)["result"]["outcome"]
        if outcome == {"outcome": "cancelled"}:
            raise Cancelled
        if outcome.get("optionId") != "yes":
            content = [{"type": "content", "content": {"type": "text", "text": "refused"}}]
            facts = {"toolCallId": call["toolCallId"], "status": "failed", "content": content}
            self.update(sessionUpdate="tool_call_update", **facts)
            return False
        return True

    def do_wait_for(self, path: str, _call: str) -> None:
        while not os.path.exists(path):
            if self.cancel.is_set():
                raise Cancelled
            time.sleep(0.01)

    def do_crash(self, code: int, _call: str) -> None:
        sys.stdout.flush()
        os._exit(code)

    def do_hang(self, _value: object, _call: str) -> None:
        threading.Event().wait()


def main() -> None:
    agent = Agent()
    if "stubborn" in OPTIONS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        if "silent" not in OPTIONS:
            agent.take(json.loads(line))
    if "stubborn" in OPTIONS:
        threading.Event().wait()


if __name__ == "__main__":
    main()
