"""A person takes an agent over in its program's own form, and hands it back: no turn and no count is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.errors import HeadcountError, NotAllowed, Refused
from headcount.domain.model import Caller
from headcount.services import resume
from tests.support import parrots
from tests.support.commands import answer, headcount
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.views import person
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("require_tmux")


@pytest.fixture
def opened(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Headcount]:
    installed = parrots.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(str(installed.site))
    monkeypatch.setenv("PATH", installed.env()["PATH"])
    monkeypatch.setenv("PARROT_HOME", str(tmp_path / "memory"))
    with fleet(home, views=True) as each:
        yield each


@pytest.fixture
def agent(opened: Headcount, tmp_path: Path) -> str:
    """An agent that has done its first turn."""
    task = new_task(opened, tmp_path)
    agent_id = opened.deploy(task, role="bird", harness="parrot", prompt="pieces of eight").agent_id
    assert opened.wait_for_agents([agent_id], timeout=20).done
    return agent_id


def tmux(opened: Headcount, *command: str) -> str:
    socket = str(opened.context.home.tmux_socket)
    argv = ["tmux", "-u", "-N", "-S", socket, *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout


def screen(opened: Headcount, agent_id: str) -> str:
    return tmux(opened, "capture-pane", "-p", "-t", f"={agent_id}:")


def shows(opened: Headcount, agent_id: str, words: str) -> None:
    until(lambda: words in screen(opened, agent_id), what=f"the session shows {words!r}", patience=30)


def types(opened: Headcount, agent_id: str, words: str) -> None:
    tmux(opened, "send-keys", "-t", f"={agent_id}:", "-l", words)
    tmux(opened, "send-keys", "-t", f"={agent_id}:", "Enter")


def facts(opened: Headcount, agent_id: str) -> Any:
    return opened.get_agent(agent_id)


def test_a_person_goes_on_with_the_conversation_and_the_agent_after_him(
    opened: Headcount, agent: str
) -> None:
    made = opened.take_over(agent)
    assert (made.run, made.state, made.tmux_session) == (2, "running", agent)
    shows(opened, agent, "I remember: pieces of eight")
    types(opened, agent, "ahoy")
    shows(opened, agent, "parrot says: ahoy")
    (row,) = opened.list_agents().agents
    assert (row.form, row.run, row.state) == ("interactive", 2, "running")
    assert opened.registry_health_check().healthy
    back = opened.hand_back(agent, "and now alone")
    assert back.run == 3
    assert opened.wait_for_agents([agent], timeout=20).done
    assert "I remember: ahoy" in opened.get_agent_output(agent).text
    one, two, three = facts(opened, agent).runs
    assert (one.outcome, two.outcome, three.outcome) == ("completed", "stopped", "completed")
    assert (one.form, two.form, three.form) == ("headless", "interactive", "headless")
    assert one.session_id == two.session_id == three.session_id
    assert two.reason == "handback"
    assert "parrot says: ahoy" in opened.get_agent_output(agent, run=2).text
    events = opened.read_events(agent_id=agent).events
    assert [each.reason for each in events if each.kind == "run_reserved"] == [None, "takeover", "resume"]


def test_what_an_agent_does_is_ended_first_and_stands_as_a_takeover(
    opened: Headcount, tmp_path: Path
) -> None:
    slow = f'case "$*" in *--json*) sleep 600;; esac\nexec {_program(tmp_path)} "$@"\n'
    (tmp_path / "installed" / "bin" / "parrot").write_text(f"#!/bin/sh\n{slow}")
    task = new_task(opened, tmp_path)
    made = opened.deploy(task, role="bird", harness="parrot", prompt="hello")
    taken = opened.take_over(made.agent_id)
    assert taken.run == 2
    assert not alive(made.pid)
    first = facts(opened, made.agent_id).runs[0]
    assert (first.outcome, first.reason) == ("stopped", "takeover")
    shows(opened, made.agent_id, "parrot>")


def _program(tmp_path: Path) -> str:
    return f"{sys.executable} -I -S {tmp_path}/installed/site/headcount_parrot/program.py"


def test_the_loss_of_the_window_or_of_tmux_leaves_the_program_and_the_window_comes_back(
    opened: Headcount, agent: str
) -> None:
    made = opened.take_over(agent)
    shows(opened, agent, "parrot>")
    types(opened, agent, "one")
    shows(opened, agent, "parrot says: one")
    tmux(opened, "kill-session", "-t", f"={agent}")
    _comes_back(opened, agent, "parrot says: one")
    server = int(tmux(opened, "display-message", "-p", "#{pid}"))
    os.kill(server, signal.SIGKILL)
    until(lambda: not alive(server), what="the server is gone")
    assert alive(made.pid)
    _comes_back(opened, agent, "parrot says: one")  # what appeared before is there again
    types(opened, agent, "two")
    shows(opened, agent, "parrot says: two")
    assert facts(opened, agent).pid == made.pid


def _comes_back(opened: Headcount, agent_id: str, words: str) -> None:
    def again() -> bool:
        opened.validate_and_repair_registry(dry_run=False)
        return words in screen(opened, agent_id)

    until(again, what="the session is there again", patience=30)


def test_keys_are_the_agents_and_the_size_is_that_of_the_person(opened: Headcount, agent: str) -> None:
    opened.take_over(agent)
    shows(opened, agent, "parrot>")
    with person(opened.attach_command(agent)) as somebody:
        somebody.resize(31, 97)  # one line of them is tmux's own
        somebody.press(b"quit\r")  # `q` leaves the window onto a headless run
        shows(opened, agent, "parrot says: quit")

        def fits() -> bool:
            somebody.press(b"size\r")
            return "97 columns, 30 lines" in screen(opened, agent)

        until(fits, what="the terminal has the size of the window", patience=20)
        somebody.press(b"\x02d")
        until(lambda: not alive(somebody.pid), what="Ctrl-B D leaves it")
    assert facts(opened, agent).state == "running"


def test_a_program_that_ends_ends_the_run_with_its_exit_code(opened: Headcount, agent: str) -> None:
    opened.take_over(agent)
    shows(opened, agent, "parrot>")
    types(opened, agent, "bye")
    assert opened.wait_for_agents([agent], timeout=20).done
    found = facts(opened, agent)
    assert (found.outcome, found.exit_code, found.form) == ("completed", 0, "interactive")
    assert opened.hand_back(agent, "go on").run == 3
    assert opened.wait_for_agents([agent], timeout=20).done


def test_a_stop_ends_the_program_and_all_that_it_started(opened: Headcount, agent: str) -> None:
    made = opened.take_over(agent)
    shows(opened, agent, "parrot>")
    children = subprocess.run(["pgrep", "-P", str(made.pid)], capture_output=True, text=True, check=False)
    (child,) = map(int, children.stdout.split())
    stopped = opened.stop_agent(agent)
    assert (stopped.outcome, stopped.survivors) == ("stopped", ())
    assert not alive(child)
    assert not alive(made.pid)
    path = facts(opened, agent).path
    assert not os.path.exists(f"{path}/terminal")


def test_a_takeover_is_refused_with_its_reason_and_the_agent_goes_on(
    opened: Headcount, agent: str, tmp_path: Path
) -> None:
    def refusal(agent_id: str) -> str:
        with pytest.raises(Refused) as error:
            opened.take_over(agent_id)
        assert error.value.hint
        return error.value.code

    task = facts(opened, agent).task_id
    plain = sleeper(opened, task, role="plain").agent_id
    assert refusal(plain) == "cannot_take_over"
    assert facts(opened, plain).state == "running"
    script = opened.deploy(task, role="s", harness="script", prompt='[{"sleep": 600}]').agent_id
    assert refusal(script) == "cannot_take_over"
    opened.take_over(agent)
    assert refusal(agent) == "taken_over"
    with pytest.raises(Refused, match="is running"):
        opened.resume_agent(agent, "go on")
    with pytest.raises(Refused) as error:
        opened.hand_back(plain, "go on")
    assert error.value.code == "not_taken_over"
    inside = opened.acting_as(Caller(agent_id=script, run=1))
    with pytest.raises(NotAllowed):
        inside.take_over(agent)
    with pytest.raises(NotAllowed):
        inside.hand_back(agent, "x")


def test_where_no_view_can_be_made_nobody_takes_over_what_he_cannot_see(
    opened: Headcount, agent: str, home: Path
) -> None:
    with Headcount(home, views=False, autostart=False) as blind, pytest.raises(Refused) as error:
        blind.take_over(agent)
    assert (error.value.code, "switched off" in error.value.message) == ("no_view", True)
    assert len(facts(opened, agent).runs) == 1


def test_a_crash_at_the_terminal_is_not_answered_with_a_resume(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path)
    made = opened.deploy(task, role="bird", harness="parrot", prompt="hello", resume_on_crash=3)
    assert opened.wait_for_agents([made.agent_id], timeout=20).done
    taken = opened.take_over(made.agent_id)
    shows(opened, made.agent_id, "parrot>")
    assert taken.pid is not None
    os.kill(taken.pid, signal.SIGKILL)
    assert opened.wait_for_agents([made.agent_id], timeout=20).done
    assert facts(opened, made.agent_id).outcome == "failed"
    assert resume.crashes(opened.context) == []


def test_a_rebuilt_registry_knows_that_it_was_taken_over(opened: Headcount, agent: str, home: Path) -> None:
    opened.take_over(agent)
    (home / "registry.db").write_bytes(b"no database")
    opened.doctor()
    opened.rebuild_registry()
    assert [run.form for run in facts(opened, agent).runs] == ["headless", "interactive"]
    assert opened.list_agents().agents[0].state == "running"


def test_a_takeover_counts_like_any_run(opened: Headcount, tmp_path: Path) -> None:
    task = new_task(opened, tmp_path, max_live=1)
    agent_id = opened.deploy(task, role="bird", harness="parrot", prompt="hello").agent_id
    assert opened.wait_for_agents([agent_id], timeout=20).done
    other = sleeper(opened, task, role="plain").agent_id
    with pytest.raises(Refused) as error:
        opened.take_over(agent_id)
    assert (error.value.code, error.value.holders) == ("max_live", (other,))
    opened.kill_agent(other)
    opened.halt()
    with pytest.raises(HeadcountError) as halted:
        opened.take_over(agent_id)
    assert halted.value.code == "halted"
    opened.release_halt()
    opened.take_over(agent_id)
    with pytest.raises(Refused):
        sleeper(opened, task, role="plain")
    assert opened.halt().stopped[0].agent_id == agent_id


def test_the_commands_say_what_they_do(opened: Headcount, agent: str) -> None:
    env = {"HEADCOUNT_VIEWS": "1", "PYTHONPATH": os.pathsep.join(_paths())}
    said = headcount("takeover", agent, env=env)
    assert said.out == f"{agent} is yours, run 2: 'headcount attach {agent}'\n", said
    assert re.search(r"bird-\S+ +interactive ", headcount("ps", env=env).out)
    assert "takeover, goes on with run 1" in headcount("show", agent, env=env).out
    made = answer("handback", agent, "--prompt", "go on", env=env)
    assert (made["run"], made["state"]) == (3, "running")
    answer("wait", agent, env=env)


def _paths() -> list[str]:
    return [each for each in sys.path if each.endswith("/site")]
