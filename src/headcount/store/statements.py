"""The named SQL statements and migrations, read from their files once per process."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

SQL: Final = Path(__file__).parent / "sql"
_NAME: Final = re.compile(r"^-- name: (\w+)\n((?:-- .*\n)+)", re.MULTILINE)


@cache
def statements() -> Mapping[str, str]:
    """Return every statement by "<file>.<name>", such as "runs.confirm"."""
    found: dict[str, str] = {}
    for path in SQL.glob("*.sql"):
        pieces = _NAME.split(path.read_text(encoding="utf-8"))
        for name, _guarantee, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            found[f"{path.stem}.{name}"] = text.strip().removesuffix(";")
    return found


@cache
def migrations() -> Sequence[str]:
    """Return the migrations in order; the schema version is how many have been applied."""
    return [path.read_text(encoding="utf-8") for path in sorted((SQL / "migrations").glob("[0-9]*.sql"))]
