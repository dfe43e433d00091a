"""Each kind of side effect has its place. What stands elsewhere is listed here, with the reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import source
from tests.support.source import Place, Use


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of thing, how it is recognised in one file, and where it may stand."""

    name: str
    find: Callable[[str, Path], Iterator[Use]]
    places: tuple[Place, ...]


def using(pattern: str) -> Callable[[str, Path], Iterator[Use]]:
    """Find names such as `os.environ`, however they were imported."""
    compiled = re.compile(pattern)

    def find(file: str, root: Path) -> Iterator[Use]:
        return (use for use in source.names(file, root) if compiled.fullmatch(use.name))

    return find


def importing(pattern: str) -> Callable[[str, Path], Iterator[Use]]:
    """Find imports by their full name."""
    compiled = re.compile(pattern)

    def find(file: str, root: Path) -> Iterator[Use]:
        return (use for use in source.imports(file, root) if compiled.fullmatch(use.name))

    return find


def saying(pattern: str) -> Callable[[str, Path], Iterator[Use]]:
    """Find string constants; docstrings are not among them."""
    compiled = re.compile(pattern)

    def find(file: str, root: Path) -> Iterator[Use]:
        return (use for use in source.texts(file, root) if compiled.match(use.name))

    return find


def _async_functions(file: str, root: Path) -> Iterator[Use]:
    for node in ast.walk(source.tree(file, root)):
        if isinstance(node, ast.AsyncFunctionDef):
            yield Use(file, node.lineno, f"async def {node.name}")


SQL = r"(?s)\s*(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+\w+\s)"
SQL += r"|\s*(PRAGMA\s+\w|BEGIN(\s+IMMEDIATE)?\s*;?\s*$|ROLLBACK\s*;?\s*$|COMMIT\s*;?\s*$)"

DEMO = Place("doors/demo/*", "plays its user, who starts commands, kills an agent and counts processes")

AUDIT = Place(
    "doors/audit/*", "proves by what happens: starts processes, kills them, reads a trace, measures"
)

PROGRAMS = (
    Place(
        "runtimes/runner.py", "a program of its own: a process beside each agent, with the standard library"
    ),
    Place("harnesses/script_agent.py", "a program of its own: the agent of the `script` harness"),
    Place("harnesses/driver/*", "a program of its own: holds a conversation with an agent program open"),
    Place("harnesses/gemini_home.py", "a program of its own: makes a home, then becomes Gemini CLI"),
    Place("doors/mcp/bridge*.py", "a program of its own: stdio to HTTP, beside each client"),
    Place("daemon/*", "a program of its own: the one long-lived process"),
)


def programs(*names: str) -> tuple[Place, ...]:
    """Return those of the programs that do it."""
    return tuple(place for place in PROGRAMS if any(name in place.files for name in names))


RULES = (
    Rule("SQL", saying(SQL), (Place("store/*", "the store is where SQL is"), AUDIT)),
    Rule(
        "the database driver",
        importing(r"sqlite3(\..*)?"),
        (
            Place("store/*", "the store is where SQL is"),
            Place("services/doctor.py", "says which SQLite this is"),
        ),
    ),
    Rule(
        "starting processes",
        using(
            r"subprocess\.(run|Popen|call|check_call|check_output|getoutput|getstatusoutput)"
            r"|(os|posix)\.(fork|forkpty|system|popen|posix_spawnp?|exec[lv]\w*|spawn\w+)"
            r"|asyncio\.create_subprocess_\w+|multiprocessing\..*|pty\..*"
        ),
        (
            Place("runtimes/*", "the runtimes act on processes"),
            *programs("script_agent", "gemini_home", "harnesses/driver"),
            DEMO,
            AUDIT,
            Place("daemon/start.py", "starts the daemon, detached"),
            Place("daemon/accounts.py", "reads long output in a process of its own"),
            Place("doors/cli/programs.py", "tmux to attach, a client's own command to connect"),
        ),
    ),
    Rule(
        "sending signals",
        using(r"(os|posix)\.(kill|killpg)|signal\.(pidfd_send_signal|pthread_kill|raise_signal)"),
        (
            Place("runtimes/*", "the runtimes act on processes"),
            *programs("harnesses/driver"),
            DEMO,
            AUDIT,
            Place("daemon/start.py", "asks the daemon to end"),
        ),
    ),
    Rule(
        "the time of day",
        using(
            r"time\.(time|clock_gettime)(_ns)?|time\.ctime"
            r"|datetime\.(datetime\.(now|utcnow|today)|date\.today)"
        ),
        (
            Place("bootstrap.py", "gives everyone the time"),
            *programs("runner", "harnesses/driver"),
            Place("runtimes/local.py", "stamps a void record in place of the runner that never was"),
            Place("doors/cli/terminal.py", "what a person sees: the age of an agent"),
        ),
    ),
    Rule(
        "waiting",
        using(r"time\.(sleep|monotonic(_ns)?|perf_counter(_ns)?)"),
        (
            Place("bootstrap.py", "gives everyone a clock that nobody sets, and a pause between two looks"),
            Place("runtimes/*", "acts on processes: each wait has a condition and a bound"),
            *programs("script_agent", "bridge", "harnesses/driver"),
            DEMO,
            AUDIT,
            Place("client.py", "the daemon answers in time, or has failed"),
            Place("daemon/start.py", "the same, for one that has just been started"),
            Place("doors/cli/terminal.py", "a live view draws again after a while"),
        ),
    ),
    Rule(
        "chance",
        using(r"(random|secrets|uuid)\.\w+|os\.urandom|os\.getrandom"),
        (
            Place("bootstrap.py", "gives everyone the dice"),
            Place("client.py", "the key of a call that may be sent twice"),
            Place("runtimes/gate.py", "those who wait together come back apart"),
            *programs("bridge", "daemon", "harnesses/driver"),
        ),
    ),
    Rule(
        "the environment",
        using(r"os\.(environb?|getenvb?|putenv|unsetenv)(\..*)?|posix\.environ(\..*)?"),
        (
            Place("bootstrap.py", "reads it once for everyone"),
            Place("config.py", "where the home and the runtime directory are"),
            *programs("script_agent", "gemini_home", "bridge", "daemon", "harnesses/driver"),
            DEMO,
            AUDIT,
            Place("doors/cli/edge.py", "the entrance: shell completion asks through it"),
            Place("doors/cli/terminal.py", "NO_COLOR and TERM"),
        ),
    ),
    Rule(
        "printing",
        using(r"print|sys\.(stdout|__stdout__)(\..*)?"),
        (Place("doors/*", "doors print"), *programs("script_agent")),
    ),
    Rule(
        "concrete runtimes and harnesses",
        importing(r"headcount\.(runtimes|harnesses)\.(?!(base|abilities)\b).*"),
        (
            Place("bootstrap.py", "the composition root picks them"),
            Place("runtimes/*", "their own package"),
            Place("harnesses/*", "their own package"),
            Place("daemon/*", "watches the files of local runs and writes their transcripts"),
        ),
    ),
    Rule(
        "async functions",
        _async_functions,
        (
            Place("doors/mcp/*", "the protocol library is asynchronous"),
            Place("doors/http/*", "the server is asynchronous"),
            Place("daemon/*", "its loop waits for many things"),
        ),
    ),
)


def found(rule: Rule, root: Path = source.PACKAGE) -> list[Use]:
    return [use for file in source.files(root) for use in rule.find(file, root)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_side_effect_stands_in_its_place(rule: Rule) -> None:
    elsewhere = source.misplaced(found(rule), rule.places)
    assert not elsewhere, "\n".join([f"{rule.name} in the wrong place:", *elsewhere])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_exception_is_still_needed(rule: Rule) -> None:
    assert source.idle(found(rule), rule.places) == []


BREAKS = {
    "SQL": 'db.execute(f"SELECT id FROM agent WHERE id = {x}")',
    "the database driver": "from sqlite3 import connect",
    "starting processes": "import subprocess as sp\nsp.run(['true'])",
    "sending signals": "from os import kill\nkill(1, 9)",
    "the time of day": "from datetime import datetime\ndatetime.now()",
    "waiting": "from time import sleep as pause\npause(1)",
    "chance": "import random\nrandom.random()",
    "the environment": "from os import environ\nenviron.get('HOME')",
    "printing": "print('here')",
    "concrete runtimes and harnesses": "from headcount.runtimes.local import LocalPlacement",
    "async functions": "async def fetch(): ...",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_side_effect_elsewhere_is_found(rule: Rule, tmp_path: Path) -> None:
    (tmp_path / "domain").mkdir()
    (tmp_path / "domain" / "bad.py").write_text(
        '"""SELECT a FROM b: a docstring may."""\n' + BREAKS[rule.name]
    )
    uses = found(rule, tmp_path)
    assert {use.file for use in uses} == {"domain/bad.py"}
    assert source.misplaced(uses, rule.places)


def test_no_module_is_named_for_nothing() -> None:
    """A file is named for the one idea in it."""
    vague = re.compile(r"(utils?|helpers?|managers?|common|misc|stuff)\.py")
    assert [file for file in source.files() if vague.fullmatch(Path(file).name)] == []
