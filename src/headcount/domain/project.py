"""What a project is, by what its own manifest files say. Parsed exactly; what is not stated is not guessed.

Nothing of the files' own text gets out, only words of the tables here: a manifest cannot speak to an agent.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

READ: Final = (
    "pyproject.toml",
    "setup.cfg",
    "requirements.txt",
    "requirements-dev.txt",
    "requirements_dev.txt",
    "dev-requirements.txt",
    "requirements-test.txt",
    "package.json",
    "go.mod",
    "Cargo.toml",
    "Makefile",
)
"""The files whose text `detect` wants."""

LOOKED_FOR: Final = (
    "setup.py",
    "pytest.ini",
    "tox.ini",
    "noxfile.py",
    "uv.lock",
    "poetry.lock",
    "pdm.lock",
    "Pipfile",
    "package-lock.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "bun.lockb",
    "tsconfig.json",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "gradlew",
    "Gemfile",
    "composer.json",
    "mix.exs",
    "Package.swift",
    "CMakeLists.txt",
    "AGENTS.md",
    "CLAUDE.md",
    "CONTRIBUTING.md",
    ".claude/CLAUDE.md",
)
"""The files whose presence says something."""


@dataclass(frozen=True, slots=True)
class Project:
    """What is known of a project. `broken` names the files that should have said more."""

    languages: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = ()
    package_managers: tuple[str, ...] = ()
    test_commands: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


Facts = Iterator[tuple[str, str]]
"""Pairs of a field of `Project` and one value for it."""

LANGUAGES, FRAMEWORKS, MANAGERS, TESTS = "languages", "frameworks", "package_managers", "test_commands"


def detect(texts: Mapping[str, str], present: Collection[str]) -> Project:
    """Return what the manifest files say: `texts` of `READ`, and the names of those that are `present`.

    A file that does not parse is named in `broken`; nothing is raised.
    """
    found: dict[str, dict[str, None]] = {each.name: {} for each in fields(Project)}
    names = {*present, *texts}
    for read in (_make, _python, _node, _go, _rust, _others):
        for name, value in read(texts, names, found["broken"]):
            found[name][value] = None  # a dict keeps the order, and one of each
    found["instructions"] = {name: None for name in LOOKED_FOR if name in names and name.endswith(".md")}
    return Project(**{name: tuple(values) for name, values in found.items()})


def _parsed(
    texts: Mapping[str, str], name: str, parse: Callable[[str], Any], broken: dict[str, None]
) -> dict[str, Any]:
    try:
        value = parse(texts[name]) if name in texts else {}
    except (ValueError, RecursionError):  # TOMLDecodeError and JSONDecodeError are ValueErrors
        value = None
    if not isinstance(value, dict):
        broken[name] = None
        return {}
    return value


def _table(value: Any, *path: str) -> Mapping[str, Any]:
    """Return the table at `path`, or an empty one where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))


# ---------------------------------------------------------------- make


def _make(texts: Mapping[str, str], _names: Collection[str], _broken: dict[str, None]) -> Facts:
    targets = set(_targets(texts.get("Makefile", "")))
    for target in ("test", "check"):
        if target in targets:
            yield TESTS, f"make {target}"
            return


def _targets(makefile: str) -> Iterator[str]:
    for line in makefile.splitlines():
        head, colon, rest = line.partition(":")
        if colon and not head[:1].isspace() and not rest.startswith(("=", ":=")):  # `:=` and `::=` assign
            yield from head.split()


# ---------------------------------------------------------------- Python

_PYTHON_FRAMEWORKS: Final = {
    "aiohttp": "aiohttp",
    "celery": "Celery",
    "click": "Click",
    "django": "Django",
    "fastapi": "FastAPI",
    "flask": "Flask",
    "mcp": "MCP",
    "numpy": "NumPy",
    "pandas": "pandas",
    "pydantic": "Pydantic",
    "pytest": "pytest",
    "sqlalchemy": "SQLAlchemy",
    "starlette": "Starlette",
    "torch": "PyTorch",
    "typer": "Typer",
}
_REQUIREMENT: Final = re.compile(r"[ \t]*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
_PYTHON_FILES: Final = frozenset(
    {"pyproject.toml", "setup.cfg", "setup.py", "Pipfile", "pytest.ini", "tox.ini"}
)


def _python(texts: Mapping[str, str], names: Collection[str], broken: dict[str, None]) -> Facts:
    requirement_files = [name for name in texts if name.endswith(".txt")]
    if not requirement_files and not _PYTHON_FILES.intersection(names):
        return
    pyproject = _parsed(texts, "pyproject.toml", tomllib.loads, broken)
    setup = _parsed(texts, "setup.cfg", _ini, broken)
    needed = {_normal(each) for each in _python_needs(pyproject, setup)}
    for name in requirement_files:
        needed |= {_normal(line) for line in texts[name].splitlines()}
    yield LANGUAGES, "Python"
    for package in sorted(needed & _PYTHON_FRAMEWORKS.keys()):
        yield FRAMEWORKS, _PYTHON_FRAMEWORKS[package]
    manager, prefix = _python_manager(pyproject, names)
    yield MANAGERS, manager
    if "noxfile.py" in names:
        yield TESTS, "nox"
    elif "tox.ini" in names or _table(pyproject, "tool", "tox"):
        yield TESTS, "tox"
    if (
        "pytest" in needed
        or "pytest.ini" in names
        or _table(pyproject, "tool", "pytest")
        or "tool:pytest" in setup
    ):
        yield TESTS, f"{prefix}pytest"


def _ini(text: str) -> dict[str, dict[str, str]]:
    import configparser

    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error)) from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _python_needs(pyproject: Mapping[str, Any], setup: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    project = _table(pyproject, "project")
    yield from _strings(project.get("dependencies"))
    for group in (
        *_table(project, "optional-dependencies").values(),
        *_table(pyproject, "dependency-groups").values(),
    ):
        yield from _strings(group)
    poetry = _table(pyproject, "tool", "poetry")
    yield from _table(poetry, "dependencies")
    yield from _table(poetry, "dev-dependencies")
    for group in _table(poetry, "group").values():
        yield from _table(group, "dependencies")
    yield from setup.get("options", {}).get("install_requires", "").splitlines()
    for extra in setup.get("options.extras_require", {}).values():
        yield from extra.splitlines()


def _normal(requirement: str) -> str:
    """Return the normalized name (PEP 503) of a requirement, or "" for a comment or an option."""
    match = _REQUIREMENT.match(requirement)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""


_PYTHON_MANAGERS: Final = (
    ("uv", "uv.lock", "uv run "),
    ("poetry", "poetry.lock", "poetry run "),
    ("pdm", "pdm.lock", "pdm run "),
)


def _python_manager(pyproject: Mapping[str, Any], names: Collection[str]) -> tuple[str, str]:
    """Return its name and what goes before a command; a lock file says more than a table of settings."""
    for name, lock, prefix in _PYTHON_MANAGERS:
        if lock in names:
            return name, prefix
    for name, _, prefix in _PYTHON_MANAGERS:
        if _table(pyproject, "tool", name):
            return name, prefix
    return ("pipenv", "pipenv run ") if "Pipfile" in names else ("pip", "")


# ---------------------------------------------------------------- JavaScript, TypeScript

_NODE_FRAMEWORKS: Final = {
    "@angular/core": "Angular",
    "@nestjs/core": "NestJS",
    "astro": "Astro",
    "express": "Express",
    "fastify": "Fastify",
    "jest": "Jest",
    "next": "Next.js",
    "nuxt": "Nuxt",
    "playwright": "Playwright",
    "react": "React",
    "svelte": "Svelte",
    "vite": "Vite",
    "vitest": "Vitest",
    "vue": "Vue",
}
_NODE_LOCKS: Final = {
    "pnpm-lock.yaml": "pnpm",
    "yarn.lock": "yarn",
    "bun.lock": "bun",
    "bun.lockb": "bun",
    "package-lock.json": "npm",
}
_NO_TEST: Final = "no test specified"
"""What `npm init` writes as the test script: it fails on purpose."""


def _node(texts: Mapping[str, str], names: Collection[str], broken: dict[str, None]) -> Facts:
    if "package.json" not in names:
        return
    package = _parsed(texts, "package.json", json.loads, broken)
    needed = {name for kind in ("dependencies", "devDependencies") for name in _table(package, kind)}
    yield LANGUAGES, "TypeScript" if "tsconfig.json" in names or "typescript" in needed else "JavaScript"
    for name in sorted(needed & _NODE_FRAMEWORKS.keys()):
        yield FRAMEWORKS, _NODE_FRAMEWORKS[name]
    manager = _node_manager(package, names)
    yield MANAGERS, manager
    test = _table(package, "scripts").get("test")
    if isinstance(test, str) and test.strip() and _NO_TEST not in test:
        yield TESTS, f"{manager} run test" if manager == "bun" else f"{manager} test"


def _node_manager(package: Mapping[str, Any], names: Collection[str]) -> str:
    stated = package.get("packageManager")
    if isinstance(stated, str) and (name := stated.partition("@")[0]) in _NODE_LOCKS.values():
        return name
    return next((manager for lock, manager in _NODE_LOCKS.items() if lock in names), "npm")


# ---------------------------------------------------------------- Go, Rust, and those known by presence

_GO_FRAMEWORKS: Final = {
    "github.com/gin-gonic/gin": "Gin",
    "github.com/gofiber/fiber/v2": "Fiber",
    "github.com/labstack/echo/v4": "Echo",
    "github.com/spf13/cobra": "Cobra",
    "google.golang.org/grpc": "gRPC",
}
_GO_REQUIRE: Final = re.compile(r"^(?:require[ \t]+|[ \t]+)([^\s()/]+/\S+)[ \t]+v\d", re.MULTILINE)


def _go(texts: Mapping[str, str], names: Collection[str], _broken: dict[str, None]) -> Facts:
    if "go.mod" not in names:
        return
    yield LANGUAGES, "Go"
    for module in sorted(set(_GO_REQUIRE.findall(texts.get("go.mod", ""))) & _GO_FRAMEWORKS.keys()):
        yield FRAMEWORKS, _GO_FRAMEWORKS[module]
    yield MANAGERS, "go"
    yield TESTS, "go test ./..."


_RUST_FRAMEWORKS: Final = {
    "actix-web": "Actix Web",
    "axum": "Axum",
    "clap": "clap",
    "rocket": "Rocket",
    "serde": "Serde",
    "tokio": "Tokio",
}


def _rust(texts: Mapping[str, str], names: Collection[str], broken: dict[str, None]) -> Facts:
    if "Cargo.toml" not in names:
        return
    cargo = _parsed(texts, "Cargo.toml", tomllib.loads, broken)
    tables = (
        _table(cargo, "dependencies"),
        _table(cargo, "dev-dependencies"),
        _table(cargo, "workspace", "dependencies"),
    )
    yield LANGUAGES, "Rust"
    for name in sorted({name for table in tables for name in table} & _RUST_FRAMEWORKS.keys()):
        yield FRAMEWORKS, _RUST_FRAMEWORKS[name]
    yield MANAGERS, "cargo"
    yield TESTS, "cargo test --workspace" if _table(cargo, "workspace") else "cargo test"


_BY_PRESENCE: Final = (
    ("pom.xml", "Java", "maven", "mvn test"),
    ("build.gradle", "Java", "gradle", "gradle test"),
    ("build.gradle.kts", "Kotlin", "gradle", "gradle test"),
    ("Gemfile", "Ruby", "bundler", ""),
    ("composer.json", "PHP", "composer", ""),
    ("mix.exs", "Elixir", "mix", "mix test"),
    ("Package.swift", "Swift", "swift", "swift test"),
    ("CMakeLists.txt", "C/C++", "cmake", ""),
)


def _others(_texts: Mapping[str, str], names: Collection[str], _broken: dict[str, None]) -> Facts:
    for file, language, manager, test in _BY_PRESENCE:
        if file not in names:
            continue
        yield LANGUAGES, language
        yield MANAGERS, manager
        if test:
            wrapped = manager == "gradle" and "gradlew" in names
            yield TESTS, f"./gradlew {test.partition(' ')[2]}" if wrapped else test
