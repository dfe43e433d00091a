"""One transaction's way to the named statements."""

from __future__ import annotations

import sqlite3
from typing import Final, TypeAlias

from headcount.domain.errors import InvalidInput
from headcount.store.statements import statements

Value: TypeAlias = str | int | float | None


class Session:
    """Runs named statements on one connection; the transaction around them is the registry's."""

    __slots__ = ("_connection", "_statements")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection
        self._statements: Final = statements()

    def all(self, name: str, **values: Value) -> list[sqlite3.Row]:
        return self._execute(name, values).fetchall()

    def one(self, name: str, **values: Value) -> sqlite3.Row | None:
        rows = self._execute(
            name, values
        ).fetchall()  # to the end: an unfinished statement holds its snapshot
        return rows[0] if rows else None

    def number(self, name: str, **values: Value) -> int:
        """Return the only column of the only row."""
        (row,) = self._execute(name, values).fetchall()
        return int(row[0])

    def change(self, name: str, **values: Value) -> int:
        """Return how many rows were changed."""
        return self._execute(name, values).rowcount

    def _execute(self, name: str, values: dict[str, Value]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(self._statements[name], values)
        except UnicodeEncodeError as error:
            raise InvalidInput(
                "a text has half of a surrogate pair, so it is not valid Unicode",
                hint="send text that can be encoded in UTF-8",
            ) from error
        except OverflowError as error:
            raise InvalidInput("a number does not fit in 64 bits") from error
