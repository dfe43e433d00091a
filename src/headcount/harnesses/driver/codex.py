"""Codex's app server (`codex app-server`): one thread, its turns, and messages in the middle of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headcount.harnesses.driver.letters import Letter
from headcount.harnesses.driver.policy import ALLOW, Use
from headcount.harnesses.driver.talk import Talk, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_METHOD = -32601
WANTED = ("item/started", "item/completed", "turn/completed", "error", "warning", "thread/compacted")
"""Notifications that are about its work and not said again by others."""
APPROVALS: Mapping[str, str] = {
    "item/commandExecution/requestApproval": "execute",
    "item/fileChange/requestApproval": "edit",
}
TOKENS: Mapping[str, str] = {
    "input": "inputTokens",
    "cached": "cachedInputTokens",
    "output": "outputTokens",
    "reasoning": "reasoningOutputTokens",
}


class Codex(Talk):
    """Its sandbox holds it to its permissions; what it asks beyond that is decided here."""

    def begin(self) -> None:
        self._count = 0
        self._waiting: dict[object, Callable[[Any, Any], None]] = {}
        self._turn: str | None = None
        self._starting = False
        self._held: list[Letter] = []
        self._last: Mapping[str, Any] = {}
        about = {"name": "headcount", "version": "1"}
        self._ask("initialize", {"clientInfo": about}, self._initialized)

    @property
    def busy(self) -> bool:
        return self._starting or self._turn is not None

    def wants(self, message: Mapping[str, Any]) -> bool:
        return message.get("method") in WANTED or "error" in message

    def _ask(self, method: str, params: Mapping[str, Any], then: Callable[[Any, Any], None]) -> None:
        self._count += 1
        self._waiting[self._count] = then
        self.send({"id": self._count, "method": method, "params": params})

    def take(self, message: Mapping[str, Any]) -> None:
        method, params = message.get("method"), _object(message.get("params"))
        if not isinstance(method, str):
            then = self._waiting.pop(message.get("id"), None)
            if then is not None:
                then(_object(message.get("result")), message.get("error"))
        elif "id" in message:
            self._request(message["id"], method, params)
        elif method == "turn/completed":
            self._completed(_object(params.get("turn")))
        elif method == "thread/tokenUsage/updated":
            self._count_tokens(_object(_object(params.get("tokenUsage")).get("total")))
        elif method == "item/completed":
            self._item(_object(params.get("item")))

    # beginning

    def _initialized(self, _result: Any, error: Any) -> None:
        if error is not None:
            self.fail(f"initialize failed: {_words(error)}")
            return
        self.send({"method": "initialized"})
        thread, earlier = self.order["thread"], self.order.get("resume")
        if earlier:
            self._ask("thread/resume", {"threadId": earlier, **thread}, self._opened)
        else:
            self._ask("thread/start", thread, self._opened)

    def _opened(self, result: Any, error: Any) -> None:
        if error is not None:
            self.fail(f"the conversation cannot be opened: {_words(error)}")
            return
        self.session_id = str(_object(result.get("thread")).get("id"))
        self.note("session", session_id=self.session_id, agent="codex", model=result.get("model"))
        self.ready = True
        self._begin_turn(self.prompt, [])
        held, self._held = self._held, []
        if held:
            self.tell(held)

    # turns

    def _begin_turn(self, text: str, letters: list[Letter]) -> None:
        self._starting = True
        schema = self.order.get("schema")
        more = {"outputSchema": schema} if schema else {}

        def begun(result: Any, error: Any) -> None:
            self._starting = False
            if error is not None:
                self._refused(letters, error)
                return
            self._turn = str(_object(result.get("turn")).get("id"))
            self.delivered(letters)
            if self._held or self.cancelled:
                self._catch_up()

        self._ask("turn/start", {"threadId": self.session_id, "input": _input(text), **more}, begun)

    def _catch_up(self) -> None:
        """Do what was asked for while the turn began."""
        held, self._held = self._held, []
        if self.cancelled:
            self.interrupt()
        if held:
            self._steer(held)

    def _refused(self, letters: list[Letter], error: Any) -> None:
        for each in letters:
            self.inbox.settle(each.id, "failed", _words(error)[:500])
        self.fail(f"the turn cannot begin: {_words(error)}")

    def tell(self, letters: list[Letter]) -> None:
        self.told(letters)
        if not self.ready or self._starting:
            self._held += letters
        elif self._turn is not None:
            self._steer(letters)
        else:
            self._begin_turn(words_of(letters), letters)

    def _steer(self, letters: list[Letter]) -> None:
        def steered(_result: Any, error: Any) -> None:
            if error is None:
                self.delivered(letters)
            elif self.busy:
                self._held += letters  # for the next turn
            else:
                self._begin_turn(words_of(letters), letters)

        where = {"threadId": self.session_id, "expectedTurnId": self._turn}
        self._ask("turn/steer", {**where, "input": _input(words_of(letters))}, steered)

    def interrupt(self) -> None:
        if self._turn is not None:
            where = {"threadId": self.session_id, "turnId": self._turn}
            self._ask("turn/interrupt", where, lambda _result, _error: None)

    def _completed(self, turn: Mapping[str, Any]) -> None:
        if turn.get("id") != self._turn:
            return
        self._turn, self._last = None, turn
        self.turn_over()
        held, self._held = self._held, []
        if held:
            self._begin_turn(words_of(held), held)

    def conclude(self) -> None:
        status = self._last.get("status")
        if self.cancelled:
            self.finish("cancelled", "its turn was cancelled as asked", ending="stopped")
        elif status == "completed":
            self.finish("completed", "finished", ending="finished")
        else:
            self.fail(_words(self._last.get("error") or f"the turn ended as {status}"))

    # what it does

    def _item(self, item: Mapping[str, Any]) -> None:
        if item.get("type") == "agentMessage":
            self.do()
            self.say(str(item.get("text") or ""))

    def _count_tokens(self, total: Mapping[str, Any]) -> None:
        """Count what the conversation has used, with its earlier runs."""
        known = {ours: total[theirs] for ours, theirs in TOKENS.items() if theirs in total}
        if any(known.values()):
            self.note("usage", scope="session", **known)

    def _request(self, number: object, method: str, params: Mapping[str, Any]) -> None:
        kind = APPROVALS.get(method)
        if kind is None:
            refusal = {"code": NO_METHOD, "message": f"{method} is not supported"}
            self.send({"id": number, "error": refusal})
            return

        def reply(decision: str) -> None:
            self.send({"id": number, "result": {"decision": "accept" if decision == ALLOW else "decline"}})

        command = str(params.get("command") or params.get("reason") or "")
        tool = "shell" if kind == "execute" else "apply_patch"
        self.decide(Use(tool, kind=kind, title=command, arguments=params), reply)


def _input(text: str) -> list[Mapping[str, str]]:
    return [{"type": "text", "text": text}]


def _words(error: Any) -> str:
    return str(_object(error).get("message") or error)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
