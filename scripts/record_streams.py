"""Records what the real agent CLIs print, for tests that read it: tests/data/streams/CLI-CASE.jsonl.

`python scripts/record_streams.py [CLI...] [--case CASE]` runs them against the scripted model; it takes some
minutes, as a few try again for long. What differs from run to run (ids, times, paths, ports) is made neutral.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support import agent_clis, agent_runs, leftovers, streams
from tests.support.agent_clis import AgentCli
from tests.support.model_server import ModelServer, Step, play
from tests.support.waiting import until

PATIENCE: Final = 300
"""Seconds for a run. Qwen Code and OpenCode try a broken server again for more than one minute."""

MCP: Final[Step] = {
    "mcp": {
        "server": agent_runs.SERVER,
        "tool": "update_agent_progress",
        "arguments": {"status": "at work"},
    }
}
DONE: Final[Step] = {"text": "All is done.", "usage": {"input_tokens": 70, "output_tokens": 30}}


def _work(cli: str) -> Sequence[Step]:
    """Return a turn with all that agents do: think, a command that works, one that fails, edits, a report."""
    return [
        {"think": "First I look.", "text": "I look around.", "bash": "echo here; ls"},
        {"bash": "echo broken >&2; exit 3"},
        {"write": {"path": "{work}/made.txt", "content": "by an agent\n"}},
        {"read": "{work}/old.txt"},
        {"edit": {"path": "{work}/old.txt", "old": "two", "new": "three"}},
        *([] if cli == "pi" else [MCP]),
        DONE,
    ]


CASES: Final[Mapping[str, Sequence[Step]]] = {
    "unauthorised": [{"status": 401, "message": "no such key"}],
    "invalid": [{"status": 400, "message": "prompt is too long"}],
    "limited": [{"status": 429, "retry_after": 1, "message": "slow down"}],
    "limited-once": [
        {"status": 429, "retry_after": 1, "times": 1, "message": "slow down", "text": "Better."}
    ],
    "broken": [{"status": 500, "message": "it is us"}],
    "cut": [{"text": "These words are cut off in the middle of what they say.", "cut": True}],
    "max-tokens": [{"text": "These words are", "stop": "max_tokens"}],
    "refusal": [{"text": "I will not.", "stop": "refusal"}],
}
"""What a script is enough for; the others are runs of their own kind."""


@dataclass(frozen=True)
class Place:
    """Where one CLI is recorded, with all that its runs leave."""

    cli: AgentCli
    root: Path
    server: ModelServer

    def work(self) -> Path:
        """Return a directory as each run finds it."""
        work = self.root / "work"
        work.mkdir(exist_ok=True)
        (work / "made.txt").unlink(missing_ok=True)
        (work / "old.txt").write_text("one\ntwo\n")
        return work


@dataclass(frozen=True)
class Ran:
    """What a run gave, as it came."""

    code: int
    out: bytes
    err: bytes


def run(
    place: Place,
    steps: Sequence[Step],
    *,
    mcp: bool = False,
    resume: str | None = None,
    allowed: bool = True,
) -> Ran:
    prompt = f"Do as the script says. {play(steps)}".replace("{work}", str(place.work()))
    process = agent_runs.start(place.cli, place.work(), prompt, mcp=mcp, resume=resume, allowed=allowed)
    return finish(place, process, PATIENCE)


def finish(place: Place, process: subprocess.Popen[bytes], patience: float) -> Ran:
    """Wait for a run; what does not end in time is killed, with all that it has started."""
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        leftovers.end_all(place.root)
        out, err = process.communicate(timeout=20)
    leftovers.end_all(place.root)
    return Ran(process.returncode, out, err)


def terminated(place: Place) -> Ran:
    """Send SIGTERM to an agent whose command is at work."""
    begun = place.work() / "begun"
    steps: Sequence[Step] = [{"text": "I wait.", "bash": f"sleep 1; touch {begun}; tail -f /dev/null"}]
    process = agent_runs.start(place.cli, place.work(), play(steps))
    until(begun.exists, what="its command runs", patience=60)
    process.send_signal(signal.SIGTERM)
    ran = finish(place, process, 5)
    begun.unlink()
    return ran


def resumed(place: Place) -> Ran:
    """Go on with a conversation that is over."""
    first = run(place, [{"text": "This is the first turn."}])
    return run(
        place, [{"bash": "echo again"}, {"text": "This is the second turn."}], resume=session(first.out)
    )


def session(output: bytes) -> str:
    """Return the id of the conversation, in whatever words the CLI says it."""
    for line in output.splitlines():
        event = json.loads(line)
        for key in ("session_id", "thread_id", "sessionID", "sessionId"):
            if key in event:
                return str(event[key])
        if event.get("type") == "session":
            return str(event["id"])
    raise ValueError("no session in what it printed")


def record(place: Place, case: str) -> Ran:
    match case:
        case "work":
            return run(place, _work(place.cli.name), mcp=place.cli.name != "pi")
        case "not-allowed":
            write: Step = {"write": {"path": "{work}/made.txt", "content": "by an agent\n"}}
            return run(place, [{"bash": "touch made.txt"}, write, DONE], allowed=False)
        case "resumed":
            return resumed(place)
        case "terminated":
            return terminated(place)
        case _:
            return run(place, CASES[case])


# ---------------------------------------------------------------- made neutral

UUID: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[1-9a-f][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")
OWN_ID: Final = re.compile(r"\b((?:ses|prt|msg|evt|req|perm)_|chatcmpl-)[0-9A-Za-z]{16,}\b")
CALL_ID: Final = re.compile(r"(script_|search_)([0-9a-f]{6})_")
SHORT_ID: Final = re.compile(r'"(id|parentId|pid)":"([0-9a-f]{8})"')
ISO: Final = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
HTTP_DATE: Final = re.compile(r"\b\w{3}, \d\d \w{3} 20\d\d \d\d:\d\d:\d\d GMT")
EPOCH: Final = re.compile(r"\b1[6-9]\d{11}\b")
LONG: Final = re.compile(r"\b[A-Za-z0-9+/=_-]{300,}")


def neutral(text: str, place: Place) -> str:
    """Return what was printed as if it had been on another machine at another time."""
    paths = {
        str(place.root / "work"): "/work",
        str(place.cli.home): "/home/user",
        str(agent_clis.CACHE): "/opt",
        str(agent_clis.ROOT): "/opt/headcount",
        sys.executable: "/usr/bin/python3",
        place.server.url.removeprefix("http://"): "127.0.0.1:8000",
        str(place.root): "/tmp",
    }
    for path, instead in paths.items():
        text = text.replace(path, instead).replace(path.lstrip("/"), instead.lstrip("/"))
        text = text.replace(re.sub(r"\W|_", "-", path), instead.replace("/", "-"))  # Claude Code's folders
    seen: dict[str, str] = {}
    text = UUID.sub(lambda found: _numbered(found[0], "00000000-0000-4000-8000-{:012d}", seen), text)
    text = OWN_ID.sub(lambda found: _numbered(found[0], found[1] + "{:022d}", seen), text)
    text = CALL_ID.sub(r"\g<1>000000_", text)
    text = SHORT_ID.sub(lambda found: f'"{found[1]}":"{_numbered(found[2], "{:08d}", seen)}"', text)
    text = HTTP_DATE.sub("Tue, 01 Jan 2030 00:00:00 GMT", text)
    text = ISO.sub("2030-01-01T00:00:00.000Z", EPOCH.sub("1893456000000", text))
    text = re.sub(r"(PGID: |\(pid |\"pid\":\s*|localPort: |remotePort: |cc-socks/)\d+", r"\g<1>4711", text)
    return LONG.sub("(long)", text)


def _numbered(found: str, form: str, seen: dict[str, str]) -> str:
    return seen.setdefault(found, form.format(len(seen) + 1))


def keep(place: Place, case: str, ran: Ran, version: str) -> None:
    """Write a recording, and how the run ended into the index."""
    name = f"{place.cli.name}-{case}"
    streams.FOLDER.mkdir(parents=True, exist_ok=True)
    (streams.FOLDER / f"{name}.jsonl").write_text(neutral(ran.out.decode(), place))
    index: dict[str, Any] = json.loads(streams.INDEX.read_text()) if streams.INDEX.exists() else {}
    index[name] = {
        "version": version,
        "code": ran.code if ran.code >= 0 else None,
        "signal": -ran.code if ran.code < 0 else None,
        "stderr": neutral(ran.err.decode(), place)[-600:],
    }
    streams.INDEX.write_text(json.dumps(dict(sorted(index.items())), indent=1) + "\n")


def version_of(cli: AgentCli) -> str:
    argv = [str(cli.program), "--version"]
    said = subprocess.run(argv, env=cli.env, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def main() -> None:
    every = ["work", "not-allowed", "resumed", "terminated", *CASES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clis", nargs="*", default=agent_clis.NAMES, metavar="CLI")
    parser.add_argument("--case", choices=every, action="append")
    asked = parser.parse_args()
    for name in asked.clis:
        with tempfile.TemporaryDirectory(prefix="hcr-") as root, ModelServer() as server:
            cli = agent_clis.set_up(name, home=Path(root) / "home", url=server.url)
            place, version = Place(cli, Path(root), server), version_of(cli)
            for case in asked.case or every:
                ran = record(place, case)
                keep(place, case, ran, version)
                print(f"{name}-{case}: {ran.code}, {len(ran.out)} bytes", flush=True)


if __name__ == "__main__":
    main()
