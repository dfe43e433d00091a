"""Where a damaged registry is kept, and the marker that closes the registry until it is rebuilt."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from headcount.domain.errors import Infrastructure, RegistryCorrupt
from headcount.store.codec import dump, load
from headcount.store.schema import sync_directory


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A registry that was set aside; `path` is the directory that holds its files."""

    path: Path
    at: float
    why: str

    def error(self) -> RegistryCorrupt:
        """Return what every use of the registry is answered until the rebuild."""
        return RegistryCorrupt(
            f"the registry was damaged ({self.why}); its files are kept in {self.path}",
            hint="run 'headcount repair --rebuild'; agents that run go on meanwhile",
        )


class QuarantineDirectory:
    """The marker and the kept files. All changes happen under the writers' lock."""

    def __init__(self, directory: Path, database: Path) -> None:
        self._directory: Final = directory
        self._database: Final = database
        self._marker: Final = directory / "standing.json"

    def standing(self) -> Quarantine | None:
        """Return the quarantine in force; costs one failed open if there is none.

        Raises:
            Infrastructure: it cannot be told, so the registry must not be used.
        """
        try:
            with open(self._marker, encoding="utf-8") as file:
                found = load(file.read())
            return Quarantine(Path(found["path"]), found["at"], found["why"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Infrastructure(
                f"{self._marker} cannot be read: {error.strerror}",
                hint="make the state directory your own again, or set HEADCOUNT_HOME",
            ) from error
        except (ValueError, KeyError, TypeError):
            return Quarantine(self._directory, 0.0, f"{self._marker} is unreadable")

    def impose(self, why: str, now: float) -> Quarantine:
        """Set the database's files aside.

        Killed after (1) the marker closes the registry and `finish` moves the files; after (2) all is done.
        """
        place = self._free_name(f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
        place.mkdir(mode=0o700, parents=True)
        quarantine = Quarantine(place, now, why)
        self._write_marker(quarantine)  # (1)
        self.finish(quarantine)  # (2)
        return quarantine

    def finish(self, quarantine: Quarantine) -> None:
        """Move what still stands at the database's place; of no effect if nothing does."""
        quarantine.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for end in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.rename(f"{self._database}{end}", quarantine.path / f"{self._database.name}{end}")
        sync_directory(self._database.parent)

    def lift(self) -> None:
        """Open the registry again; the kept files stay."""
        self._marker.unlink(missing_ok=True)
        sync_directory(self._directory)

    def _free_name(self, stamp: str) -> Path:
        number = 1
        while (place := self._directory / f"registry-{stamp}-{number}").exists():
            number += 1
        return place

    def _write_marker(self, quarantine: Quarantine) -> None:
        aside = self._marker.with_name("standing.json-new")
        text = dump({"path": str(quarantine.path), "at": quarantine.at, "why": quarantine.why})
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self._marker)
        sync_directory(self._directory)
