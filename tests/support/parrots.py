"""The example of a harness in a package of its own (examples/headcount-parrot), installed for a test."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "headcount-parrot"


@dataclass(frozen=True)
class Installed:
    """Where it was put: `site` is on the path of Python, `bin` on that of programs."""

    site: Path
    bin: Path

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.site), os.environ.get("PYTHONPATH")))),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            **(more or {}),
        }


def install(place: Path) -> Installed:
    """Lay it out as an installer would: its modules, what it says of itself, and its program."""
    made = Installed(place / "site", place / "bin")
    shutil.copytree(EXAMPLE / "headcount_parrot", made.site / "headcount_parrot", dirs_exist_ok=True)
    about = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    register(made.site, about["name"], about["entry-points"]["headcount.harnesses"])
    script(made.bin / "parrot", made.site / "headcount_parrot" / "program.py")
    return made


def register(site: Path, package: str, harnesses: Mapping[str, str]) -> None:
    """Have Python find a package with these entry points in `site`."""
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in harnesses.items()]
    (info / "entry_points.txt").write_text("\n".join(["[headcount.harnesses]", *lines, ""]))


def script(path: Path, program: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {program} "$@"\n')
    path.chmod(0o755)
