"""An import points down: the contracts of import-linter in pyproject.toml hold, and would notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import PACKAGE, REPOSITORY

LINT = Path(sys.executable).with_name("lint-imports")


def lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts over the package below `source`."""
    return subprocess.run(
        [LINT, "--config", REPOSITORY / "pyproject.toml", "--no-cache", "--no-logo"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_layers_hold() -> None:
    ran = lint_imports(PACKAGE.parent)
    assert ran.returncode == 0, ran.stdout + ran.stderr


BREAKS = {
    "domain/bad.py": ("from headcount.services import deploy", "An import points down"),
    "domain/clock.py": ("import time", "The domain is pure"),
    "harnesses/bad.py": ("import subprocess", "A harness is pure"),
    "runtimes/bad.py": ("from headcount.store import session", "does not read the registry"),
    "services/sql.py": ("import sqlite3", "SQL only in the store"),
    "services/draw.py": ("import rich", "stays in the doors"),
    "newcomer.py": ("", "An import points down"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy of the package in which every contract is broken once."""
    source = tmp_path_factory.mktemp("broken")
    shutil.copytree(PACKAGE, source / "headcount", ignore=shutil.ignore_patterns("__pycache__"))
    for file, (text, _) in BREAKS.items():
        (source / "headcount" / file).write_text(text + "\n")
    ran = lint_imports(source)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("file", BREAKS)
def test_a_broken_layer_is_found(broken: str, file: str) -> None:
    contract = re.escape(BREAKS[file][1])
    assert re.search(rf"{contract}.* BROKEN", broken)
    assert file.removesuffix(".py").replace("/", ".") in broken
