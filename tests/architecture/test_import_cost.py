"""What runs often imports little: a fleet starts the command, the runner and the bridge all the time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import source

HEAVY = {"mcp", "pydantic", "rich", "starlette", "uvicorn", "psutil", "structlog", "asyncio"}
ENTRANCES = ["headcount", "headcount.api", "headcount.bootstrap", "headcount.doors.cli.main"]

ALONE = ["client", "doors.mcp.bridge", "harnesses.gemini_home", "harnesses.script_agent", "runtimes.runner"]
ALONE += ["runtimes.terminal.keeper", "runtimes.terminal.window"]
"""What runs without the package's dependencies: beside every agent, beside every client."""


@pytest.mark.parametrize("module", ENTRANCES)
def test_an_entrance_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert HEAVY & set(ran.stdout.split()) == set()


def test_a_heavy_import_would_be_seen() -> None:
    code = "import sys, rich.tree; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert HEAVY & set(ran.stdout.split()) == {"rich"}


@pytest.mark.parametrize("module", ALONE)
def test_what_stands_alone_imports_only_the_standard_library(module: str) -> None:
    """-S leaves site-packages out, so what is imported at the top would fail; the rest is read."""
    code = f"import sys; sys.path.append({str(source.PACKAGE.parent)!r}); import headcount.{module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], timeout=60, check=True)
    file = module.replace(".", "/") + ".py"
    roots = {use.name.partition(".")[0] for use in source.imports(file)}
    assert roots - sys.stdlib_module_names <= {"headcount"}
