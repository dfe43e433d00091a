"""The daemon's sign of life."""

from __future__ import annotations

from headcount.domain.model import Heartbeat
from headcount.store.session import Session


class Heartbeats:
    """The heartbeat table, which has one row, inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, beat: Heartbeat) -> None:
        self._session.change(
            "heartbeats.put",
            pid=beat.pid,
            boot_id=beat.boot_id,
            at=beat.at,
            monotonic=beat.monotonic,
            headcounts=beat.headcounts,
            longest=beat.longest,
        )

    def get(self) -> Heartbeat | None:
        row = self._session.one("heartbeats.get")
        if row is None:
            return None
        return Heartbeat(
            pid=row["pid"],
            boot_id=row["boot_id"],
            at=row["at"],
            monotonic=row["monotonic"],
            headcounts=row["headcounts"],
            longest=row["longest_s"],
        )
