"""Reading manifest files from real directories, friendly and hostile."""

import os
from pathlib import Path

from headcount.domain.project import Project
from headcount.services.project_files import SIZE_MAX, read_project


def test_a_projects_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['django']\n")
    (tmp_path / "uv.lock").touch()
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "CLAUDE.md").touch()
    found = read_project(tmp_path)
    assert (found.frameworks, found.package_managers) == (("Django",), ("uv",))
    assert found.instructions == (".claude/CLAUDE.md",)


def test_a_directory_that_is_none_is_an_empty_project(tmp_path: Path) -> None:
    assert read_project(tmp_path / "missing") == Project()
    (tmp_path / "file").touch()
    assert read_project(tmp_path / "file") == Project()


def test_nothing_outside_is_followed_and_nothing_odd_is_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "package.json").write_text("{}")
    (outside / "CLAUDE.md").touch()
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").symlink_to(outside / "package.json")
    (project / ".claude").symlink_to(outside)
    os.mkfifo(project / "pyproject.toml")
    (project / "Cargo.toml").mkdir()
    assert read_project(project) == Project()


def test_a_huge_file_is_not_read_and_bytes_that_are_no_text_are_survived(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(" " * (SIZE_MAX + 1))
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfe\ndjango\n")
    assert read_project(tmp_path) == Project(
        languages=("Python",), frameworks=("Django",), package_managers=("pip",)
    )
