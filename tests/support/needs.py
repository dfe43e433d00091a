"""What a test needs of the machine. What is missing skips it locally, and fails it in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """End the test: skipped for `reason`, or failed where CI promised that everything is there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not lack this: {reason}", pytrace=False)
    pytest.skip(reason)


def program(name: str, *, how: str) -> str:
    """Return the path of a program; `how` tells a person where it comes from."""
    found = shutil.which(name)
    if found is None:
        lacking(f"{name} is not in PATH ({how})")
    return found


def root() -> None:
    """Go on only as root, which cgroups, mounts and namespaces of one's own want."""
    if os.geteuid() != 0:
        lacking("needs root")
