"""The driver's program: `python -I -S main.py RUN_PATH/driver.json`, with the prompt on stdin.

It starts the agent program, passes on all that this writes, and lives until the conversation is over. Nobody
else takes part in it: the daemon may die and come back meanwhile. Standard library only.

driver.json is an object: protocol, argv, run_path, cwd, permissions, allowed_tools, denied_tools, ask_expiry
(seconds), and what the protocol needs besides.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

if __name__ == "__main__":  # isolated, it knows only the standard library; ours comes last
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "..")))

from headcount.harnesses.driver.acp import Acp
from headcount.harnesses.driver.agent import SIGNALLED, Agent, write
from headcount.harnesses.driver.claude import Claude
from headcount.harnesses.driver.codex import Codex
from headcount.harnesses.driver.pi import Pi
from headcount.harnesses.driver.talk import STARTUP_S, Talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType
    from typing import Any

POLL_S = 0.25
"""Between looks for letters and answers."""
CANCEL_S = 2.0
"""For a turn to end when we are told to."""
CLOSE_S = 3.0
"""For a program to end when its input has, and once more when it was asked to by a signal."""
CANNOT_START = 127

PROTOCOLS: Mapping[str, type[Talk]] = {"acp": Acp, "claude": Claude, "codex": Codex, "pi": Pi}


class Driver:
    """Brings the program, the run directory and the conversation together."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.agent = talk.agent
        self._told: float | None = None  # when we were told to end
        for number in (signal.SIGINT, signal.SIGTERM):  # with the first, our program has not been told yet
            signal.signal(number, self._on_end)

    def _on_end(self, _number: int, _frame: FrameType | None) -> None:
        if self._told is None:
            self._told = time.monotonic()

    def run(self) -> int:
        """Hold the conversation to its end; return our exit code."""
        started = time.monotonic()
        self.talk.begin()
        interrupted = False
        while self.talk.end is None:
            self._wait()
            for line in self.agent.lines():
                self._take(line)
            if self._told is not None and not interrupted:
                interrupted = True
                self._interrupt()
            self._step(started)
        return self._close(self.talk.end)

    def _wait(self) -> None:
        poll = select.poll()
        if self.agent.reading:
            poll.register(self.agent.stdout, select.POLLIN)
        if self.agent.writing:
            poll.register(self.agent.stdin, select.POLLOUT)
        poll.poll(POLL_S * 1000)
        self.agent.flush()

    def _take(self, line: bytes) -> None:
        message = load(line)
        if message is None or self.talk.wants(message):
            write(line + b"\n")
        if message is not None and self.talk.end is None:
            self.talk.take(message)

    def _interrupt(self) -> None:
        if self.talk.busy:
            self.talk.cancel()

    def _step(self, started: float) -> None:
        """See what has come to pass: letters, an end of the program, of our time, or of all turns."""
        talk, now = self.talk, time.monotonic()
        if self._told is None:
            talk.receive()
        if self._told is not None and (not talk.busy or now > self._told + CANCEL_S):
            talk.finish("cancelled", "told to end", ending="stopped")
        elif self.agent.ended() and not self._rest():
            talk.fail(f"the agent ended in the middle of its work (exit code {self.agent.code})", "error")
        elif not talk.ready and now > started + STARTUP_S:
            talk.fail(f"the agent was not ready within {STARTUP_S:.0f} s", "error")
        elif talk.ready and not talk.busy:
            talk.receive()  # what came while the last turn ended
            if not talk.busy:
                talk.conclude()

    def _rest(self) -> bool:
        """Take the last words of a program that has ended; say whether they ended the conversation."""
        for line in self.agent.lines():
            self._take(line)
        return self.talk.end is not None or (self.talk.ready and not self.talk.busy)

    def _close(self, end: Mapping[str, Any]) -> int:
        """End the program and say how it all ended, as the last word: it may write much when its input ends.
        With what code it ends then says nothing; that of one that ended before it was told to does."""
        talk, own = self.talk, self.agent.code
        for name in list(talk.asks.open()):
            talk.asks.close(name, "withdrawn", reason="the run is over")
        last = {**end, "session_id": talk.session_id, "text": talk.said or None}
        if self._told is not None:  # there may be no time for more
            talk.note("end", **last)
        self._end_agent()
        if self._told is not None:
            return own or SIGNALLED + signal.SIGTERM
        talk.note("end", **last)
        return own or int(end["outcome"] == "failed")

    def _end_agent(self) -> None:
        """End the program: by the end of its input, then by signals."""
        self.agent.flush()
        self.agent.close()
        if self.agent.wait(0.0 if self._told is not None else CLOSE_S, self._take):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.agent.signal(number)
            if self.agent.wait(CLOSE_S, self._take):
                return


def load(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a line is, or None."""
    if line[:1] != b"{":
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def main(argv: Sequence[str]) -> int:
    with open(argv[1], encoding="utf-8") as file:
        order = json.load(file)
    prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    try:
        agent = Agent(order["argv"])
    except OSError as error:
        sys.stderr.write(f"{order['argv'][0]} cannot be started: {error.strerror}\n")
        return CANNOT_START
    return Driver(PROTOCOLS[order["protocol"]](order, prompt, agent)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
