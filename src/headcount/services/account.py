"""Make the account of a run that is over: what it used and did, read from its whole output, once.

The output may have two hundred megabytes, so no transaction is open and no loop waits meanwhile. Killed at
any step, the account is made by whoever comes next: that a run has none is in the registry.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from headcount.domain.account import Account, Tally
from headcount.domain.entries import EntryKind
from headcount.domain.errors import HeadcountError, Infrastructure, InvalidInput
from headcount.domain.lines import LINE_MAX, Line, count_lines, forward
from headcount.domain.model import Form, Run, RunKey
from headcount.domain.prices import Price, cost, parse_prices
from headcount.harnesses.base import Harness
from headcount.runtimes.base import OutputSlice
from headcount.services import worktrees
from headcount.services.context import Context

HEAD: Final = 256 * 1024
"""Bytes in which a program names its conversation; all of the known ones do so in their first lines."""
A_FEW: Final = 5
"""Accounts that a headcount without a daemon makes."""


def make(context: Context, key: RunKey) -> Mapping[str, Any] | None:
    """Return the account of a run, made now if it has none; None for one that is live or not there.

    Raises:
        InvalidInput: it needs the price table, which has an error. The next try makes it.
    """
    with context.registry.read() as tx:
        run = tx.runs.get(key.agent_id, key.n)
    if run is None or run.live or run.account is not None:
        return run.account if run else None
    made = _priced(context, run, _account(context, run))
    facts = asdict(made)
    with context.registry.write("account") as tx:
        tx.runs.set_account(key, facts, session_id=made.session_id)
    worktrees.note(context, key)
    return facts


def make_some(context: Context, most: int = A_FEW) -> int:
    """Make accounts that are still to be made, the latest first; return how many could be made."""
    with context.registry.read() as tx:
        keys = tx.runs.unaccounted(most)
    return sum(_could(context, key) for key in keys)


def _could(context: Context, key: RunKey) -> bool:
    try:
        return make(context, key) is not None
    except HeadcountError:  # what is wrong is said by 'headcount show' and doctor
        return False


def _account(context: Context, run: Run) -> Account:
    harness = context.harness(run.read_by)

    def read(offset: int, limit: int) -> OutputSlice:
        return context.placement.read_output(run.path, offset=offset, limit=limit)

    end = read(0, 1).end
    if not harness.renders:  # plain text, of which there is nothing to learn
        lines, size = count_lines(read, 0, end)
        return Account(session_id=run.session_id, lines=lines, entries=lines, cut=end - size)
    counted = _Lines()
    tally = Tally()
    for line in forward(read, 0, end):
        counted.add(line)
        for entry in harness.read(line.data):
            tally.add(entry)
    made = tally.account(before=_before(context, run))
    return replace(made, **counted.facts(end))


class _Lines:
    """Counts what the raw lines are like."""

    def __init__(self) -> None:
        self._lines = self._oversized = self._torn = self._invalid = self._size = self._at = 0

    def add(self, line: Line) -> None:
        self._lines += 1
        self._oversized += line.size > LINE_MAX
        self._torn += not line.terminated or line.start != self._at
        self._invalid += not line.data.isascii() and not _is_utf8(line.data)
        self._size += line.end - line.start
        self._at = line.end

    def facts(self, end: int) -> dict[str, Any]:
        return {
            "lines": self._lines,
            "oversized": self._oversized,
            "torn": self._torn,
            "invalid": self._invalid,
            "cut": end - self._size,
        }


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _before(context: Context, run: Run) -> Mapping[str, float] | None:
    """Return what the conversation had used before this run; None if that cannot be known any more."""
    if run.resumes is None:
        return {}
    with context.registry.read() as tx:
        before = tx.runs.get(run.key.agent_id, run.resumes)
    if before is not None and before.form is Form.INTERACTIVE:
        return None  # a terminal shows no numbers
    account = make(context, RunKey(run.key.agent_id, run.resumes))
    return None if account is None else account["session_usage"]


# ---------------------------------------------------------------- what it cost


def _priced(context: Context, run: Run, made: Account) -> Account:
    """Return it with its cost by the user's prices, where the program tells none: those of the model that was
    really used, or of the one that was asked for where the program names none."""
    model = made.model or run.options.get("model")
    if made.cost_usd is not None or not isinstance(model, str):
        return made
    dollars = cost(prices(context), model, input=made.input, output=made.output, cached=made.cached)
    return made if dollars is None else replace(made, cost_usd=dollars, cost_from="prices")


def prices(context: Context) -> tuple[Price, ...]:
    """Return the user's price table; empty if there is none.

    Raises:
        InvalidInput: it is not TOML, or a line of it is not a price.
        Infrastructure: it cannot be read.
    """
    file = context.home.prices
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise Infrastructure(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidInput(f"{file} is not valid TOML: {error}", hint="see docs/settings.md") from error
    return parse_prices(found, source=str(file))


# ---------------------------------------------------------------- which conversation it is


def conversation(context: Context, run: Run) -> str | None:
    """Return the conversation that a run is, from the registry, else from the head of its output, and
    then recorded; None if it is not known (yet)."""
    if run.session_id is not None:
        return run.session_id
    harness = context.harness(run.read_by)
    head = context.placement.read_output(run.path, offset=0, limit=HEAD)
    found = _named(harness, head.data) if harness.renders else None
    if found is not None:
        with context.registry.write("session") as tx:
            tx.runs.know_session(run.key, found)
    return found


def _named(harness: Harness, head: bytes) -> str | None:
    *whole, _ = head.split(b"\n")
    for line in whole:
        for entry in harness.read(line):
            named = entry.data.get("session_id") if entry.kind is EntryKind.SESSION else None
            if isinstance(named, str) and named:
                return named
    return None
