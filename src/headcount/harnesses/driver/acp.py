"""The Agent Client Protocol, version 1, as its client: one session, its prompts, its permissions.

What several agents were seen to do where the protocol says nothing: a prompt in the middle of a turn ends
that turn (Gemini CLI, Copilot CLI), goes into it (OpenCode) or waits for its end (Qwen Code); all take it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from headcount.harnesses.driver.letters import Letter
from headcount.harnesses.driver.names import has_arguments, tool_of
from headcount.harnesses.driver.policy import ALLOW, DENY, Use
from headcount.harnesses.driver.talk import WITHDRAWN, Talk, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
NO_METHOD, NO_LOGIN = -32601, -32000
OURS = "HEADCOUNT_"
LAST_STEP = ("OpenCode",)
"""Agents whose count of tokens at the end of a turn is that of its last step alone."""

KINDS: Mapping[str, tuple[str, ...]] = {
    ALLOW: ("allow_once", "allow_always"),
    DENY: ("reject_once", "reject_always"),
    WITHDRAWN: (),
}
"""Of the options that an agent offers, the best first."""

STOPS: Mapping[str, tuple[str, str, str]] = {
    "end_turn": ("completed", "finished", "finished"),
    "max_tokens": ("failed", "the limit of tokens was reached", "token_limit"),
    "max_turn_requests": ("failed", "the limit of turns was reached", "turn_limit"),
    "refusal": ("failed", "the model refused", "refused"),
    "cancelled": ("cancelled", "its turn was cancelled as asked", "stopped"),
}


class Acp(Talk):
    """JSON-RPC in both directions. What the agent replays of earlier runs was not done in this one, so it is
    not passed on (`wants`)."""

    _count = 0
    _loading = False
    _stop: str | None = None
    _stopped = 0  # the prompt that ended so
    _agent = ""
    _cost: float | None = None

    def begin(self) -> None:
        self._waiting: dict[int, Callable[[Any, Any], None]] = {}
        self._prompts: dict[int, list[Letter]] = {}
        self._held: list[Letter] = []
        self._refused_once: set[str] = set()
        self._calls: dict[str, dict[str, Any]] = {}
        self._used: dict[str, int] = {}
        self._can: Mapping[str, Any] = {}
        files = {"readTextFile": False, "writeTextFile": False}
        about = {"name": "headcount", "version": "1"}
        asked = {"protocolVersion": VERSION, "clientInfo": about}
        self._ask(
            "initialize", {**asked, "clientCapabilities": {"fs": files, "terminal": False}}, self._initialized
        )

    @property
    def busy(self) -> bool:
        return bool(self._prompts)

    def wants(self, message: Mapping[str, Any]) -> bool:
        return not (self._loading and message.get("method") == "session/update")

    # the wire

    def _ask(self, method: str, params: Mapping[str, Any], then: Callable[[Any, Any], None]) -> int:
        self._count += 1
        self._waiting[self._count] = then
        self.send({"jsonrpc": "2.0", "id": self._count, "method": method, "params": params})
        return self._count

    def take(self, message: Mapping[str, Any]) -> None:
        method = message.get("method")
        if not isinstance(method, str):
            then = self._waiting.pop(_number(message.get("id")), None)
            if then is not None:
                then(message.get("result"), message.get("error"))
            return
        params = _object(message.get("params"))
        if method == "session/update" and not self._loading:
            self._update(_object(params.get("update")))
        elif "id" in message and method == "session/request_permission":
            self._permission(message["id"], params)
        elif "id" in message:
            refusal = {"code": NO_METHOD, "message": f"{method} is not supported"}
            self.send({"jsonrpc": "2.0", "id": message["id"], "error": refusal})

    # beginning

    def _initialized(self, result: Any, error: Any) -> None:
        if error is not None:
            self._refused("initialize", error)
            return
        found = _object(result)
        if found.get("protocolVersion") != VERSION:
            self.fail(f"the agent speaks version {found.get('protocolVersion')!r} of ACP, not {VERSION}")
            return
        self._can = _object(found.get("agentCapabilities"))
        info = _object(found.get("agentInfo"))
        self._agent = str(info.get("name") or "")
        where = {"cwd": self.order["cwd"], "mcpServers": list(map(_with_env, self.order["mcp_servers"]))}
        earlier = self.order.get("resume")
        if not earlier:
            self._ask("session/new", where, self._opened)
            return
        self.session_id = str(earlier)
        known = {"sessionId": earlier, **where}
        if self._can.get("loadSession") is True:
            self._loading = True
            self._ask("session/load", known, self._opened)
        elif "resume" in _object(self._can.get("sessionCapabilities")):
            self._ask("session/resume", known, self._opened)
        else:
            self.fail("the agent cannot go on with an earlier conversation")

    def _opened(self, result: Any, error: Any) -> None:
        self._loading = False
        if error is not None:
            self._refused("session/load" if self.session_id else "session/new", error)
            return
        found = _object(result)
        self.session_id = self.session_id or str(found.get("sessionId"))
        model = self.order.get("model")
        self.note(
            "session", session_id=self.session_id, agent=self._agent or None, model=model or _model(found)
        )
        if model:
            self._choose(str(model), found)
        else:
            self._start()

    def _choose(self, model: str, found: Mapping[str, Any]) -> None:
        """Set the model: by a configuration option, or as it was done before there were any."""
        session = {"sessionId": self.session_id}
        option = next((each for each in _options(found) if each.get("category") == "model"), None)
        if option is not None:
            wanted = {**session, "configId": option.get("id"), "value": model}
            self._ask("session/set_config_option", wanted, self._chosen)
        elif "models" in found:
            self._ask("session/set_model", {**session, "modelId": model}, self._chosen)
        else:
            self.fail("the agent offers no choice of models")

    def _chosen(self, _result: Any, error: Any) -> None:
        if error is not None:
            self._refused("the model", error)
        else:
            self._start()

    def _start(self) -> None:
        self.ready = True
        self._prompt(self.prompt, [])
        self._tell_held()

    def _refused(self, what: str, error: Any) -> None:
        ending = "auth_failed" if _object(error).get("code") == NO_LOGIN else None
        self.fail(f"{what} failed: {_words(error)}", ending)

    # turns

    def _prompt(self, text: str, letters: list[Letter]) -> None:
        content = [{"type": "text", "text": text}]

        def over(result: Any, error: Any) -> None:
            letters = self._prompts.pop(number)
            if error is None and number > self._stopped:  # a prompt that another ended may be answered later
                self._stopped, self._stop = number, str(_object(result).get("stopReason"))
            self._turn_over(letters, _object(result), error)

        asked = {"sessionId": self.session_id, "prompt": content}
        number = self._ask("session/prompt", asked, over)
        self._prompts[number] = letters

    def tell(self, letters: list[Letter]) -> None:
        if not self.ready:
            self._held += letters
            return
        self.told(each for each in letters if each.id not in self._refused_once)
        self._prompt(words_of(letters), letters)

    def interrupt(self) -> None:
        if self.session_id is not None:
            self.send(
                {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": self.session_id}}
            )

    def _turn_over(self, letters: list[Letter], result: Mapping[str, Any], error: Any) -> None:
        if error is not None:
            self._turn_failed(letters, error)
            return
        self._count_turn(result)
        self.delivered(letters)
        if not self.busy:
            self.turn_over()
            self._tell_held()

    def _turn_failed(self, letters: list[Letter], error: Any) -> None:
        """A prompt was refused. In the middle of a turn, it is given once more after that."""
        if letters and self.busy and letters[0].id not in self._refused_once:
            self._refused_once.update(each.id for each in letters)
            self._held += letters
            return
        for each in letters:
            self.inbox.settle(each.id, "failed", _words(error)[:500])
        if not self.busy:
            self.fail(f"the turn failed: {_words(error)}")

    def _tell_held(self) -> None:
        held, self._held = self._held, []
        if held:
            self.tell(held)

    def conclude(self) -> None:
        stop = self._stop or "nothing"
        if self.cancelled:
            stop = "cancelled"
        elif stop == "cancelled":
            self.fail("the agent cancelled its turn")
            return
        outcome, reason, ending = STOPS.get(stop, ("failed", f"the turn ended with {stop}", "error"))
        self.finish(outcome, reason, ending=ending)

    # what it does

    def _update(self, update: Mapping[str, Any]) -> None:
        kind = update.get("sessionUpdate")
        if kind == "agent_message_chunk":
            text = _object(update.get("content")).get("text")
            if isinstance(text, str) and text:
                self.say(text)
            self._count_step(_object(_object(update.get("_meta")).get("usage")))
        elif kind in ("tool_call", "tool_call_update"):
            self.do()
            self._call(update)
        elif kind == "usage_update":
            self._count_cost(_object(update.get("cost")))

    def _call(self, update: Mapping[str, Any], *, asked: bool = False) -> dict[str, Any]:
        """Keep what is known of a call. It is told once, when its arguments are known or it does something:
        by the agent's own line (see `headcount.harnesses.driven`), else by one of ours."""
        name = str(update.get("toolCallId"))
        call = self._calls.setdefault(name, {})
        call.update({key: value for key, value in update.items() if value not in (None, [], {}, "")})
        if not call.get("told"):
            known = has_arguments(update) or update.get("status") in ("in_progress", "completed", "failed")
            own = update.get("sessionUpdate") == "tool_call" and has_arguments(update)
            if not own and (asked or known):
                self.note(
                    "tool_call",
                    id=name,
                    tool=tool_of(call),
                    arguments=call.get("rawInput") or call.get("title"),
                )
            call["told"] = asked or known
        if update.get("status") in ("completed", "failed"):
            if update.get("status") == "completed" and call.get("kind") in ("edit", "delete", "move"):
                self._changed(name, call, update)
            self._calls.pop(name)
        return call

    def _changed(self, name: str, call: Mapping[str, Any], update: Mapping[str, Any]) -> None:
        """Tell of files that a call changed, where its last line does not show the change itself."""
        if any(each.get("type") == "diff" for each in _objects(update.get("content"))):
            return
        change = "delete" if call.get("kind") == "delete" else None
        for path in dict.fromkeys(_use(call).paths):
            self.note("file_change", id=name, path=path, change=change)

    def _permission(self, number: object, params: Mapping[str, Any]) -> None:
        call = self._call(_object(params.get("toolCall")), asked=True)
        options = list(_objects(params.get("options")))

        def reply(decision: str) -> None:
            self.send({"jsonrpc": "2.0", "id": number, "result": {"outcome": _outcome(options, decision)}})

        self.do()
        self.decide(_use(call), reply)

    # what it used

    def _count_step(self, usage: Mapping[str, Any]) -> None:
        """Add one call of the model."""
        if usage:
            for name, count in _tokens(usage).items():
                self._used[name] = self._used.get(name, 0) + count
            self._tell_used()

    def _count_turn(self, result: Mapping[str, Any]) -> None:
        """Take what a turn's end says: of the whole session (`usage`), or of the turn (Gemini CLI's)."""
        quota = _object(_object(_object(result.get("_meta")).get("quota")).get("token_count"))
        counts = {"inputTokens": quota.get("input_tokens"), "outputTokens": quota.get("output_tokens")}
        if quota:
            self._count_step(counts)
        usage = _object(result.get("usage"))
        if usage and self._agent not in LAST_STEP:
            self._used = _tokens(usage)
            self._tell_used()

    def _tell_used(self) -> None:
        if any(self._used.values()):
            self.note("usage", scope="run", **self._used)

    def _count_cost(self, cost: Mapping[str, Any]) -> None:
        amount = cost.get("amount")
        if isinstance(amount, (int, float)) and amount > 0 and cost.get("currency") == "USD":
            if amount != self._cost:
                self.note("usage", scope="session", cost_usd=float(amount))
            self._cost = float(amount)


def _with_env(server: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a server our variables, which some agents keep from it otherwise; they are in no file."""
    ours = [{"name": name, "value": value} for name, value in os.environ.items() if name.startswith(OURS)]
    return {**server, "env": [*server.get("env", ()), *ours]}


def _use(call: Mapping[str, Any]) -> Use:
    diffs = [str(each["path"]) for each in _objects(call.get("content")) if isinstance(each.get("path"), str)]
    places = [
        str(each["path"]) for each in _objects(call.get("locations")) if isinstance(each.get("path"), str)
    ]
    return Use(
        tool_of(call),
        kind=str(call.get("kind") or "other"),
        title=str(call.get("title") or ""),
        arguments=_object(call.get("rawInput")),
        paths=diffs or places,
    )


def _outcome(options: list[Mapping[str, Any]], decision: str) -> Mapping[str, Any]:
    """Choose among what the agent offers; where nothing fits, the call is cancelled."""
    for kind in KINDS[decision]:
        for each in options:
            if each.get("kind") == kind:
                return {"outcome": "selected", "optionId": each.get("optionId")}
    return {"outcome": "cancelled"}


def _tokens(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return counts in our words. Some count what came from a cache, and what was thought, apart."""
    names = ("inputTokens", "outputTokens", "cachedReadTokens", "cachedWriteTokens", "thoughtTokens")
    read, wrote, cached, kept, thought = (max(0, _number(usage.get(name))) for name in names)
    total = max(0, _number(usage.get("totalTokens")))
    if total > read + wrote and total >= read + wrote + cached + kept:
        read += cached + kept
    if total > read + wrote and total >= read + wrote + thought:
        wrote += thought
    more = {"cached": cached, "reasoning": thought}
    return {"input": read, "output": wrote, **{name: count for name, count in more.items() if count}}


def _model(found: Mapping[str, Any]) -> str | None:
    named = _object(found.get("models")).get("currentModelId")
    options = (each.get("currentValue") for each in _options(found) if each.get("category") == "model")
    return next((each for each in (*options, named) if isinstance(each, str)), None)


def _options(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return _objects(found.get("configOptions"))


def _words(error: Any) -> str:
    """Return what an error says, with its details."""
    found = _object(error)
    details = _object(found.get("data")).get("details")
    said = str(found.get("message") or error)
    return f"{said}: {details}" if isinstance(details, str) else said


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))


def _number(value: object) -> int:
    """Return a whole number, -1 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
