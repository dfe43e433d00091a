"""What has changed in a checkout between two moments, whoever changed it."""

from __future__ import annotations

import math
import os
from typing import Final

from headcount.domain.errors import WorktreeFailed
from headcount.domain.postmortem import FILES_MAX, Changes
from headcount.runtimes.git import Git, Place

SAID_MAX: Final = 4_000_000
"""Bytes of git's answer that are looked at."""
PATIENCE: Final = 20.0
"""Seconds for one question: nobody waits for a post-mortem, but the next one does."""
SLACK: Final = 0.05
"""Seconds by which the clock of a file system may be behind."""


def between(git: Git, directory: str, since: float, until: float) -> Changes | None:
    """Return what has changed in the checkout of a directory; None if it is in none.

    Raises:
        WorktreeFailed: git cannot tell, or not in time.
    """
    if not os.path.isdir(directory):
        raise WorktreeFailed(f"{directory} is gone")
    asked = git.run(Place(directory), "rev-parse", "--show-toplevel", ok=(0, 128), timeout=PATIENCE)
    if asked.code != 0:
        if "not a git repository" in asked.words or "work tree" in asked.words:
            return None
        raise WorktreeFailed(f"git rev-parse failed: {asked.words}")
    top = asked.line
    committed, whole = _committed(git, top, since, until)
    found = {name for name in committed if (_changed_at(f"{top}/{name}") or until) >= since - SLACK}
    later = 0
    paths, all_there = _uncommitted(git, top)
    for path in paths:
        changed_at = _changed_at(f"{top}/{path}")
        if changed_at is None or since - SLACK <= changed_at <= until + SLACK:
            found.add(path)
        else:
            later += changed_at > until
    return Changes(
        files=tuple(sorted(found)[:FILES_MAX]), count=len(found), later=later, whole=whole and all_there
    )


def _committed(git: Git, top: str, since: float, until: float) -> tuple[list[str], bool]:
    """Return the files of the commits of that time; git knows it by the second."""
    place = Place(top)
    if git.run(place, "rev-parse", "--verify", "--quiet", "HEAD", ok=(0, 1, 128), timeout=PATIENCE).code:
        return [], True  # nothing was ever committed
    span = (f"--since=@{math.floor(since)}", f"--until=@{math.floor(until)}")
    asked = ("log", "-z", "--no-renames", "--name-only", "--format=", *span, "HEAD", "--")
    return _paths(git, place, *asked)


def _uncommitted(git: Git, top: str) -> tuple[list[str], bool]:
    asked = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    lines, whole = _paths(git, Place(top), *asked)
    return [line[3:] for line in lines], whole


def _paths(git: Git, place: Place, *asked: str) -> tuple[list[str], bool]:
    said, whole = git.head(place, *asked, limit=SAID_MAX, timeout=PATIENCE)
    parts = said.split(b"\0")
    if not whole:
        del parts[-1]  # perhaps half a name
    names = [part.lstrip(b"\n").decode("utf-8", "replace") for part in parts]
    return [name for name in names if name], whole


def _changed_at(path: str) -> float | None:
    """Return when a file was changed, of one that is gone its directory; None if that is gone too."""
    for each in (path, os.path.dirname(path)):
        try:
            return os.lstat(each).st_ctime
        except OSError:
            continue
    return None
