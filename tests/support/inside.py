"""An agent whose shell does what a test tells it, so that commands run within an agent's tree."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from tests.support.commands import Ran, answer
from tests.support.waiting import until

_LOOP = """
exec 3<>"$1/told"
while read -r n <&3; do
    sh "$1/$n.sh" >"$1/$n.out" 2>"$1/$n.err"
    echo $? >"$1/$n.new" && mv "$1/$n.new" "$1/$n.code"
done
"""


class Shell:
    """A live agent; at the end of the test somebody must end it."""

    def __init__(self, task: str, role: str, place: Path, *options: str) -> None:
        self._place = place / f"shell-{role}"
        self._place.mkdir()
        os.mkfifo(self._place / "told")
        self._number = 0
        self.facts: dict[str, Any] = answer(
            "deploy", task, "--role", role, *options, "--", "sh", "-c", _LOOP, "sh", str(self._place)
        )
        self.agent_id: str = self.facts["agent_id"]

    def run(self, *command: str, patience: float = 60.0) -> Ran:
        """Run a command in the agent's tree, to its end."""
        self._number += 1
        (self._place / f"{self._number}.sh").write_text(shlex.join(command) + "\n")
        with open(self._place / "told", "w") as told:
            told.write(f"{self._number}\n")
        code = self._place / f"{self._number}.code"
        until(code.exists, what=f"the end of {command}", patience=patience)
        out, err = ((self._place / f"{self._number}.{name}").read_text() for name in ("out", "err"))
        return Ran(int(code.read_text()), out, err)

    def headcount(self, *args: str, patience: float = 60.0) -> Ran:
        """Run `headcount ARGS --json` in the agent's tree."""
        at = args.index("--") if "--" in args else len(args)
        return self.run("headcount", *args[:at], "--json", *args[at:], patience=patience)
