"""The daemon as a systemd user unit: what it says, what systemd thinks of it, and having it installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from headcount.domain.unit import unit_name, unit_text
from tests.support import daemons, needs
from tests.support.commands import headcount
from tests.support.fleets import alive, fleet, new_task, sleeper

SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
[ "$2" = is-active ] && echo active
[ "$2" = "$FAILS" ] && echo "it does not" >&2 && exit 1
exit 0
"""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose systemd only writes down what it is told."""
    script = tmp_path / "bin" / "systemctl"
    script.parent.mkdir()
    script.write_text(SYSTEMCTL.format(log=tmp_path / "log"))
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "PATH": path}


def words(unit: str, name: str) -> list[str]:
    """Return the words behind `name=`, with systemd's own marks undone."""
    (line,) = [each for each in unit.splitlines() if each.startswith(f"{name}=")]
    return shlex.split(line.partition("=")[2].replace("%%", "%").replace("$$", "$"))


def test_the_unit_can_be_verified_by_systemd(tmp_path: Path) -> None:
    analyze = needs.program("systemd-analyze", how="apt-get install systemd")
    text = unit_text((shutil.which("true") or "/bin/true",), home="/home/a b/100%", path="/bin:/a b")
    unit = tmp_path / "headcount.service"
    unit.write_text(text)
    checked = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stderr.strip()) == (0, "")


def test_the_unit_says_what_keeps_agents_alive() -> None:
    lines = unit_text(("/bin/daemon",), home="/h", path="/bin").splitlines()
    must = ("Type=notify", "WatchdogSec=90", "Restart=on-failure", "KillMode=process", "OOMPolicy=continue")
    assert set(must) <= set(lines)


@pytest.mark.parametrize("home", ["/h/with blank", '/h/with"quote', "/h/100%", "/h/$HOME", "/h/back\\slash"])
def test_a_path_stays_one_word_in_the_unit(home: str) -> None:
    unit = unit_text(("/bin/d", "--home", home), home=home, path=f"/bin:{home}")
    assert words(unit, "ExecStart") == ["/bin/d", "--home", home]
    assert len(words(unit, "Environment")) == 1


def test_each_home_has_a_unit_of_its_own() -> None:
    assert unit_name("/h", is_default=True) == "headcount.service"
    names = {unit_name(home, is_default=False) for home in ("/a", "/b")}
    assert len(names) == 2
    assert all(name.startswith("headcount-") for name in names)


def test_the_units_command_is_a_daemon_that_says_when_it_is_ready(home: Path) -> None:
    unit = headcount("service", "print", "--json").facts["unit"]
    with daemons.manager(str(home / "n"), 60) as heard:
        env = daemons.environment(home, heard.env)
        with subprocess.Popen(words(unit, "ExecStart"), env=env) as process:
            assert heard.hears()["MAINPID"] == str(process.pid)
            process.terminate()
            assert process.wait(20) == 0


def test_where_systemd_is_missing_it_says_so_and_prints_the_unit(home: Path, tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    printed = headcount("service", "print", env=env)
    assert printed.code == 0
    assert "systemctl is not installed" in printed.err
    assert f'--home" "{home}"' in printed.out
    refused = headcount("service", "install", env=env)
    assert refused.code == 5
    assert "service print" in refused.err
    assert not (tmp_path / ".config").exists()
    assert "is not installed" in headcount("service", "status", env=env).out


def test_it_is_installed_seen_and_removed(home: Path, machine: dict[str, str], tmp_path: Path) -> None:
    done = headcount("service", "install", env=machine)
    assert done.code == 0, done.err
    facts = headcount("service", "status", "--json", env=machine).facts
    unit = Path(facts["path"])
    assert unit.parent == tmp_path / "config/systemd/user"
    assert unit.read_text() == facts["unit"]
    assert (facts["installed"], facts["current"], facts["state"]) == (True, True, "active")
    unit.write_text(facts["unit"] + "# mine\n")
    assert "writes it anew" in headcount("service", "status", env=machine).out
    assert headcount("service", "remove", env=machine).code == 0
    assert not unit.exists()
    told = [line.split()[1:] for line in (tmp_path / "log").read_text().splitlines()]
    acts = [" ".join(each) for each in told if each[0] not in ("show", "is-active")]
    assert acts == [
        "daemon-reload",
        f"enable {unit.name}",
        f"restart {unit.name}",
        f"disable --now {unit.name}",
        "daemon-reload",
    ]


def test_what_systemd_refuses_is_said(home: Path, machine: dict[str, str]) -> None:
    refused = headcount("service", "install", env={**machine, "FAILS": "enable"})
    assert refused.code == 5
    assert "it does not" in refused.err


def test_an_agent_installs_nothing(home: Path, machine: dict[str, str]) -> None:
    refused = headcount("service", "install", env={**machine, "HEADCOUNT_AGENT_ID": "a-0000000000000000"})
    assert refused.code == 3, refused


def test_its_end_as_the_unit_ends_it_leaves_agents_alone(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemons.daemon(home) as process:
        made = sleeper(opened, new_task(opened, tmp_path))
        process.kill()  # KillMode=process: the watchdog's way, to this process alone
        process.wait(10)
        assert alive(made.pid)
