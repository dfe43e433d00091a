"""The real registry on a real SQLite file, with a boundary before every statement and around each commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headcount.config import Home
from headcount.store.events import Events
from headcount.store.findings import Findings
from headcount.store.keys import IdempotencyKeys
from headcount.store.messages import Messages
from headcount.store.registry import Registry, Tx
from headcount.store.reports import Reports
from headcount.store.runs import Runs
from headcount.store.session import Session, Value
from headcount.store.tasks import Tasks
from tests.simulation.world import World


class WatchedSession(Session):
    """A session that can be killed before each statement."""

    __slots__ = ("_world",)

    def __init__(self, connection: sqlite3.Connection, world: World) -> None:
        super().__init__(connection)
        self._world = world

    def _execute(self, name: str, values: dict[str, Value]) -> sqlite3.Cursor:
        self._world.boundary(f"sql {name}")
        if name == "runs.add":
            self._world.on_reserve()
        return super()._execute(name, values)


class WatchedTx(Tx):
    """The same aggregates over watched sessions."""

    def __init__(self, connection: sqlite3.Connection, world: World) -> None:
        super().__init__(connection)
        session = WatchedSession(connection, world)
        parts = {
            "tasks": Tasks(session),
            "runs": Runs(session),
            "reports": Reports(session),
            "findings": Findings(session),
            "events": Events(session),
            "keys": IdempotencyKeys(session),
            "messages": Messages(session),
        }
        for name, part in parts.items():
            setattr(self, name, part)


class WatchedRegistry(Registry):
    """Switches programs around transactions, never inside one that writes."""

    def __init__(self, home: Home, world: World) -> None:
        super().__init__(
            home.registry,
            home.registry_lock,
            quarantine=home.quarantine,
            backups=home.backups,
            clock=lambda: world.wall,
        )
        self._world = world

    @contextmanager
    def write(self, purpose: str) -> Iterator[Tx]:
        world, strand = self._world, self._world.strands.current
        assert strand is not None
        world.boundary(f"before {purpose}")
        world.fault(f"the registry is busy ({purpose})")
        strand.writing = True
        try:
            with super().write(purpose) as tx:
                yield WatchedTx(_connection(tx), world)
                world.boundary(f"before the commit of {purpose}")
                world.fault(f"the disk is full ({purpose})")
        finally:
            strand.writing = False
        world.commits += 1
        world.touched()
        world.note(f"committed {purpose}")
        world.boundary(f"after the commit of {purpose}")

    @contextmanager
    def read(self) -> Iterator[Tx]:
        self._world.boundary("before a read")
        with super().read() as tx:
            yield WatchedTx(_connection(tx), self._world)


def _connection(tx: Tx) -> sqlite3.Connection:
    return tx.runs._session._connection


def template(folder: Path) -> bytes:
    """Return the bytes of an empty registry, which each simulation begins with."""
    home = Home(folder)
    registry = Registry(
        home.registry, home.registry_lock, quarantine=home.quarantine, backups=home.backups, clock=lambda: 0.0
    )
    with registry.write("make"):
        pass
    registry.close()
    return home.registry.read_bytes()
