"""Run the README's verification block against a live fleet, exactly as it stands there.

The block is the first fenced one of README.md that prints a line `Diff:`. With three agents running it must
say that the registry and tmux both count three; with none, that both count none.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
AGENTS = 3
PATIENCE = 15.0
"""Seconds for views, which come beside a deploy, to be there, and after a halt to be gone."""


def main() -> int:
    block = verification_block((REPOSITORY / "README.md").read_text())
    try:
        with tempfile.TemporaryDirectory(prefix="hc-") as project:
            deploy(project)
            await_count(block, AGENTS)
            headcount("halt")
            headcount("halt", "--release")
            await_count(block, 0)
    finally:
        leave_nothing()
    print(f"the README's verification block is right, with {AGENTS} agents and with none")
    return 0


def verification_block(readme: str) -> str:
    """Return the shell commands of the block.

    Raises:
        SystemExit: the README has no such block.
    """
    for block in re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL):
        if "Diff:" in block:
            return str(block)
    raise SystemExit("README.md has no fenced shell block that prints 'Diff:'")


def deploy(project: str) -> None:
    task = json.loads(headcount("task", "create", "Check the README", "--project", project, "--json"))
    for number in range(AGENTS):
        command = ("deploy", task["task_id"], "--role", f"sleeper-{number}", "--harness", "command", "--json")
        print(json.loads(headcount(*command, "--", "sleep", "300"))["agent_id"])


def await_count(block: str, count: int) -> None:
    """Run the block until it counts `count` twice and no difference."""
    deadline = time.monotonic() + PATIENCE
    while True:
        ran = subprocess.run(["bash", "-c", block], capture_output=True, text=True, timeout=60, check=False)
        numbers = {name: number(name, ran.stdout) for name in ("Registry", "Tmux", "Diff")}
        if ran.returncode == 0 and numbers == {"Registry": count, "Tmux": count, "Diff": 0}:
            print(ran.stdout.strip())
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"wanted {count} agents, the block said:\n{ran.stdout}{ran.stderr}")
        time.sleep(0.2)


def leave_nothing() -> None:
    """End agents, daemon and the view server, which stays when its last session is gone."""
    socket = json.loads(headcount("doctor", "--json", accept=(0, 1)))["tmux_socket"]
    headcount("halt")
    headcount("down")
    subprocess.run(["tmux", "-S", socket, "kill-server"], capture_output=True, timeout=10, check=False)


def number(name: str, text: str) -> int | None:
    found = re.search(rf"\b{name}: *(-?\d+)", text)
    return int(found[1]) if found else None


def headcount(*arguments: str, accept: tuple[int, ...] = (0,)) -> str:
    command = [str(REPOSITORY / ".venv" / "bin" / "headcount"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode not in accept:
        raise SystemExit(f"headcount {' '.join(arguments)}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


if __name__ == "__main__":
    if "HEADCOUNT_HOME" not in os.environ:
        raise SystemExit(
            "set HEADCOUNT_HOME to an empty directory: this halts every agent that it finds there"
        )
    sys.exit(main())
