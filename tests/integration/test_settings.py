"""What can be set, where, and what is said of a setting that is wrong."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.config import Home, Settings, load
from headcount.domain.errors import HeadcountError, InvalidInput
from headcount.domain.model import Limits


def settings(
    home: Path, text: str = "", environ: dict[str, str] | None = None, given: dict[str, Any] | None = None
) -> Settings:
    (home / "settings.toml").write_text(text)
    return load(Home(home), environ or {}, given or {})


def test_arguments_go_before_the_environment_and_that_before_the_file(home: Path) -> None:
    text = "grace = 1\nport = 1\noutput_cap = 1\n[limits]\ntask_max_live = 1\nmax_depth = 1\n"
    found = settings(
        home, text, {"HEADCOUNT_PORT": "2", "HEADCOUNT_MAX_DEPTH": "2", "HEADCOUNT_GRACE": "2"}, {"grace": 3}
    )
    assert (found.grace, found.port, found.output_cap) == (3.0, 2, 1)
    assert (found.limits.task_max_live, found.limits.max_depth, found.limits.task_max_agents) == (1, 2, 45)


@pytest.mark.parametrize("written", ['env = "A, B"', 'env = ["A", "B"]'])
def test_names_are_a_list_or_words(home: Path, written: str) -> None:
    assert settings(home, written).env == ("A", "B")
    assert settings(home, environ={"HEADCOUNT_ENV": "A B"}).env == ("A", "B")


@pytest.mark.parametrize(("word", "value"), [("off", False), ("0", False), ("yes", True), ("True", True)])
def test_a_switch_is_set_by_a_word(home: Path, word: str, value: bool) -> None:
    assert settings(home, environ={"HEADCOUNT_VIEWS": word}).views is value


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense = 1",
        'task_max_live = "many"',
        "task_max_live = -1",
        "task_max_live = 1.5",
        "task_max_live = true",
        "task_max_live = [1]",
        "task_max_live = 10000000000000000000",
        "grace = nan",
        "grace = inf",
        "grace = -1",
        "grace = 1e300",
        "headcount_every = 0",
        "port = 65536",
        "views = 3",
        "env = 3",
        "env = [1]",
        "limits = 3",
        "not TOML",
    ],
)
def test_a_wrong_setting_is_named_and_nothing_goes_on_without_it(home: Path, wrong: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        settings(home, wrong)
    assert wrong.partition(" = ")[0] in refused.value.message or "TOML" in refused.value.message


def test_a_file_that_is_no_text_or_no_file_is_an_error_of_ours(home: Path) -> None:
    file = home / "settings.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput):
        Headcount(home)
    file.unlink()
    file.mkdir()
    with pytest.raises(HeadcountError):
        Headcount(home)


@pytest.mark.parametrize("most", [0, -1, 10**9, 10**30])
def test_a_limit_of_a_task_that_cannot_be_is_refused(home: Path, tmp_path: Path, most: int) -> None:
    with Headcount(home, views=False, autostart=False) as fleet, pytest.raises(InvalidInput):
        fleet.create_task("work", project=tmp_path, max_live=most)


def test_the_page_of_settings_has_each_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^ ]+) \|", page, re.MULTILINE))
    every = (*fields(Settings), *fields(Limits))
    ours = {each.name: each.default for each in every if each.default is not MISSING}
    assert listed == {
        name: "none" if value == () else f"{value}".lower().removesuffix(".0") for name, value in ours.items()
    }
