"""Writes the tables of what each harness can do, in README.md and docs/harnesses.md, from its own words.

`python scripts/write_harness_tables.py` writes them anew; a test says when that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from headcount.domain.options import Ability, Permissions
from headcount.harnesses.base import Harness
from headcount.harnesses.catalogue import HARNESSES

ROOT: Final = Path(__file__).parent.parent
README: Final = ROOT / "README.md"
PAGE: Final = ROOT / "docs" / "harnesses.md"
BEGIN: Final = "<!-- Written by scripts/write_harness_tables.py. -->\n"
END: Final = "<!-- Here it ends. -->\n"

TITLES: Final = {
    "claude": "Claude Code",
    "codex": "Codex CLI",
    "gemini": "Gemini CLI",
    "opencode": "OpenCode",
    "qwen": "Qwen Code",
    "copilot": "Copilot CLI",
    "pi": "Pi",
    "acp": "any agent that speaks ACP",
    "command": "any program",
    "script": "a list of steps, for demos and tests",
}
"""In the order in which they are shown; a harness that is not here is a mistake."""

SHORT: Final = {
    "model": Ability.MODEL,
    "effort": Ability.EFFORT,
    "tool rules": Ability.TOOL_RULES,
    "turn limit": Ability.TURN_LIMIT,
    "budget": Ability.BUDGET,
    "resume": Ability.RESUME,
    "takeover": Ability.TAKEOVER,
    "steer": Ability.STEER,
}
"""What the README shows of the abilities, and by which word."""

MEANINGS: Final = {
    Ability.MODEL: "`--model`",
    Ability.EFFORT: "`--effort`",
    Ability.SYSTEM_PROMPT: "`--system-prompt-file`",
    Ability.TOOL_RULES: "`--allow-tool`, `--deny-tool`",
    Ability.TURN_LIMIT: "`--max-turns`",
    Ability.BUDGET: "`--budget-usd`",
    Ability.RESULT_SCHEMA: "its program itself holds its answer to `--result-schema`; Headcount checks all",
    Ability.MCP_STDIO: "MCP servers by stdio, such as ours",
    Ability.MCP_HTTP: "MCP servers by HTTP",
    Ability.ONLY_OUR_MCP: "`--only-our-mcp`",
    Ability.HOOKS: "hooks of ours in its program",
    Ability.RESUME: "`headcount resume`, `--resume-on-crash`",
    Ability.PRESET_SESSION: "its conversation is known from the start",
    Ability.TAKEOVER: "`headcount takeover`",
    Ability.STEER: "`--steer`: messages in the middle of its work",
    Ability.CANCEL: "`headcount cancel`, with `--steer`",
    Ability.PEERS: "`--peers`",
}


def tables() -> dict[Path, str]:
    """Return both files: each as it is, with its table as it should be."""
    return {README: _with(README, _short()), PAGE: _with(PAGE, _whole())}


def _with(page: Path, table: str) -> str:
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{page.name} has no mark of where the table begins"
    assert end, f"{page.name} has no mark of where the table ends"
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _short() -> str:
    """Return a row for each harness: what a reader chooses by."""
    head = ("harness", "what it is", "permissions", *SHORT)
    rows = [
        (f"`{name}`", TITLES[name], _permissions(HARNESSES[name]), *_marks(HARNESSES[name]))
        for name in _names()
    ]
    return _table(head, rows)


def _marks(harness: Harness) -> Iterable[str]:
    return (_mark(each in harness.abilities) for each in SHORT.values())


def _mark(has: object) -> str:
    return "yes" if has else "-"


def _permissions(harness: Harness) -> str:
    held = [each.value for each in Permissions if each in harness.permissions]
    return ", ".join(held) or "its own"


def _whole() -> str:
    """Return a row for each ability, a column for each harness."""
    names = _names()
    head = ("", *(f"`{name}`" for name in names))
    abilities = [(MEANINGS[each], *_has(each, names)) for each in MEANINGS if any(_holders(each))]
    permissions = [
        (f"`--permissions {each.value}`", *(_mark(each in HARNESSES[name].permissions) for name in names))
        for each in Permissions
    ]
    efforts = ("efforts", *(", ".join(HARNESSES[name].efforts) or "-" for name in names))
    return _table(head, [*permissions, *abilities, efforts])


def _has(ability: Ability, names: Sequence[str]) -> Iterable[str]:
    return (_mark(ability in HARNESSES[name].abilities) for name in names)


def _holders(ability: Ability) -> Iterable[bool]:
    return (ability in harness.abilities for harness in HARNESSES.values())


def _names() -> list[str]:
    assert set(TITLES) == set(HARNESSES), f"without a title: {set(TITLES) ^ set(HARNESSES)}"
    assert set(MEANINGS) == set(Ability), f"without a meaning: {set(MEANINGS) ^ set(Ability)}"
    return list(TITLES)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    for page, text in tables().items():
        page.write_text(text, "utf-8")
