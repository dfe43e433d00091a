"""What one run used and did, folded from its entries, and the end of it in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from headcount.domain.entries import Entry, EntryKind, UsageScope
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord

FILES_MAX: Final = 200
"""Changed files that are named; all are counted."""
TEXT_MAX: Final = 100_000
"""Characters of a final answer that are kept."""
TOKENS: Final = ("input", "output", "cached", "reasoning")
NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


class Ending(StrEnum):
    """How a run's work ended, in a word."""

    FINISHED = "finished"
    STOPPED = "stopped"  # as asked
    KILLED = "killed"  # by a signal that we did not send
    TURN_LIMIT = "turn_limit"
    TOKEN_LIMIT = "token_limit"  # noqa: S105  # a limit of the model's answer or context
    BUDGET = "budget"
    REFUSED = "refused"  # by the model
    RATE_LIMITED = "rate_limited"
    AUTH_FAILED = "auth_failed"
    API_ERROR = "api_error"
    BAD_RESULT = "bad_result"  # the answer is not what the schema asks for
    ERROR = "error"  # anything else that went wrong
    NOT_STARTED = "not_started"


_ENDINGS: Final[Mapping[Outcome, Ending]] = {
    Outcome.COMPLETED: Ending.FINISHED,
    Outcome.FAILED: Ending.ERROR,
    Outcome.STOPPED: Ending.STOPPED,
    Outcome.TIMED_OUT: Ending.STOPPED,
    Outcome.OVER_BUDGET: Ending.BUDGET,
    Outcome.START_FAILED: Ending.NOT_STARTED,
}


def ending_of(outcome: Outcome, record: ExitRecord | None) -> Ending:
    """Return the ending where the program's own words give none."""
    if outcome is Outcome.FAILED and record is not None and record.signal is not None:
        return Ending.KILLED
    return _ENDINGS[outcome]


@dataclass(frozen=True, slots=True)
class Account:
    """What a run used and did. None is unknown, which is never 0; tokens are this run's alone.

    `cost_from` says who knows the cost: "program", "prices" (the user's own table), or None.
    """

    session_id: str | None = None
    model: str | None = None
    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    cost_usd: float | None = None
    cost_from: str | None = None
    turns: int | None = None
    tool_calls: int = 0
    failed_calls: int = 0
    denied: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    files_changed: int = 0
    rate_limited: int = 0
    errors: int = 0
    entries: int = 0
    unknown: int = 0
    answer: str | None = None
    session_usage: Mapping[str, float] = field(default_factory=dict)
    """What the conversation had used in all at the end of this run, where its program counts so."""
    lines: int = 0
    oversized: int = 0  # lines of which only the beginning was read
    torn: int = 0  # lines without an end, or without a beginning where the cap cut
    invalid: int = 0  # lines that are not UTF-8
    cut: int = 0  # bytes that the cap took away


@dataclass(slots=True)
class Tally:
    """Folds a run's entries, in their order, into its account."""

    _session: str | None = None
    _model: str | None = None
    _turns: int | None = None
    _steps: int = 0
    _counts: dict[EntryKind, int] = field(default_factory=dict)
    _failed_calls: int = 0
    _denied: dict[str, None] = field(default_factory=dict)
    _files: dict[str, None] = field(default_factory=dict)
    _waiting: dict[str, list[str]] = field(default_factory=dict)  # call -> paths that it may have changed
    _sum: dict[str, float] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)
    _of_session: dict[str, float] = field(default_factory=dict)
    _text: str | None = None
    _spoke: bool = False  # the last entry was a text
    _answer: str | None = None

    def add(self, entry: Entry) -> None:
        self._counts[entry.kind] = self._counts.get(entry.kind, 0) + 1
        reader = _READERS.get(entry.kind)
        if reader is not None:
            reader(self, entry)
        self._spoke = entry.kind is EntryKind.TEXT

    def account(self, *, before: Mapping[str, float] | None = NOTHING) -> Account:
        """Return the account; `before` is what the conversation's earlier runs had used (`session_usage`),
        None if nobody knows: then neither is known what is counted over the whole conversation."""
        used = self._used(before)
        counts = self._counts
        return Account(
            session_id=self._session,
            model=self._model,
            input=_whole(used.get("input")),
            output=_whole(used.get("output")),
            cached=_whole(used.get("cached")),
            reasoning=_whole(used.get("reasoning")),
            cost_usd=used.get("cost_usd"),
            cost_from="program" if "cost_usd" in used else None,
            turns=self._turns if self._turns is not None else self._steps or None,
            tool_calls=counts.get(EntryKind.TOOL_CALL, 0),
            failed_calls=self._failed_calls,
            denied=tuple(self._denied),
            files=tuple(list(self._files)[:FILES_MAX]),
            files_changed=len(self._files),
            rate_limited=counts.get(EntryKind.RATE_LIMITED, 0),
            errors=counts.get(EntryKind.ERROR, 0),
            entries=sum(counts.values()),
            unknown=counts.get(EntryKind.UNKNOWN, 0),
            answer=self._answer if self._answer is not None else self._text,
            session_usage={**(before or {}), **self._of_session},
        )

    def _used(self, before: Mapping[str, float] | None) -> dict[str, float]:
        used = dict(self._sum)
        used.update(self._last)
        for name, value in self._of_session.items():
            used.pop(name, None)
            if before is not None:
                used[name] = max(0.0, value - before.get(name, 0.0))
        return used

    def _note(self, data: Mapping[str, object]) -> None:
        self._session = _words(data.get("session_id")) or self._session
        self._model = _words(data.get("model")) or self._model

    def _session_entry(self, entry: Entry) -> None:
        self._note(entry.data)

    def _text_entry(self, entry: Entry) -> None:
        goes_on = self._spoke and entry.data.get("delta") is True
        said = (self._text or "") if goes_on else ""
        self._text = said + entry.text[: TEXT_MAX - len(said)]

    def _usage_entry(self, entry: Entry) -> None:
        self._note(entry.data)
        numbers = {
            name: value
            for name in (*TOKENS, "cost_usd")
            if (value := _number(entry.data.get(name))) is not None
        }
        scope = entry.data.get("scope")
        if scope == UsageScope.STEP:
            self._steps += 1
            for name, value in numbers.items():
                self._sum[name] = self._sum.get(name, 0.0) + value
        elif scope == UsageScope.SESSION:
            self._of_session.update(numbers)
        else:
            self._last.update(numbers)

    def _result_call(self, entry: Entry) -> None:
        paths = self._waiting.pop(str(entry.data.get("id")), [])
        if entry.data.get("is_error") is True:
            self._failed_calls += 1
        else:
            self._files.update(dict.fromkeys(paths))

    def _file_entry(self, entry: Entry) -> None:
        path, call = _words(entry.data.get("path")), entry.data.get("id")
        if path is None:
            return
        if call is None:
            self._files[path] = None
        else:
            self._waiting.setdefault(str(call), []).append(path)

    def _denied_entry(self, entry: Entry) -> None:
        self._denied[_words(entry.data.get("tool")) or "?"] = None

    def _result_entry(self, entry: Entry) -> None:
        self._note(entry.data)
        turns = _number(entry.data.get("turns"))
        self._turns = int(turns) if turns is not None else self._turns
        answer = entry.data.get("text")
        if isinstance(answer, str):
            self._answer = answer[:TEXT_MAX]


_READERS: Final[Mapping[EntryKind, Any]] = {
    EntryKind.SESSION: Tally._session_entry,  # noqa: SLF001  # a class's own table
    EntryKind.TEXT: Tally._text_entry,  # noqa: SLF001
    EntryKind.USAGE: Tally._usage_entry,  # noqa: SLF001
    EntryKind.TOOL_RESULT: Tally._result_call,  # noqa: SLF001
    EntryKind.FILE_CHANGE: Tally._file_entry,  # noqa: SLF001
    EntryKind.PERMISSION_DENIED: Tally._denied_entry,  # noqa: SLF001
    EntryKind.RESULT: Tally._result_entry,  # noqa: SLF001
}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _words(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        else None
    )
