"""Comparing a text with the one that was agreed on. UPDATE_GOLDEN=1 writes it anew, for `git diff`."""

import os
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
