"""Whether a program that was found is one that can work: new enough, and somebody is logged in.

Nothing is started to find out: a deploy would wait for it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from headcount.domain.errors import PlacementFailed
from headcount.harnesses.base import Probe
from headcount.harnesses.program import find_program

PACKAGE_MAX: Final = 1_000_000
LEVELS: Final = 6
"""Directories above a program in which its package.json may lie."""


def find_installed(probe: Probe, *, env: Mapping[str, str], cwd: str) -> str:
    """Return the path of the program as the caller's PATH has it.

    Raises:
        PlacementFailed: it is not there, cannot be run, or says itself that it is too old.
    """
    path = find_program(probe.program, env=env, cwd=cwd, hint=probe.install)
    version = package_version(path, probe.program)
    if version is not None and parse_version(version) < probe.oldest:
        oldest = ".".join(map(str, probe.oldest))
        raise PlacementFailed(
            f"{probe.program} {version} is too old: {oldest} or later is needed", hint=probe.install
        )
    return path


def package_version(path: str, program: str) -> str | None:
    """Return the version in the package.json to which the program belongs, None if it is no such package."""
    directory = os.path.dirname(os.path.realpath(path))
    for _ in range(LEVELS):
        found = _package(os.path.join(directory, "package.json"))
        if program in _programs(found):
            version = found.get("version")
            return version if isinstance(version, str) else None
        directory = os.path.dirname(directory)
    return None


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of "2.1.330-beta (Claude Code)", which end at the first other thing; () for none."""
    found = re.search(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")[:4]) if found else ()


def check_login(probe: Probe, *, env: Mapping[str, str]) -> None:
    """Refuse if it is certain that nobody is logged in.

    Raises:
        PlacementFailed: none of what the probe names is there.
    """
    if logged_in(probe, env=env) is False:
        raise PlacementFailed(f"{probe.program} is not logged in", hint=probe.login)


def logged_in(probe: Probe, *, env: Mapping[str, str]) -> bool | None:
    """Say whether somebody is logged in, None if that cannot be told."""
    if any(_is_set(name, env) for name in probe.login_env):
        return True
    home = env.get("HOME")
    if not home or not (probe.login_env or probe.login_files):
        return None
    return any(os.path.exists(os.path.join(home, each)) for each in probe.login_files)


def _is_set(name: str, env: Mapping[str, str]) -> bool:
    if name.endswith("*"):
        return any(value and each.startswith(name[:-1]) for each, value in env.items())
    return bool(env.get(name))


def _package(path: str) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(PACKAGE_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _programs(package: Mapping[str, Any]) -> frozenset[str]:
    """Return what a package's programs are called; a package of one may give them no name but its own."""
    programs, name = package.get("bin"), package.get("name")
    if isinstance(programs, dict):
        return frozenset(programs)
    return (
        frozenset({name.rpartition("/")[2]})
        if isinstance(programs, str) and isinstance(name, str)
        else frozenset()
    )
