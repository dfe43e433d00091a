"""Pi's RPC mode (`--mode rpc`): commands in, the events of its JSON mode and answers out."""

from __future__ import annotations

import time
from collections.abc import Mapping

from headcount.harnesses.driver.letters import Letter
from headcount.harnesses.driver.talk import Talk, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SETTLE_S = 0.5
"""After the end of its work it may begin again by itself: after an error, or to shorten its conversation."""
GO_ON = "Go on with the message that follows."
"""A message that came too late for a turn waits for the next one, which something has to begin."""
BEGINNINGS = ("agent_start", "auto_retry_start", "compaction_start", "auto_compaction_start")


class Pi(Talk):
    """The policy is that of the guard, which the program loads."""

    def begin(self) -> None:
        self._count = 0
        self._prompts: dict[str, list[Letter]] = {}
        self._queued: list[Letter] = []  # told, and not yet taken into its conversation
        self._quiet_since: float | None = None
        self._ask("get_state")
        self._prompt(self.prompt, [])
        self.ready = True

    @property
    def busy(self) -> bool:
        if self._quiet_since is None:
            return True
        return bool(self._prompts) or time.monotonic() < self._quiet_since + SETTLE_S

    def wants(self, message: Mapping[str, Any]) -> bool:
        """Say whether a line is about its work: answers to our commands are not."""
        return message.get("type") != "response"

    def _ask(self, command: str, **facts: object) -> str:
        self._count += 1
        name = f"headcount-{self._count}"
        self.send({"id": name, "type": command, **facts})
        return name

    def _prompt(self, text: str, letters: list[Letter]) -> None:
        self._quiet_since = None
        self._prompts[self._ask("prompt", message=text, streamingBehavior="steer")] = letters

    def tell(self, letters: list[Letter]) -> None:
        self.told(letters)
        self._prompt(words_of(letters), letters)

    def interrupt(self) -> None:
        self._ask("abort")

    def take(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "response":
            self._response(message)
        elif kind == "queue_update" and not message.get("steering"):
            self._taken()
        elif kind in BEGINNINGS:
            self._quiet_since = None
            if kind == "agent_start":
                self._started = True
        elif kind == "agent_end":
            self._quiet_since = time.monotonic()
            self.turn_over()

    _started = False

    def _response(self, message: Mapping[str, Any]) -> None:
        data = message.get("data")
        if message.get("command") == "get_state" and isinstance(data, dict) and self.session_id is None:
            self.session_id = str(data.get("sessionId"))
            model = data.get("model")
            named = model.get("id") if isinstance(model, dict) else None
            self.note("session", session_id=self.session_id, agent="pi", model=named)
        letters = self._prompts.pop(str(message.get("id")), None)
        if letters is None:
            return
        if message.get("success") is not True:
            self._refused(letters, str(message.get("error")))
        elif letters:
            self._queued += letters
            if not self._waits():
                self._taken()

    def _waits(self) -> bool:
        """Whether a message that was just accepted waits for the next step of a turn."""
        return self._started and self._quiet_since is None

    def _refused(self, letters: list[Letter], reason: str) -> None:
        for each in letters:
            self.inbox.settle(each.id, "failed", reason[:500])
        if not letters:
            self.fail(f"the prompt was refused: {reason}")

    def _taken(self) -> None:
        self.delivered(self._queued)
        self._queued.clear()

    def conclude(self) -> None:
        """How the turn ended, its events say."""
        if self._queued and not self.cancelled:
            self._prompt(GO_ON, [])
        elif self.cancelled:
            self.finish("cancelled", "its turn was cancelled as asked", ending="stopped")
        else:
            self.finish("completed", "finished", ending="finished")
