"""What is built is what runs: everything in the source tree arrives, and imports without its dependencies."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.source import PACKAGE, REPOSITORY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=REPOSITORY)
    return folder


def run(*command: str, cwd: Path) -> str:
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def shipped() -> set[str]:
    """Return the files of the package, relative to `src`."""
    paths = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(PACKAGE.parent)) for path in paths if path.suffix != ".pyc"}


def test_the_wheel_holds_every_file_of_the_package(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        entry_points = wheel.read(
            next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        )
    assert names == shipped()
    assert b"headcount = headcount.doors.cli.main:main" in entry_points
    assert {Path(name).suffix for name in names} >= {".py", ".sql", ".typed"}


def test_the_source_distribution_holds_what_a_packager_needs(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in shipped()} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "tests/conftest.py"} <= names


def test_the_wheel_installs_and_imports_alone(built: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    wheel = str(next(built.glob("*.whl")))
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    code = "import headcount, importlib.resources as r; print(headcount.__version__, headcount.__file__)"
    version, file = run(python, "-I", "-c", code, cwd=tmp_path).split()
    assert file.startswith(str(tmp_path))
    assert version == next(built.glob("*.whl")).name.split("-")[1]
    assert (tmp_path / "venv" / "bin" / "headcount").exists()
