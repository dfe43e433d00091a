"""Counts for the metrics; none costs history."""

from __future__ import annotations

from headcount.store.session import Session


class Figures:
    """Counts inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def messages_queued(self) -> int:
        return self._session.number("figures.messages_queued")

    def tasks_paused(self) -> int:
        return self._session.number("figures.tasks_paused")

    def flags_open(self) -> dict[str, int]:
        """Return how many flags stand, by kind."""
        return {row["kind"]: row["number"] for row in self._session.all("figures.flags_open")}
