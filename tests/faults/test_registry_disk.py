"""A disk that is full, or cannot be written."""

# ruff: noqa: PT012  # the transaction is what raises; what is in it is the one statement
from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.errors import Infrastructure, RegistryCorrupt
from tests.support import needs
from tests.support.forks import child
from tests.support.registries import registry, with_task

NOBODY = 65534


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    needs.root()
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_told_and_nothing_is_lost(small: Path) -> None:
    opened = with_task(small)
    written = 0
    with pytest.raises(Infrastructure, match="full") as full:
        for number in range(100_000):
            with opened.write("fill") as tx:
                tx.events.add("k", now=float(number), data={"pad": "x" * 20_000})
            written += 1
    assert not isinstance(full.value, RegistryCorrupt)
    assert "make room" in full.value.hint
    assert written > 0
    with opened.read() as tx:
        assert tx.events.last() == written
    assert opened.quarantined() is None
    with opened.write("make room") as tx:
        pass
    opened.close()
    again = registry(small)
    with again.read() as tx:
        assert tx.events.last() == written
    assert again.integrity() == []
    again.close()


def test_writing_goes_on_when_there_is_room_again(small: Path) -> None:
    opened = with_task(small)
    (small / "ballast").write_bytes(b"x" * 1_000_000)
    with pytest.raises(Infrastructure, match="full"):
        while True:
            with opened.write("fill") as tx:
                tx.events.add("k", now=1.0, data={"pad": "x" * 20_000})
    (small / "ballast").unlink()
    with opened.write("again") as tx:
        tx.events.add("again", now=1.0)
    opened.close()


def test_a_registry_cannot_be_made_on_a_full_disk_and_nothing_is_left(small: Path) -> None:
    (small / "ballast").write_bytes(b"x" * (2 * 1024 * 1024 - 16 * 1024))
    with pytest.raises(Infrastructure):
        with_task(small)
    assert sorted(path.name for path in small.iterdir()) == ["ballast", "registry.lock"]
    (small / "ballast").unlink()
    with_task(small).close()


def test_a_backup_on_a_full_disk_leaves_nothing(small: Path, home: Path) -> None:
    opened = with_task(home)
    (small / "ballast").write_bytes(b"x" * (2 * 1024 * 1024 - 16 * 1024))
    with pytest.raises(Infrastructure):
        opened.backup(small / "copy.db")
    assert [path.name for path in small.iterdir()] == ["ballast"]
    opened.close()


def as_nobody(home: Path, pipe: int) -> None:
    """Use the registry without root's power to write everywhere; say what came of it."""
    if os.geteuid() == 0:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    told = []
    for use in (registry(home).write("test"), registry(home).read()):
        try:
            with use as tx:
                tx.tasks.page(limit=1)
            told.append("done")
        except RegistryCorrupt:
            told.append("corrupt")
        except Infrastructure as error:
            told.append(f"{error.code} {error.hint}")
    os.write(pipe, "|".join(told).encode())


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[Path]:
    """A home under directories that anybody can pass."""
    import shutil
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="hct-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("exists", [True, False])
def test_a_home_that_cannot_be_written_is_told(reachable: Path, exists: bool) -> None:
    if exists:
        with_task(reachable).close()
        for path in reachable.iterdir():
            path.chmod(0o444)
    reachable.chmod(0o555)
    with child(lambda pipe: as_nobody(reachable, pipe)) as (_, pipe):
        write, read = os.read(pipe, 1000).decode().split("|")
    assert write.startswith("infrastructure ")
    assert "HEADCOUNT_HOME" in write
    assert read == "done" or "HEADCOUNT_HOME" in read
    assert not Home(reachable).quarantine.exists()


def test_a_read_only_file_system_is_told(small: Path) -> None:
    with_task(small).close()
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    for use in (registry(small).write("test"), registry(small).read()):
        with pytest.raises(Infrastructure, match=r"cannot be|disk failed") as told, use as tx:
            tx.tasks.page(limit=1)
        assert not isinstance(told.value, RegistryCorrupt)
        assert "HEADCOUNT_HOME" in told.value.hint
