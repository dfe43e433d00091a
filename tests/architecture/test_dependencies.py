"""A dependency is declared, locked with hashes, explained, and used."""

from __future__ import annotations

import re
import tomllib
from functools import cache

import pytest

from tests.support import source
from tests.support.source import REPOSITORY

IMPORTED_AS = {"google-re2": "re2", "prometheus-client": "prometheus_client"}
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-uv.txt")


def normal(requirement: str) -> str:
    """Return the normal form of the name that a requirement begins with."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


@cache
def declared() -> dict[str, set[str]]:
    """Return the declared packages by what they are for."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    groups = {name: set(map(normal, needs)) for name, needs in project["dependency-groups"].items()}
    return {"run": set(map(normal, project["project"]["dependencies"])), **groups}


def locked(lock: str) -> dict[str, str]:
    """Return each package of a lock with the lines that pin it."""
    text = (REPOSITORY / lock).read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.partition("\n")[2])
    return {normal(entry): entry for entry in entries}


def explained() -> set[str]:
    page = (REPOSITORY / "docs" / "dependencies.md").read_text()
    return {normal(row[1]) for row in re.finditer(r"^\| ([\w.-]+) \|", page, re.MULTILINE)} - {"package"}


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_in_a_lock_is_pinned_with_hashes(lock: str) -> None:
    for entry in locked(lock).values():
        assert re.match(r"\S+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_carries_no_option(lock: str) -> None:
    text = (REPOSITORY / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


def test_the_locks_hold_what_is_declared() -> None:
    groups = declared()
    assert groups["run"] | groups["build"] <= set(locked("requirements.txt"))
    assert groups["run"] | groups["build"] | groups["dev"] <= set(locked("requirements-dev.txt"))


def test_the_two_locks_agree() -> None:
    """Tests run with exactly what users get."""
    dev = locked("requirements-dev.txt")
    for name, entry in locked("requirements.txt").items():
        assert entry.strip() == dev[name].strip()


def test_every_declared_package_is_explained_and_no_other() -> None:
    assert explained() == set().union(*declared().values()) | {"uv"}


def test_every_declared_package_is_imported_by_us() -> None:
    imported = {use.name.partition(".")[0] for file in source.files() for use in source.imports(file)}
    assert {IMPORTED_AS.get(name, name) for name in declared()["run"]} <= imported
