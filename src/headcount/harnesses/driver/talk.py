"""What every protocol has in common: a conversation that takes lines and letters until it is over."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

from headcount.harnesses.driver.agent import Agent, write
from headcount.harnesses.driver.letters import Asks, Inbox, Letter
from headcount.harnesses.driver.policy import ALLOW, ASK, DENY, Policy, Use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WITHDRAWN = "withdrawn"
"""What becomes of a question when its turn is cancelled, besides ALLOW and DENY."""
STARTUP_S = 120.0
"""For the program to be ready for the prompt, on a machine that is busy."""
SAID_MAX = 100_000
"""Characters of the final answer that are kept."""

STATUSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(401|403)\b|authenticat|API key", re.IGNORECASE), "auth_failed"),
    (re.compile(r"\b(429|503|529)\b|rate.?limit|quota", re.IGNORECASE), "rate_limited"),
    (re.compile(r"\b(400|404|408|5\d\d)\b", re.IGNORECASE), "api_error"),
)


class Talk:
    """One conversation. A protocol says how it begins, reads a line, tells and cancels.

    `end` is how it is over, None while it goes on: outcome (completed, failed, cancelled), reason, ending
    (a word of `headcount.domain.account.Ending`) and what else is known.
    """

    def __init__(self, order: Mapping[str, Any], prompt: str, agent: Agent) -> None:
        self.order = order
        self.prompt = prompt
        self.agent = agent
        run_path = order["run_path"]
        self.inbox = Inbox(run_path)
        self.asks = Asks(run_path, order["ask_expiry"])
        self.policy = Policy(
            order["permissions"],
            cwd=order["cwd"],
            allowed=order["allowed_tools"],
            denied=order["denied_tools"],
        )
        self.end: dict[str, Any] | None = None
        self.ready = False  # the prompt has been given
        self.cancelled = False  # the last turn, by us
        self.session_id: str | None = None
        self._said: list[str] = []
        self._speaking = False
        self._asking: dict[str, tuple[Use, Callable[[str], None]]] = {}
        self._cancels: list[Letter] = []

    # what a protocol adds

    @property
    def busy(self) -> bool:
        """Whether a turn goes on."""
        raise NotImplementedError

    def begin(self) -> None:
        raise NotImplementedError

    def wants(self, message: Mapping[str, Any]) -> bool:
        """Say whether a line belongs into the output of this run."""
        return True

    def take(self, message: Mapping[str, Any]) -> None:
        """Take one line of the program, which is a JSON object."""
        raise NotImplementedError

    def tell(self, letters: list[Letter]) -> None:
        """Give the agent messages as one, in the middle of a turn or as the next one."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Ask the program to end the turn."""
        raise NotImplementedError

    def conclude(self) -> None:
        """The last turn is over and nothing waits: say how it ended, by `finish`."""
        raise NotImplementedError

    # what it can use

    def send(self, message: Mapping[str, Any]) -> None:
        self.agent.send(json.dumps(message).encode())

    def note(self, event: str, **facts: object) -> None:
        """Write a line of our own into the run's output."""
        known = {name: value for name, value in facts.items() if value is not None}
        write(json.dumps({"headcount": {"event": event, **known}}).encode() + b"\n")

    def finish(self, outcome: str, reason: str, **facts: object) -> None:
        """The conversation is over; the first word on that counts."""
        if self.end is None:
            self.end = {"outcome": outcome, "reason": reason, **facts}

    def fail(self, reason: str, ending: str | None = None) -> None:
        found = ending or next((word for words, word in STATUSES if words.search(reason)), "error")
        self.finish("failed", reason, ending=found)

    def say(self, text: str) -> None:
        """Keep what the agent says, as its answer unless it goes on to do something."""
        if not self._speaking:
            self._said = []
        self._speaking = True
        self._said.append(text)

    def do(self) -> None:
        """The agent does something: what it said before was not its answer."""
        self._speaking = False

    @property
    def said(self) -> str:
        return "".join(self._said)[:SAID_MAX]

    # letters

    def receive(self) -> None:
        """Take what has come in: letters, and answers to questions."""
        messages = []
        for letter in self.inbox.take():
            if letter.kind == "message":
                messages.append(letter)
            else:
                _RECEIVERS[letter.kind](self, letter)
        if messages and self.end is None:
            self.cancelled = False
            self.tell(messages)
        for name, allow, by, reason in list(self.asks.answered()):
            self.answer(name, ALLOW if allow else DENY, by=by, reason=reason)

    def told(self, letters: Iterable[Letter]) -> None:
        """Write down that letters are handed over; that they were taken is known later."""
        for letter in letters:
            self.note(letter.kind, id=letter.id, sender=letter.facts.get("sender"), text=letter.text or None)
        self.do()

    def delivered(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self.inbox.settle(letter.id, "delivered")

    def _cancel(self, letter: Letter) -> None:
        if not self.busy:
            self.inbox.settle(letter.id, "failed", "no turn goes on")
            return
        self._cancels.append(letter)
        self.told([letter])
        self.cancel()

    def _answer(self, letter: Letter) -> None:
        facts = letter.facts
        decision, by = ALLOW if facts.get("allow") is True else DENY, str(facts.get("sender") or "a person")
        known = self.answer(str(facts.get("ask")), decision, by=by, reason=letter.text)
        self.inbox.settle(letter.id, "delivered" if known else "failed", "" if known else "nobody asks that")

    def _end(self, letter: Letter) -> None:
        self.inbox.settle(letter.id, "delivered")
        if self.busy:
            self.cancel()
        self.finish("cancelled", "ended as asked", ending="stopped")

    def cancel(self) -> None:
        """End the turn, and with it what it asks."""
        self.cancelled = True
        for name, (_, reply) in list(self._asking.items()):
            self.asks.close(name, WITHDRAWN, reason="the turn was cancelled")
            reply(WITHDRAWN)
        self._asking.clear()
        self.interrupt()

    def turn_over(self) -> None:
        """A turn has ended: those who asked for that have it."""
        self.do()
        self.delivered(self._cancels)
        self._cancels.clear()

    # permissions

    def decide(self, use: Use, reply: Callable[[str], None]) -> None:
        """Decide on the use of a tool, now or when a person has: `reply` takes ALLOW, DENY or WITHDRAWN."""
        decision, why = self.policy.decide(use)
        if decision != ASK:
            self._decided(use, decision, why)
            reply(decision)
            return
        facts = {"tool": use.tool, "title": use.title, "kind": use.kind, "arguments": use.arguments}
        name = self.asks.put(facts)
        self._asking[name] = (use, reply)
        self.note("asked", id=name, tool=use.tool, title=use.title)

    def answer(self, name: str, decision: str, *, by: str, reason: str) -> bool:
        """Settle a question; return whether there was one. Without `by` nobody answered in time."""
        use, reply = self._asking.pop(name, (None, None))
        if use is None or reply is None:
            return False
        state = "expired" if not by else "allowed" if decision == ALLOW else "denied"
        self.asks.close(name, state, by=by, reason=reason)
        said = f"answered by {by}" + (f": {reason}" if reason else "")
        self._decided(use, decision, said if by else "nobody answered in time")
        reply(decision)
        return True

    def _decided(self, use: Use, decision: str, why: str) -> None:
        self.note("allowed" if decision == ALLOW else "denied", tool=use.tool, title=use.title, why=why)


def words_of(letters: Iterable[Letter]) -> str:
    """Return what an agent reads: a person's words as they are, those of another agent with its name."""
    parts = []
    for each in letters:
        sender = each.facts.get("sender")
        parts.append(f"Message from {sender}:\n{each.text}" if sender else each.text)
    return "\n\n".join(parts)


_RECEIVERS: Mapping[str, Callable[[Talk, Letter], None]] = {
    "cancel": Talk._cancel,  # noqa: SLF001  # a class's own table
    "answer": Talk._answer,  # noqa: SLF001
    "end": Talk._end,  # noqa: SLF001
}
