"""Claude Code's streamed input (`--input-format stream-json`): messages in, a result at the end of each turn.

Each message has an id of ours, which the program repeats when it takes the message into its conversation
(`--replay-user-messages`). A result ends the turn of all that was taken before it; what was not taken yet
makes a turn of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from headcount.harnesses.driver.letters import Letter
from headcount.harnesses.driver.policy import ALLOW, Use
from headcount.harnesses.driver.talk import Talk, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS: Mapping[str, str] = {
    "Bash": "execute",
    "Edit": "edit",
    "Write": "edit",
    "NotebookEdit": "edit",
    "Read": "read",
    "Grep": "search",
    "Glob": "search",
    "WebFetch": "fetch",
    "WebSearch": "fetch",
}
"""What its tools do, in ACP's words."""


class Claude(Talk):
    """The policy is the program's own, by its flags; what it asks beyond that comes here."""

    def begin(self) -> None:
        self._sent: dict[str, list[Letter]] = {}  # by the id of each message
        self._taken: set[str] = set()
        self._controls = 0
        self._write(self.prompt, [])
        self.ready = True

    @property
    def busy(self) -> bool:
        return bool(self._sent)

    def wants(self, message: Mapping[str, Any]) -> bool:
        """Say whether a line is about its work: what is about our messages and requests is not."""
        ours = ("command_lifecycle", "control_request", "control_response", "control_cancel_request")
        return message.get("type") not in ours and message.get("isReplay") is not True

    def _write(self, text: str, letters: list[Letter]) -> None:
        name = _new_id()
        self._sent[name] = letters
        content = [{"type": "text", "text": text}]
        message = {"role": "user", "content": content}
        self.send(
            {"type": "user", "uuid": name, "session_id": "", "parent_tool_use_id": None, "message": message}
        )

    def tell(self, letters: list[Letter]) -> None:
        self.told(letters)
        self._write(words_of(letters), letters)

    def interrupt(self) -> None:
        self._controls += 1
        asked = {"subtype": "interrupt"}
        self.send({"type": "control_request", "request_id": f"headcount-{self._controls}", "request": asked})

    def take(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "user" and message.get("isReplay") is True:
            self._take_in(str(message.get("uuid")))
        elif kind == "result":
            for name in self._taken:
                self._sent.pop(name, None)
            self._taken.clear()
            self.turn_over()
        elif kind == "control_request":
            self._request(message)

    def _take_in(self, name: str) -> None:
        if name in self._sent and name not in self._taken:
            self._taken.add(name)
            self.delivered(self._sent[name])

    def _request(self, message: Mapping[str, Any]) -> None:
        asked, number = message.get("request"), message.get("request_id")
        if not isinstance(asked, dict) or asked.get("subtype") != "can_use_tool":
            refusal = {"subtype": "error", "request_id": number, "error": "not supported"}
            self.send({"type": "control_response", "response": refusal})
            return
        tool, given = str(asked.get("tool_name")), asked.get("input")
        arguments = given if isinstance(given, dict) else {}

        def reply(decision: str) -> None:
            allowed = {"behavior": "allow", "updatedInput": arguments}
            denied = {"behavior": "deny", "message": "This was not permitted."}
            said = {"subtype": "success", "request_id": number}
            response = {**said, "response": allowed if decision == ALLOW else denied}
            self.send({"type": "control_response", "response": response})

        title = next(
            (str(arguments[name]) for name in ("command", "file_path", "url") if name in arguments), tool
        )
        self.decide(Use(tool, kind=KINDS.get(tool, "other"), title=title, arguments=arguments), reply)

    def conclude(self) -> None:
        """How the turn ended, its result says."""
        if self.cancelled:
            self.finish("cancelled", "its turn was cancelled as asked", ending="stopped")
        else:
            self.finish("completed", "finished", ending="finished")


def _new_id() -> str:
    """Return an id as the program takes it: a random UUID."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
