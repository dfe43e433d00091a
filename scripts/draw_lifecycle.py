"""Write docs/lifecycle.md from the table in domain/lifecycle.py; with --check, say whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

from headcount.domain.lifecycle import LIVE, TRANSITIONS, Change, Outcome, State

PAGE = Path(__file__).parents[1] / "docs" / "lifecycle.md"

HEAD = """# The life of a run

Drawn from `domain/lifecycle.py` by `scripts/draw_lifecycle.py`; a test checks that it is current.

"""


def page() -> str:
    """Return the page."""
    arrows = [f"    {before} --> {after}: {change}" for (before, change), after in TRANSITIONS.items()]
    over = [f"    {state} --> [*]" for state in State if state not in LIVE]
    diagram = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.RESERVED}", *arrows, *over, "```"]
    rows = [
        f"| {state} | "
        + " | ".join(
            TRANSITIONS.get((state, change), State.RESERVED).value if (state, change) in TRANSITIONS else ""
            for change in Change
        )
        + " |"
        for state in State
    ]
    table = ["| in | " + " | ".join(Change) + " |", "|---" * (len(Change) + 1) + "|", *rows]
    live = ", ".join(state.value for state in State if state in LIVE)
    notes = [
        f"Live states: {live}. Over stays over: no change is possible in the others.",
        "Every change is a compare-and-set with an event in the same transaction.",
        f"Outcomes of `ended`: {', '.join(f'`{each}`' for each in Outcome)}.",
        "`lost` means that nothing of it runs and nobody knows how it ended.",
    ]
    return HEAD + "\n".join(diagram) + "\n\n" + "\n".join(table) + "\n\n" + "\n".join(notes) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text() != page())
    PAGE.write_text(page())
