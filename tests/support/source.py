"""Read the project's own source for the architecture tests: which names of the outside world a file uses."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "headcount"


@dataclass(frozen=True, slots=True, order=True)
class Use:
    """`name` (dotted, as it is called where it is defined) stands in `file` (relative to the package)."""

    file: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"src/headcount/{self.file}:{self.line}: {self.name}"


@dataclass(frozen=True, slots=True)
class Place:
    """Files (a pattern) which may do what is forbidden elsewhere, and why."""

    files: str
    reason: str


def files(root: Path = PACKAGE) -> list[str]:
    """Return the package's Python files, relative to it."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.py"))


@cache
def tree(file: str, root: Path = PACKAGE) -> ast.Module:
    """Return the parsed file."""
    return ast.parse((root / file).read_text(), file)


@cache
def imports(file: str, root: Path = PACKAGE) -> tuple[Use, ...]:
    """Return all imports: as `a.b` for `import a.b`, as `a.b.c` for `from a.b import c`."""
    return tuple(_imports(file, root))


@cache
def names(file: str, root: Path = PACKAGE) -> tuple[Use, ...]:
    """Return each use of an imported or built-in name, under the name it has at home."""
    return tuple(_names(file, root))


@cache
def texts(file: str, root: Path = PACKAGE) -> tuple[Use, ...]:
    """Return each string that is not a docstring, f-strings by their constant parts."""
    return tuple(_texts(file, root))


def _imports(file: str, root: Path) -> Iterator[Use]:
    for node in ast.walk(tree(file, root)):
        if isinstance(node, ast.Import):
            yield from (Use(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Use(file, node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _names(file: str, root: Path) -> Iterator[Use]:
    known = dict(_aliases(file, root))
    for node in ast.walk(tree(file, root)):
        if isinstance(node, ast.Name | ast.Attribute):
            dotted = _dotted(node)
            first, _, rest = dotted.partition(".")
            if dotted and isinstance(node.ctx, ast.Load):
                home = known.get(first, first)
                yield Use(file, node.lineno, f"{home}.{rest}" if rest else home)


def _texts(file: str, root: Path) -> Iterator[Use]:
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree(file, root))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(file, root)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield Use(file, node.lineno, node.value)


def misplaced(uses: Iterable[Use], places: Iterable[Place]) -> list[str]:
    """Return the uses that are in none of the places."""
    return [str(use) for use in sorted(uses) if not any(fnmatchcase(use.file, p.files) for p in places)]


def idle(uses: Iterable[Use], places: Iterable[Place]) -> list[str]:
    """Return the places in which there is nothing of the kind: an exception that is no longer needed."""
    used = {use.file for use in uses}
    return [place.files for place in places if not any(fnmatchcase(file, place.files) for file in used)]


def _aliases(file: str, root: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree(file, root)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _dotted(node: ast.expr) -> str:
    """Return `a.b.c` for such a chain, else the empty string."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
