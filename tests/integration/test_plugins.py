"""A harness of another package: found by its entry point, held to the contract, harmless if it is broken."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support import parrots
from tests.support.commands import answer, environment, headcount
from tests.support.parrots import EXAMPLE, Installed
from tests.support.source import REPOSITORY

DOC = (REPOSITORY / "docs" / "writing-a-harness.md").read_text()


@pytest.fixture
def parrot(tmp_path: Path) -> Installed:
    return parrots.install(tmp_path / "installed")


def listed(env: dict[str, str]) -> dict[str, dict[str, object]]:
    return {each["name"]: each for each in answer("harness", "list", env=env)["harnesses"]}


def write(site: Path, name: str, text: str) -> None:
    (site / f"{name}.py").write_text(text)


def test_the_guide_shows_the_example_as_it_is() -> None:
    assert (EXAMPLE / "headcount_parrot" / "__init__.py").read_text() in DOC
    assert (EXAMPLE / "pyproject.toml").read_text() in DOC


def test_it_is_listed_deployed_and_resumed_like_our_own(
    home: Path, parrot: Installed, tmp_path: Path
) -> None:
    env = parrot.env({"PARROT_HOME": str(tmp_path / "memory")})
    found = listed(env)["parrot"]
    assert (found["state"], found["version"], found["package"]) == ("ready", "1.0", "headcount-parrot")
    assert found["abilities"] == ["resume", "preset_session", "takeover"]
    task = answer("task", "create", "work", "--project", str(tmp_path), env=env)["task_id"]
    made = answer("deploy", task, "--role", "bird", "--harness", "parrot", "--prompt", "hello", env=env)
    done = answer("wait", made["agent_id"], env=env)["agents"][0]
    assert (done["outcome"], done["result"]["text"]) == ("completed", "hello")
    answer("resume", made["agent_id"], "--prompt", "again", env=env)
    answer("wait", made["agent_id"], env=env)
    assert "I remember: hello" in headcount("logs", made["agent_id"], env=env).out
    refused = headcount(
        "deploy", task, "--role", "x", "--harness", "parrot", "--prompt", "x", "--model", "m", env=env
    )
    assert "parrot has no model" in refused.err


def test_a_package_that_is_taken_away_leaves_its_runs_countable(
    home: Path, parrot: Installed, tmp_path: Path
) -> None:
    env = parrot.env({"PARROT_HOME": str(tmp_path / "memory")})
    parrots.script(parrot.bin / "parrot", tmp_path / "slow.py")
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")
    task = answer("task", "create", "work", "--project", str(tmp_path), env=env)["task_id"]
    made = answer("deploy", task, "--role", "bird", "--harness", "parrot", "--prompt", "hello", env=env)
    assert [each["agent_id"] for each in answer("ps")["agents"]] == [made["agent_id"]]  # without PYTHONPATH
    assert answer("doctor")["healthy"] is True
    assert answer("stop", made["agent_id"])["stopped"][0]["outcome"] == "stopped"
    resumed = headcount("resume", made["agent_id"], "--prompt", "x")
    assert "no harness 'parrot'" in resumed.err


def test_the_suite_of_our_own_harnesses_runs_over_it(parrot: Installed) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/contract/test_harnesses.py"]
    env = environment(parrot.env({"HARNESSES": "parrot"}))
    done = subprocess.run(
        [*argv, "-k", "parrot"],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "7 passed" in done.stdout, done.stdout[-500:]


BROKEN = {
    "raises at its import": ("raise SystemExit('no licence')", "no licence"),
    "lacks what it names": ("", "AttributeError"),
    "is no harness": ("class Bird: pass", "no method check"),
    "has a part of a wrong type": (
        "from headcount_parrot import Parrot\nclass Bird(Parrot):\n    name = 'bad'\n    renders = 'yes'",
        "renders",
    ),
    "knows an ability that is none": (
        "from headcount_parrot import Parrot\nclass Bird(Parrot):\n    name, abilities = 'bad', {'flies'}",
        "flies",
    ),
    "has another name": ("from headcount_parrot import Parrot as Bird", "calls itself 'parrot'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_that_is_broken_is_named_and_breaks_nothing(case: str, home: Path, parrot: Installed) -> None:
    text, why = BROKEN[case]
    write(parrot.site, "broken", text)
    parrots.register(parrot.site, "bad-birds", {"bad": "broken:Bird"})
    env = parrot.env()
    found = listed(env)
    assert (found["bad"]["state"], found["bad"]["package"]) == ("broken", "bad-birds")
    assert why in str(found["bad"]["why"])
    assert found["parrot"]["state"] == "ready"
    checks = headcount("doctor", "--json", env=env).facts["checks"]
    assert [each["detail"] for each in checks if each["ok"] is False] == [f"bad: {found['bad']['why']}"]
    task = answer("task", "create", "work", env=env)["task_id"]
    refused = headcount("deploy", task, "--role", "x", "--harness", "bad", "--prompt", "x", "--json", env=env)
    assert (refused.code, refused.error["code"]) == (5, "harness_broken")
    assert answer("status", task, env=env)["counts"]["total"] == 0


def test_a_name_that_is_taken_is_refused(home: Path, parrot: Installed) -> None:
    parrots.register(parrot.site, "other-birds", {"script": "headcount_parrot:Parrot"})
    parrots.register(parrot.site, "more-birds", {"parrot": "headcount_parrot:Parrot"})
    rows = answer("harness", "list", env=parrot.env())["harnesses"]
    ours = [(each["state"], each["package"]) for each in rows if each["name"] == "script"]
    assert ours == [("ready", None), ("broken", "other-birds")]
    both = [(each["state"], each["package"]) for each in rows if each["name"] == "parrot"]
    assert both == [("broken", "headcount-parrot"), ("broken", "more-birds")]


def test_what_it_raises_is_told_as_its_own_failure_and_a_run_still_ends(
    home: Path, parrot: Installed, tmp_path: Path
) -> None:
    write(
        parrot.site,
        "shaky",
        """
from headcount_parrot import Parrot

class Shaky(Parrot):
    name = "shaky"
    def command(self, spec):
        if "never" in spec.prompt:
            raise KeyError("never")
        return super().command(spec)
    def read(self, line):
        raise ValueError("a line")
    def verdict(self, record, tail):
        raise ZeroDivisionError("an end")
""",
    )
    parrots.register(parrot.site, "shaky-birds", {"shaky": "shaky:Shaky"})
    env = parrot.env({"PARROT_HOME": str(tmp_path / "memory")})
    task = answer("task", "create", "work", "--project", str(tmp_path), env=env)["task_id"]
    deploy = ("deploy", task, "--role", "bird", "--harness", "shaky", "--prompt")
    failed = headcount(*deploy, "never", env=env)
    assert failed.code == 5
    assert "harness shaky" in failed.err
    made = answer(*deploy, "hello", env=env)
    done = answer("wait", made["agent_id"], env=env)["agents"][0]
    assert done["outcome"] == "completed"
    assert "ZeroDivisionError" in done["reason"]
    assert "hello" in headcount("logs", made["agent_id"], env=env).out


def test_no_command_looks_for_packages_unless_one_is_named(parrot: Installed) -> None:
    code = "from headcount.harnesses import catalogue as c; c.find('claude'); c.find_of_run('script')"
    code += "; print('importlib.metadata' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(REPOSITORY / 'src')!r}); {code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == "False\n"


@pytest.mark.slow
def test_the_example_installs_as_a_package_of_its_own(home: Path, tmp_path: Path) -> None:
    """Built, installed into an environment that has only it, and used from there."""
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(built, cwd=EXAMPLE, check=True, capture_output=True, timeout=60)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=60)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "headcount.pth").write_text(f"{REPOSITORY / 'src'}\n")  # as an editable install of ours would
    env = Installed(site, tmp_path / "venv" / "bin").env()
    found = listed(env)["parrot"]
    assert (found["state"], found["version"]) == ("ready", "1.0")
    assert str(found["path"]) == str(tmp_path / "venv" / "bin" / "parrot")
