"""Disks that are full or cannot be written, for a home of a test's own."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import leftovers, needs
from tests.support.waiting import until

FILLER = "filler"


@contextmanager
def small(place: Path, *, megabytes: int = 8) -> Iterator[Path]:
    """Have a small file system at `place`; at the end nobody may use it any more."""
    needs.root()
    options = f"size={megabytes}m,mode=700"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=False).returncode:
        needs.lacking("a tmpfs cannot be mounted")
    try:
        yield place
        until(lambda: _unmount(place), what="nobody uses the small disk")
    except BaseException:
        leftovers.end_all(place)
        subprocess.run(["umount", "-l", place], check=False)
        raise


def _unmount(place: Path) -> bool:
    return subprocess.run(["umount", "-q", place], capture_output=True, check=False).returncode == 0


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Take all the space that is left, to the last byte; give it back at the end."""
    try:
        _fill(disk / FILLER)
        yield
    finally:
        (disk / FILLER).unlink()


def _fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Let nobody write below `place`: as root by a mount, which binds root too, else by its modes."""
    if os.geteuid() == 0:
        with _read_only_mount(place):
            yield
        return
    modes = {path: path.stat().st_mode for path in (place, *place.rglob("*")) if not path.is_symlink()}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextmanager
def _read_only_mount(place: Path) -> Iterator[None]:
    if subprocess.run(["mount", "--bind", place, place], check=False).returncode:
        needs.lacking("nothing can be mounted")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        yield
    finally:
        subprocess.run(["umount", place], check=True)
