"""The script that a model plays: a list of steps inside the prompt, and where in it a conversation is.

The server keeps no state: what has been played is read from the conversation that each request brings along.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

Step = Mapping[str, Any]

MARK: Final = "<<<SCRIPT "
END: Final = " SCRIPT>>>"
CALL_ID: Final = re.compile(r"script_([0-9a-f]{6})_(\d+)_(\d+)$")
SEARCH_ID: Final = re.compile(r"search_([0-9a-f]{6})_(\d+)$")
BLANK: Final = re.compile(r"\$\{(\d+)(?:\.(\d+))?(?::([\w.-]+))?\}")


def play(steps: Sequence[Step]) -> str:
    """Return the words that make a prompt play these steps; a step may hold such words for a child."""
    return f"{MARK}{json.dumps(steps)}{END}"


class Who(StrEnum):
    USER = "user"
    MODEL = "model"
    TOOL = "tool"


@dataclass(frozen=True)
class Turn:
    """One thing in a conversation; `call` is the id of the tool call that it is, or that it answers."""

    who: Who
    text: str = ""
    call: str = ""


@dataclass(frozen=True)
class Place:
    """Where a conversation is in its script. `results` has what calls answered, by step and call."""

    steps: Sequence[Step]
    number: int
    searched: frozenset[int]
    results: Mapping[tuple[int, int], str] = field(repr=False)

    @property
    def tag(self) -> str:
        """What tells the ids of this script's calls from those of another in the same conversation."""
        return f"{zlib.crc32(json.dumps(self.steps).encode()) & 0xFFFFFF:06x}"

    @property
    def step(self) -> Step:
        """What to say now, with what has been answered so far in its blanks."""
        at = min(self.number, len(self.steps) - 1)
        if at < self.number and "stop" not in self.steps[at]:
            return {"text": "(the script is over)"}
        filled: Step = _filled(self.steps[at], self.results)
        return filled


def last_script(text: str) -> list[Step] | None:
    """Return the last script of a text, also of one that was put in quotes on its way."""
    for each in (text, text.replace('\\"', '"').replace("\\\\", "\\")):
        if found := list(_scripts(each)):
            return found[-1]
    return None


def _scripts(text: str) -> Iterator[list[Step]]:
    at = text.find(MARK)
    while at >= 0:
        end = at + len(MARK)
        try:
            steps, end = json.JSONDecoder().raw_decode(text, end)
        except ValueError:
            steps = None
        if isinstance(steps, list) and steps:
            yield steps
        at = text.find(MARK, end)  # behind it: a script inside it is a child's


def find_place(turns: Sequence[Turn]) -> Place | None:
    """Return where a conversation is in the last script that its user gave."""
    for at in reversed(range(len(turns))):
        if turns[at].who is Who.USER and (steps := last_script(turns[at].text)) is not None:
            return _place(steps, turns[at + 1 :])
    return None


def _place(steps: Sequence[Step], later: Sequence[Turn]) -> Place:
    tag = Place(steps, 0, frozenset(), {}).tag
    number, searched, results = 0, set(), {}
    for run in _runs(later):
        calls = [match for turn in run if (match := CALL_ID.search(turn.call)) and match[1] == tag]
        searches = [match for turn in run if (match := SEARCH_ID.search(turn.call)) and match[1] == tag]
        searched |= {int(match[2]) for match in searches}
        if calls:
            number = max(number, *(int(match[2]) + 1 for match in calls))
        elif run[0].who is Who.MODEL and not searches:
            number += 1  # it only spoke, and the conversation went on
        for turn in run:
            if turn.who is Who.TOOL and (match := CALL_ID.search(turn.call)):
                results[int(match[2]), int(match[3])] = turn.text
    return Place(steps, number, frozenset(searched), results)


def _runs(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Yield the turns that follow each other on the same side: a message may come in pieces."""
    run: list[Turn] = []
    for turn in turns:
        if run and run[-1].who is not turn.who:
            yield run
            run = []
        run.append(turn)
    if run:
        yield run


# ---------------------------------------------------------------- what was answered, in a later step


def _filled(value: Any, results: Mapping[tuple[int, int], str]) -> Any:
    """Fill `${STEP}`, `${STEP.CALL}` and `${STEP:path.to.it}`; one that is a whole string keeps its type."""
    if isinstance(value, Mapping):
        return {key: _filled(each, results) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, results) for each in value]
    if not isinstance(value, str) or MARK in value:  # a child's blanks are its own
        return value
    if match := BLANK.fullmatch(value):
        return _blank(match, results)
    return BLANK.sub(lambda match: str(_blank(match, results)), value)


def _blank(match: re.Match[str], results: Mapping[tuple[int, int], str]) -> Any:
    text = results.get((int(match[1]), int(match[2] or 0)), "")
    if not match[3]:
        return text
    found = next(_picked(text, match[3].split(".")), None)
    if found is None and (line := re.search(rf"^\W*{re.escape(match[3])}: (.+)$", text, re.MULTILINE)):
        found = line[1]
    return f"(no {match[3]} in: {text})" if found is None else found


def _picked(value: object, path: Sequence[str]) -> Iterator[object]:
    """Yield what is at `path` below anything in a value: each client wraps a tool's answer its own way."""
    if isinstance(value, str):
        for found in _objects(value):
            yield from _picked(found, path)
    elif isinstance(value, Mapping | list):
        found, rest = value, list(path)
        while rest and (step := _step_into(found, rest[0])) is not None:
            found, rest = step, rest[1:]
        if not rest:
            yield found
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _picked(each, path)


def _step_into(value: object, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return None


def _objects(text: str) -> Iterator[object]:
    at = text.find("{")
    while at >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            yield found
        at = text.find("{", end)
