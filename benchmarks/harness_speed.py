"""What the harnesses cost: their share of a deploy, and reading what their programs write.

    python benchmarks/harness_speed.py [--slack 2] [--smoke] [--json]

A deploy with a harness is taken in turn with one of the harness `command` that starts the same program, a
shell that sleeps; beside it the harness's own code alone, with the files that it wants. Reading is timed
over plain lines, whose raw limit is to decode them, and over the recorded streams of each program, whose raw
limit is `json.loads` of the same lines. All that is judged is the processor's time, which other processes
of the machine lengthen least.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from figures import Figure, in_turn, main, median, p99, stretch, within
from grounds import Deployer, fleet, ground

from headcount.domain.options import Options
from headcount.harnesses.base import Harness
from headcount.harnesses.catalogue import HARNESSES
from tests.support.harness_facts import spec

CODE_MS = DEPLOY_MS = 5.0
MS_OF_A_MEGABYTE = 20.0
"""That is 50 megabytes a second."""
JSON_RATIO = 5.0
STREAMS = Path(__file__).parents[1] / "tests" / "data" / "streams"
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "COPILOT_GITHUB_TOKEN", "GH_TOKEN")
CLIS = tuple(
    name for name, each in HARNESSES.items() if each.probe and (STREAMS / f"{name}-work.jsonl").exists()
)


def figures(*, smoke: bool) -> Iterator[Figure]:
    rounds, megabytes = (2, 0.1) if smoke else (25, 3.0)
    with ground() as place:
        programs(place)
        yield from code(place, 2 if smoke else 200)
        yield from deploys(place, rounds)
    yield from reading(2 if smoke else 9, megabytes)


def programs(place: Path) -> None:
    """Put a program of each name into PATH, in a package that says which version it is."""
    package = place / "package"
    (package / "bin").mkdir(parents=True)
    versions = {"name": "all", "version": "99.0.0", "bin": {name: f"bin/{name}" for name in CLIS}}
    (package / "package.json").write_text(json.dumps(versions))
    for name in (*CLIS, "node"):
        program = package / "bin" / name
        program.write_text("#!/bin/sh\nexec sleep 600\n")
        program.chmod(0o755)
    os.environ.update(
        dict.fromkeys(KEYS, "x"), HOME=str(place), PATH=f"{package / 'bin'}:{os.environ['PATH']}"
    )


# ---------------------------------------------------------------- its share of a deploy


def code(place: Path, rounds: int) -> Iterator[Figure]:
    """Time check, command, and the files that it wants; all of them in turn."""
    acts = [Timed(launching(HARNESSES[name], place)) for name in CLIS]
    in_turn(acts, rounds)
    for name, act in zip(CLIS, acts, strict=True):
        found, most = median(act.taken), CODE_MS * stretch()
        yield Figure(
            f"harness {name}, its own code", found, p99(act.taken), "ms", None, "nothing", found, most, "ms"
        )


def launching(harness: Harness, place: Path) -> Callable[[], object]:
    prompt = "do this and that\n" * 200
    given = spec(place, prompt=prompt, env=dict(os.environ), run_path=str(place / "run" / harness.name))

    def launch() -> None:
        harness.check(prompt=prompt, command=(), options=Options())
        for name, content in harness.command(given).files.items():
            path = Path(given.run_path) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return launch


def deploys(place: Path, rounds: int) -> Iterator[Figure]:
    """Judge the processor's time of whoever deploys; what the machine does meanwhile hides it in the rest."""
    with fleet(place / "h") as opened:
        deployer = Deployer(opened, place)
        program = str(place / "package" / "bin" / "claude")
        acts = [Timed(lambda: deployer.deploy(program))]
        acts += [Timed(lambda name=name: deployer.deploy_with(name)) for name in CLIS]  # type: ignore[misc]
        plain, *walls = in_turn(acts, rounds, between=deployer.clear)
    bare, *theirs = [median(each.taken) for each in acts]
    for name, wall, ours in zip(CLIS, walls, theirs, strict=True):
        what, more = f"deploy of {name}, more than of command", ours - bare
        yield within(what, wall, DEPLOY_MS, raw=plain, raw_name="command", found=max(0.0, more))


class Timed:
    """An act, and the milliseconds of the processor that it took each time."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.taken: list[float] = []

    def __call__(self) -> None:
        began = time.process_time()
        self._act()
        self.taken.append((time.process_time() - began) * 1000)


# ---------------------------------------------------------------- reading


def reading(rounds: int, megabytes: float) -> Iterator[Figure]:
    for name, harness in HARNESSES.items():
        yield rate(f"{name} reads plain lines", harness, plain(megabytes), rounds)
    for name in CLIS:
        lines = recorded(name, megabytes)
        yield ratio(f"{name} reads its stream", HARNESSES[name], lines, rounds)


def rate(name: str, harness: Harness, lines: Sequence[bytes], rounds: int) -> Figure:
    """Judge milliseconds for a megabyte."""
    ours, bare = taken(harness.read, lines, rounds), taken(bytes.decode, lines, rounds)
    found, most = min(ours), MS_OF_A_MEGABYTE * stretch()
    return Figure(f"{name}, of a megabyte", found, p99(ours), "ms", min(bare), "decode", found, most, "ms")


def ratio(name: str, harness: Harness, lines: Sequence[bytes], rounds: int) -> Figure:
    ours, bare = taken(harness.read, lines, rounds), taken(loads, lines, rounds)
    found = min(ours) / min(bare)
    return Figure(
        f"{name}, of a megabyte", min(ours), p99(ours), "ms", min(bare), "json.loads", found, JSON_RATIO, "x"
    )


def taken(read: Callable[[bytes], object], lines: Sequence[bytes], rounds: int) -> list[float]:
    """Return milliseconds of the processor for a megabyte of these lines, for each round."""
    size = sum(map(len, lines)) / 1e6
    found = []
    for _ in range(rounds):
        began = time.process_time()
        for line in lines:
            read(line)
        found.append((time.process_time() - began) * 1000 / size)
    return found


def plain(megabytes: float) -> list[bytes]:
    words = (
        b"the quick brown fox jumps over the lazy dog, and goes on in the next line, as a compiler's words do"
    )
    return [b"%07d %b" % (number, words) for number in range(int(megabytes * 1e6 / (len(words) + 8)))]


def recorded(name: str, megabytes: float) -> list[bytes]:
    lines = [
        line for path in sorted(STREAMS.glob(f"{name}-*.jsonl")) for line in path.read_bytes().splitlines()
    ]
    return lines * max(1, int(megabytes * 1e6 / sum(map(len, lines))))


def loads(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main(figures, __doc__))
