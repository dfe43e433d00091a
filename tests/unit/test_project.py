"""What a project is, by its manifest files: exactly what they say, and nothing that they merely mention."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.domain.project import LOOKED_FOR, READ, Project, detect
from tests.support.examples import few


def test_a_python_project_with_uv_and_pytest() -> None:
    pyproject = """
    [project]
    dependencies = ["FastAPI[all]>=0.1; python_version > '3'", "SQLAlchemy ~= 2"]
    [dependency-groups]
    dev = ["pytest>=9", {include-group = "x"}]
    """
    found = detect(
        {"pyproject.toml": pyproject, "Makefile": "all: x\n\ntest check:\n\tpytest\n"},
        ["uv.lock", "AGENTS.md"],
    )
    assert found == Project(
        languages=("Python",),
        frameworks=("FastAPI", "pytest", "SQLAlchemy"),
        package_managers=("uv",),
        test_commands=("make test", "uv run pytest"),
        instructions=("AGENTS.md",),
    )


def test_a_mention_is_not_a_dependency() -> None:
    pyproject = (
        '[project]\ndescription = "django, pytest"\ndependencies = ["django-like", "flask_x"]\n# fastapi\n'
    )
    requirements = "# django\n-r flask\n--index-url fastapi\n"
    package = json.dumps({"description": "react", "keywords": ["vue"], "dependencies": {"react-like": "1"}})
    found = detect(
        {"pyproject.toml": pyproject, "requirements.txt": requirements, "package.json": package}, []
    )
    assert found.frameworks == ()
    assert found.test_commands == ()


@pytest.mark.parametrize(
    ("texts", "present", "manager"),
    [
        ({"pyproject.toml": "[tool.poetry.dependencies]\ndjango = '*'"}, [], "poetry"),
        ({"pyproject.toml": "[tool.uv]\ndev-dependencies = []"}, ["poetry.lock"], "poetry"),
        ({"pyproject.toml": "[tool.pdm]\nx = 1"}, [], "pdm"),
        ({}, ["Pipfile"], "pipenv"),
        ({"requirements.txt": ""}, [], "pip"),
        ({"package.json": "{}"}, ["yarn.lock"], "yarn"),
        ({"package.json": '{"packageManager": "pnpm@9.1.0"}'}, ["yarn.lock"], "pnpm"),
        ({"package.json": '{"packageManager": "rm -rf"}'}, [], "npm"),
        ({"package.json": "{}"}, ["bun.lockb"], "bun"),
        ({"go.mod": "module x"}, [], "go"),
        ({"Cargo.toml": ""}, [], "cargo"),
        ({}, ["pom.xml"], "maven"),
    ],
)
def test_the_package_manager(texts: dict[str, str], present: list[str], manager: str) -> None:
    assert detect(texts, present).package_managers == (manager,)


@pytest.mark.parametrize(
    ("texts", "present", "command"),
    [
        ({"package.json": '{"scripts": {"test": "vitest"}}'}, ["pnpm-lock.yaml"], "pnpm test"),
        ({"package.json": '{"scripts": {"test": "vitest"}}'}, ["bun.lock"], "bun run test"),
        ({"Cargo.toml": "[workspace]\nmembers = []"}, [], "cargo test --workspace"),
        ({"go.mod": "module x"}, [], "go test ./..."),
        ({"setup.cfg": "[tool:pytest]\naddopts = -q"}, [], "pytest"),
        ({"setup.cfg": "[options.extras_require]\ntest =\n  pytest\n"}, [], "pytest"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\naddopts = []"}, ["poetry.lock"], "poetry run pytest"),
        ({}, ["build.gradle", "gradlew"], "./gradlew test"),
        ({}, ["tox.ini"], "tox"),
        ({"Makefile": ".PHONY: test\ncheck ::\n\ttrue\n"}, [], "make check"),
    ],
)
def test_the_test_command(texts: dict[str, str], present: list[str], command: str) -> None:
    assert detect(texts, present).test_commands == (command,)


@pytest.mark.parametrize(
    "texts",
    [
        {"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'},
        {"package.json": '{"scripts": {"test": 1}}'},
        {"Makefile": "test := x\ntest ::= y\n\ttest: z\nlatest: a\n"},
    ],
)
def test_what_is_no_test_command(texts: dict[str, str]) -> None:
    assert detect(texts, []).test_commands == ()


def test_typescript_and_its_frameworks() -> None:
    package = json.dumps(
        {"dependencies": {"react": "19", "next": "16"}, "devDependencies": {"typescript": "6"}}
    )
    found = detect({"package.json": package}, [])
    assert (found.languages, found.frameworks) == (("TypeScript",), ("Next.js", "React"))


def test_go_and_rust_frameworks() -> None:
    mod = "module x\n\nrequire (\n\tgithub.com/spf13/cobra v1.8.0\n\tgithub.com/x/y v1 // indirect\n)\n"
    found = detect(
        {"go.mod": mod, "Cargo.toml": "[dependencies]\naxum = '1'\n[dev-dependencies]\ntokio = '1'"}, []
    )
    assert found.frameworks == ("Cobra", "Axum", "Tokio")
    assert found.languages == ("Go", "Rust")


@pytest.mark.parametrize("name", ["pyproject.toml", "package.json", "Cargo.toml", "setup.cfg"])
@pytest.mark.parametrize("text", ["{[", "[" * 100_000, "\0", "a"])
def test_a_broken_file_is_named_and_harms_nothing(name: str, text: str) -> None:
    found = detect({name: text, "go.mod": "module x"}, [])
    assert found.broken == (name,)
    assert "Go" in found.languages


@few
@given(st.dictionaries(st.sampled_from(READ), st.text(), max_size=4), st.sets(st.sampled_from(LOOKED_FOR)))
def test_anything_at_all_is_survived(texts: dict[str, str], present: set[str]) -> None:
    assert isinstance(detect(texts, present), Project)
