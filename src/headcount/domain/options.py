"""How an agent program is to work, in one vocabulary for all of them; each harness says what it can."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from headcount.domain.errors import InvalidInput

TURNS_MAX: Final = 10_000
BUDGET_MAX: Final = 100_000.0
SCHEMA_MAX: Final = 64_000
SYSTEM_PROMPT_MAX: Final = 100_000
LABEL_MAX: Final = 200
"""Characters of a model's name or of one rule about a tool; of a schema and a system prompt bytes."""


class Permissions(StrEnum):
    """What an agent may do without being asked. Headcount's own tools it may always use."""

    READ = "read"  # look, change nothing
    EDIT = "edit"  # change files in its directory; commands as far as the program itself holds them there
    ASK = "ask"  # as edit; what goes beyond that is put to a person
    BYPASS = "bypass"  # everything, unasked


class Effort(StrEnum):
    """How hard the model thinks."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class Ability(StrEnum):
    """What a harness can do with its program. What it cannot is refused at deploy, never dropped."""

    MODEL = "model"
    EFFORT = "effort"
    SYSTEM_PROMPT = "system_prompt"  # appended to the program's own
    TOOL_RULES = "tool_rules"  # tools allowed and denied
    TURN_LIMIT = "turn_limit"
    BUDGET = "budget"
    RESULT_SCHEMA = "result_schema"  # the program itself holds its answer to a schema; ours checks all
    MCP_STDIO = "mcp_stdio"
    MCP_HTTP = "mcp_http"
    ONLY_OUR_MCP = "only_our_mcp"  # the project's and the user's own MCP servers can be left out
    HOOKS = "hooks"
    RESUME = "resume"
    PRESET_SESSION = "preset_session"  # we name the conversation, so that it is known from the start
    TAKEOVER = "takeover"  # the conversation can be opened in the program's own interactive form
    STEER = "steer"  # a message reaches the agent in the middle of its work
    CANCEL = "cancel"  # a turn can be ended without the conversation
    PEERS = "peers"  # the program has tools to reach other sessions, which are off unless asked for


@dataclass(frozen=True, slots=True)
class Options:
    """How an agent is to work; what is not given is left to its program, but for `permissions`.

    A rule about a tool is `shell`, `shell(PREFIX)`, `edit`, `read`, `search`, `web`, or the program's own
    name for a tool.
    """

    model: str | None = None
    effort: Effort | None = None
    permissions: Permissions = Permissions.EDIT
    allowed_tools: tuple[str, ...] = ()
    denied_tools: tuple[str, ...] = ()
    max_turns: int | None = None
    budget_usd: float | None = None
    system_prompt: str | None = None
    result_schema: Mapping[str, Any] | None = None
    only_our_mcp: bool = False
    steer: bool = False
    peers: bool = False

    def needs(self) -> Iterable[tuple[Ability, str]]:
        """Yield each ability that is asked for, with the option that asks for it."""
        for name, ability in _NEEDS.items():
            if getattr(self, name):
                yield ability, name

    def given(self) -> dict[str, Any]:
        """Return what differs from the defaults, as it can be written as JSON."""
        facts, plain = asdict(self), asdict(Options())
        return {name: value for name, value in facts.items() if value != plain[name]}


@dataclass(frozen=True, slots=True)
class Reach:
    """How far an agent gets. `permissions` is bypass where its program cannot be held to less."""

    permissions: Permissions
    allowed_tools: tuple[str, ...] = ()
    denied_tools: tuple[str, ...] = ()

    def beyond(self, other: Reach) -> str | None:
        """Return in which words this goes further than `other`; None if it does not.

        Rules about tools are compared as they are written: that one covers another is not looked into.
        """
        if _RANKS[self.permissions] > _RANKS[other.permissions]:
            return f"permissions {self.permissions}, its own are {other.permissions}"
        more = [each for each in self.allowed_tools if each not in other.allowed_tools]
        if more and other.permissions is not Permissions.BYPASS:
            return f"the tools {', '.join(more)}, which it is not allowed itself"
        if less := [each for each in other.denied_tools if each not in self.denied_tools]:
            return f"the tools {', '.join(less)}, which it is denied itself"
        return None


_RANKS: Final[Mapping[Permissions, int]] = {
    Permissions.READ: 0,
    Permissions.EDIT: 1,
    Permissions.ASK: 1,  # what goes beyond edit is a person's word each time
    Permissions.BYPASS: 2,
}
_NEEDS: Final[Mapping[str, Ability]] = {
    "model": Ability.MODEL,
    "effort": Ability.EFFORT,
    "allowed_tools": Ability.TOOL_RULES,
    "denied_tools": Ability.TOOL_RULES,
    "max_turns": Ability.TURN_LIMIT,
    "budget_usd": Ability.BUDGET,
    "system_prompt": Ability.SYSTEM_PROMPT,
    "only_our_mcp": Ability.ONLY_OUR_MCP,
    "steer": Ability.STEER,
    "peers": Ability.PEERS,
}
NAMES: Final = tuple(field.name for field in fields(Options))


def parse_options(given: Mapping[str, Any]) -> Options:
    """Return options from what a caller gave; None stands for what was not given.

    Raises:
        InvalidInput: an unknown name, a wrong type, or a value out of its range.
    """
    told = {name: _PARSERS[name](name, value) for name, value in named(given).items() if value is not None}
    return Options(**told)


def named(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `given` if each name in it is that of an option.

    Raises:
        InvalidInput: one is not.
    """
    for name in given:
        if name not in NAMES:
            raise InvalidInput(f"there is no option {name[:40]!r}", hint=f"known: {', '.join(NAMES)}")
    return given


def _text(most: int) -> Any:
    def parse(name: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise InvalidInput(f"{name} is not a text", hint="give some words, or leave it out")
        if "\0" in value:
            raise InvalidInput(f"{name} has a NUL character", hint="leave it out")
        if len(value.encode("utf-8", "surrogatepass")) > most:
            raise InvalidInput(f"{name} is longer than {most} bytes", hint="make it shorter")
        return value

    return parse


def _word(words: type[StrEnum]) -> Any:
    def parse(name: str, value: object) -> StrEnum:
        if not isinstance(value, str) or value not in set(words):
            raise InvalidInput(f"{name} is {str(value)[:40]!r}", hint=f"one of {', '.join(words)}")
        return words(value)

    return parse


def _rules(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise InvalidInput(f"{name} is not a list", hint="give the names of tools")
    parse = _text(LABEL_MAX)
    return tuple(parse(name, each) for each in value)


def _turns(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= TURNS_MAX:
        raise InvalidInput(f"{name} is {str(value)[:40]}", hint=f"a whole number, 1 to {TURNS_MAX}")
    return value


def _money(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= BUDGET_MAX:
        raise InvalidInput(
            f"{name} is {str(value)[:40]}", hint=f"dollars, more than 0, at most {BUDGET_MAX:.0f}"
        )
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is not true or false", hint="give true or false")
    return value


def _schema(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} is not a JSON Schema", hint="give a JSON object")
    try:
        size = len(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{name} cannot be written as JSON: {error}", hint="give a JSON object") from None
    if size > SCHEMA_MAX:
        raise InvalidInput(f"{name} has {size} bytes, the limit is {SCHEMA_MAX}", hint="make it smaller")
    return value


_PARSERS: Final[Mapping[str, Any]] = {
    "model": _text(LABEL_MAX),
    "effort": _word(Effort),
    "permissions": _word(Permissions),
    "allowed_tools": _rules,
    "denied_tools": _rules,
    "max_turns": _turns,
    "budget_usd": _money,
    "system_prompt": _text(SYSTEM_PROMPT_MAX),
    "result_schema": _schema,
    "only_our_mcp": _flag,
    "steer": _flag,
    "peers": _flag,
}
