"""The command line on a fleet of real processes: each command, a mistake in each, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount.doors.cli import edge
from tests.support.commands import QUIET, answer, headcount, on_a_terminal
from tests.support.fleets import alive
from tests.support.waiting import until

SLEEP = ("--", "/bin/sh", "-c", "exec sleep 600")
UNKNOWN_TASK = "task-0000000000000000"
UNKNOWN_AGENT = "builder-0000000000000000"


@pytest.fixture
def task(home: Path) -> Iterator[str]:
    """A task; at the end nothing of this home is live."""
    yield create()
    headcount("halt")


def create(*args: str) -> str:
    made: str = answer("task", "create", "a piece of work", *args)["task_id"]
    return made


def deploy(task: str, role: str, *args: str) -> Any:
    return answer("deploy", task, "--role", role, *(args or SLEEP))


def shell(task: str, role: str, script: str, *args: str) -> str:
    """Deploy a shell script and return the agent's id."""
    agent: str = deploy(task, role, *args, "--", "/bin/sh", "-c", script)["agent_id"]
    return agent


def agents(*args: str) -> dict[str, Any]:
    return {each["agent_id"]: each for each in answer("ps", *args)["agents"]}


# tasks


def test_a_task_lives_from_create_to_archive(home: Path, tmp_path: Path) -> None:
    limits = (
        "--max-live",
        "3",
        "--max-agents",
        "4",
        "--max-depth",
        "2",
        "--spawn-rule",
        "lead=builder,tester",
    )
    made = answer("task", "create", "sort it out", "--project", str(tmp_path), "--priority", "P1", *limits)
    assert (made["max_live"], made["max_agents"], made["max_depth"], made["priority"]) == (3, 4, 2, "P1")
    assert (made["project"], made["spawn_rules"]) == (str(tmp_path), {"lead": ["builder", "tester"]})
    task = made["task_id"]
    assert [each["task_id"] for each in answer("task", "list")["tasks"]] == [task]
    assert answer("task", "show", task) == made
    assert "sort it out" in headcount("task", "show", task).out
    assert headcount("task", "list").out.splitlines()[1].split()[:3] == [task, "open", "P1"]
    assert answer("task", "close", task)["state"] == "closed"
    assert answer("task", "archive", task)["state"] == "archived"
    assert answer("task", "list")["tasks"] == []


def test_create_prints_the_id_alone(home: Path) -> None:
    assert re.fullmatch(r"task-[0-9a-z]{16}\n", headcount("task", "create", "x").out)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("task", "create", " "), 2),
        (("task", "create", "x", "--project", "/nowhere"), 2),
        (("task", "create", "x", "--project", "/etc/passwd"), 2),
        (("task", "create", "x", "--max-live", "0"), 2),
        (("task", "create", "x", "--spawn-rule", "lead"), 2),
        (("task", "show", UNKNOWN_TASK), 4),
        (("task", "show", "../x"), 2),
        (("task", "close", UNKNOWN_TASK), 4),
        (("task", "archive", UNKNOWN_TASK), 4),
        (("task", "list", "--state", "lost"), 2),
        (("deploy", UNKNOWN_TASK, "--role", "builder", *SLEEP), 4),
        (("deploy", "../x", "--role", "builder", *SLEEP), 2),
        (("deploy", UNKNOWN_TASK), 2),
        (("spawn", "builder", *SLEEP), 2),
        (("ps", "--task", UNKNOWN_TASK), 4),
        (("ps", "--watch", "--json"), 2),
        (("status", UNKNOWN_TASK), 4),
        (("wait", UNKNOWN_AGENT), 4),
        (("wait", "x", "--task", "y"), 2),
        (("wait", "--timeout", "soon"), 2),
        (("logs", UNKNOWN_AGENT), 4),
        (("logs", "../../etc/passwd"), 2),
        (("attach", UNKNOWN_AGENT), 4),
        (("stop",), 2),
        (("stop", UNKNOWN_AGENT), 4),
        (("kill", UNKNOWN_AGENT), 4),
        (("kill", "a;b"), 2),
        (("report", "working", "x"), 2),
        (("report", "happy", "x"), 2),
        (("finding", "bug", "x", "--data", "[]"), 2),
        (("finding", "bug", "x", "--severity", "dire"), 2),
        (("findings", UNKNOWN_TASK), 4),
        (("events", "--since", "x"), 2),
        (("gc", "--older-than", "x"), 2),
        (("repair", "--task", UNKNOWN_TASK), 4),
        (("run", "x", "--agents", "0"), 2),
        (("run", "x", "--prompt-file", "y"), 2),
        (("up", "now"), 2),
        (("down", "now"), 2),
        (("halt", "now"), 2),
        (("doctor", "now"), 2),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else str(given),
)
def test_a_mistake_has_its_exit_code_and_its_facts(
    args: tuple[str, ...],
    code: int,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, for there are many; every other test of this file starts the real command."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    at = args.index("--") if "--" in args else len(args)
    assert edge.run([*args[:at], "--json", *args[at:]]) == code
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out)["error"].keys() >= {"code", "message", "hint"}


def test_a_mistake_is_told_in_two_lines(home: Path) -> None:
    ran = headcount("task", "create", "x", "--project", "/nowhere")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == ("headcount: project directory /nowhere does not exist\n  create it, or name another\n")


# deploy, ps, status


def test_a_deploy_answers_with_a_running_process(task: str) -> None:
    made = deploy(task, "builder")
    assert made.keys() >= {"agent_id", "run", "pid", "runner_pid", "tmux_session"}
    assert (made["run"], alive(made["pid"]), alive(made["runner_pid"])) == (1, True, True)
    row = agents()[made["agent_id"]]
    keys = "agent_id task_id role parent depth harness state outcome exit_code pid tmux_session"
    assert row.keys() >= {*keys.split(), "started_at", "ended_at", "progress", "reported"}
    assert (row["state"], row["pid"], row["role"], row["depth"]) == ("running", made["pid"], "builder", 1)


def test_a_child_stands_below_its_parent(task: str) -> None:
    parent = deploy(task, "lead")["agent_id"]
    child = deploy(task, "builder", "--parent", "lead", *SLEEP)
    assert (child["parent"], child["depth"]) == (parent, 2)
    lines = headcount("ps").out.splitlines()
    assert [line.split("  ")[0] for line in lines[:1]] == [task]
    assert lines[1].startswith(f"└─ {parent}")
    assert lines[2].startswith(f"   └─ {child['agent_id']}")
    assert lines[-1].startswith("2 live, held by ")
    assert "subreaper" in lines[-1]
    assert max(map(len, lines)) <= 80


def test_a_refusal_says_what_holds_it_and_exits_3(task: str) -> None:
    holder = deploy(task, "builder")["agent_id"]
    ran = headcount("deploy", task, "--role", "builder", "--json", *SLEEP)
    assert (ran.code, ran.err) == (3, "")
    assert ran.error.keys() >= {"code", "message", "limit", "value", "holders", "hint"}
    assert (ran.error["code"], ran.error["holders"]) == ("duplicate_role", [holder])
    said = headcount("deploy", task, "--role", "builder", *SLEEP)
    assert (said.code, said.out) == (3, "")
    assert f"held by {holder}" in said.err
    assert list(agents()) == [holder]
    assert answer("status", task)["refusals"] == {"duplicate_role": 2}
    assert deploy(task, "builder", "--allow-duplicate-role", *SLEEP)["state"] == "running"


def test_the_same_key_answers_the_same_deploy(task: str) -> None:
    first = deploy(task, "builder", "--idempotency-key", "k1", *SLEEP)
    again = deploy(task, "builder", "--idempotency-key", "k1", *SLEEP)
    assert (again["agent_id"], again["repeated"]) == (first["agent_id"], True)


@pytest.mark.parametrize("how", ["option", "file", "stdin"])
def test_the_prompt_is_the_programs_stdin(how: str, task: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_text("do this\n")
    given = {
        "option": ("--prompt", "do this\n"),
        "file": ("--prompt-file", str(tmp_path / "p")),
        "stdin": ("--prompt-file", "-"),
    }
    agent = answer("deploy", task, "--role", "builder", *given[how], "--", "cat", stdin="do this\n")[
        "agent_id"
    ]
    assert answer("wait", agent)["agents"][0]["outcome"] == "completed"
    assert headcount("logs", agent).out == "do this\n"


def test_a_program_that_is_not_there_leaves_nothing(task: str) -> None:
    ran = headcount("deploy", task, "--role", "builder", "--json", "--", "no-such-program")
    assert ran.code == 5
    assert "no-such-program" in ran.error["message"]
    assert agents() == {}


def test_an_agent_gets_the_variables_that_are_named(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "yes")
    monkeypatch.setenv("OTHER", "no")
    agent = shell(task, "builder", 'echo "$MINE-$OTHER"', "--env", "MINE")
    headcount("wait", agent)
    assert headcount("logs", agent).out == "yes-\n"


def test_status_of_the_only_open_task_needs_no_name(task: str) -> None:
    agent = deploy(task, "builder")["agent_id"]
    facts = answer("status")
    assert (facts["task"]["task_id"], facts["counts"]["live"]) == (task, 1)
    said = headcount("status").out
    assert agent in said
    assert "limits: 20 live" in said
    other = create()
    ran = headcount("status", "--json")
    assert ran.code == 2
    assert task in ran.error["hint"]
    assert other in ran.error["hint"]


def test_no_agents_is_an_answer(home: Path) -> None:
    assert answer("ps") == {"agents": []}
    assert headcount("ps").out == "no live agents ('headcount ps --all' shows ended ones)\n"


# names


def test_an_agent_is_named_by_id_by_its_beginning_or_by_role(task: str) -> None:
    agent = deploy(task, "builder")["agent_id"]
    for name in (agent, agent[:-3], "builder", "bui"):
        assert headcount("logs", name).code == 0
    second = deploy(task, "builder-two")["agent_id"]
    assert headcount("logs", "builder").code == 2
    ran = headcount("logs", "bui", "--json")
    assert ran.code == 2
    assert agent in ran.error["hint"]
    assert second in ran.error["hint"]
    assert headcount("logs", "nobody").code == 4


def test_a_live_agent_is_meant_before_an_ended_one(task: str) -> None:
    ended = shell(task, "builder", "echo old")
    headcount("wait", ended)
    assert headcount("logs", "builder").out == "old\n"
    live = deploy(task, "builder")["agent_id"]
    assert answer("stop", "builder")["stopped"][0]["agent_id"] == live


def test_a_task_is_named_by_its_beginning(task: str) -> None:
    assert answer("status", task[:-2])["task"]["task_id"] == task


def test_ids_are_completed(task: str) -> None:
    agent = deploy(task, "builder")["agent_id"]

    def complete(words: str) -> str:
        asked = {
            "_HEADCOUNT_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        return headcount(env=asked).out

    assert complete("headcount stop bui") == f"plain,{agent}\n"
    assert complete("headcount status ta") == f"plain,{task}\n"


# wait


def test_wait_is_0_when_all_completed_and_1_when_one_did_not(task: str) -> None:
    good, bad = shell(task, "good", "exit 0"), shell(task, "bad", "exit 3")
    assert headcount("wait", good).code == 0
    ran = headcount("wait", "--task", task, "--json")
    assert (ran.code, ran.facts["done"], ran.facts["pending"]) == (1, True, [])
    assert {each["agent_id"]: each["exit_code"] for each in ran.facts["agents"]} == {good: 0, bad: 3}


def test_wait_runs_out_with_6_and_says_what_goes_on(task: str) -> None:
    agent = deploy(task, "builder")["agent_id"]
    ran = headcount("wait", agent, "--timeout", "200ms", "--json")
    assert (ran.code, ran.facts["done"], ran.facts["pending"]) == (6, False, [agent])
    assert f"time ran out; still going on: {agent}" in headcount("wait", "--timeout", "0").out


def test_wait_for_any_ends_with_the_first(task: str) -> None:
    slow = deploy(task, "slow")["agent_id"]
    quick = shell(task, "quick", "exit 0")
    facts = answer("wait", slow, quick, "--any", "--timeout", "30")
    assert [each["agent_id"] for each in facts["agents"]] == [quick]


def test_wait_until_one_says_that_it_is_done(task: str) -> None:
    agent = deploy(task, "builder")["agent_id"]
    assert headcount("wait", agent, "--until", "done", "--timeout", "0").code == 6
    headcount("report", "done", "all of it", "--agent", agent)
    assert answer("wait", agent, "--until", "done", "--timeout", "9")["agents"][0]["state"] == "running"


def test_waiting_for_nobody_is_done(home: Path) -> None:
    assert answer("wait")["done"] is True


# stop, kill, halt


def test_stop_ends_the_tree_and_says_how(task: str) -> None:
    made = deploy(task, "builder")
    ran = headcount("stop", made["agent_id"], "--json")
    assert ran.code == 0
    (stopped,) = ran.facts["stopped"]
    assert (stopped["outcome"], stopped["was_live"], stopped["survivors"]) == ("stopped", True, [])
    assert not alive(made["pid"])
    assert headcount("stop", made["agent_id"]).out == f"{made['agent_id']} was over already: stopped\n"


def test_a_name_that_is_wrong_stops_none_of_the_others(task: str) -> None:
    agent = deploy(task, "builder")["agent_id"]
    assert headcount("stop", agent, "nobody").code == 4
    assert list(agents()) == [agent]


def test_stopping_several_takes_one_grace(task: str) -> None:
    for role in ("a", "b", "c"):
        shell(task, role, "trap '' TERM; while :; do sleep 0.1; done")
    facts = answer("stop", "--task", task, "--grace", "300ms")
    assert [each["outcome"] for each in facts["stopped"]] == ["stopped"] * 3
    assert agents() == {}


def test_kill_does_not_wait(task: str) -> None:
    agent = shell(task, "builder", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    until(lambda: "ready" in headcount("logs", agent).out, what="the agent is ready")
    (killed,) = answer("kill", "builder", "--reason", "enough")["stopped"]
    assert (killed["agent_id"], killed["outcome"]) == (agent, "stopped")


def test_halt_ends_all_and_refuses_until_it_is_released(task: str) -> None:
    deploy(task, "a")
    deploy(task, "b")
    facts = answer("halt")
    assert (facts["halted"], len(facts["stopped"])) == (True, 2)
    assert headcount("deploy", task, "--role", "c", "--json", *SLEEP).error["code"] == "halted"
    assert answer("halt", "--release")["halted"] is False
    assert deploy(task, "c")["state"] == "running"


def test_a_task_with_live_agents_is_not_closed(task: str) -> None:
    deploy(task, "builder")
    assert headcount("task", "close", task).code == 3


# what agents say


def test_a_shell_agent_reports_and_finds(task: str) -> None:
    script = (
        "headcount report working 'half way' --progress 50 &&"
        " headcount finding bug 'it leaks' --severity high --data '{\"line\": 7}' --json"
    )
    agent = shell(task, "builder", script)
    assert headcount("wait", agent).code == 0, headcount("logs", agent, "--stderr")
    row = agents("--all")[agent]
    assert (row["progress"], row["reported"], row["message"]) == (50, "working", "half way")
    (found,) = answer("findings", task)["findings"]
    assert (found["type"], found["severity"], found["data"], found["agent_id"]) == (
        "bug",
        "high",
        {"line": 7},
        agent,
    )
    assert answer("findings", "--severity", "low")["findings"] == []
    assert "high      bug: it leaks" in headcount("findings").out
    assert "it leaks" in headcount("status").out


def test_an_agent_cannot_speak_for_another(task: str) -> None:
    other = deploy(task, "other")["agent_id"]
    agent = shell(task, "builder", f"headcount report done lies --agent {other} --json")
    headcount("wait", agent)
    assert agents("--all")[agent]["exit_code"] == 3
    assert agents("--all")[other]["reported"] is None


def test_a_person_reports_for_any_agent(task: str) -> None:
    agent = deploy(task, "builder")["agent_id"]
    assert answer("report", "blocked", "no key", "--agent", "builder")["agent_id"] == agent
    assert "blocked: no key" in headcount("ps").out


def test_a_pipe_gets_whole_lines_and_a_terminal_what_fits(task: str) -> None:
    said = "a long story " * 20 + "with its end"
    deploy(task, "builder")
    headcount("report", "working", said, "--agent", "builder")
    for words, end in ((("ps",), "its end"), (("status", task), "its end"), (("events",), "report=1")):
        assert f"{end}\n" in headcount(*words, env={"COLUMNS": ""}).out, words
        assert max(map(len, headcount(*words).out.splitlines())) <= 80, words


def test_events_go_on_from_their_cursor(task: str) -> None:
    first = answer("events", "--limit", "1")
    assert (len(first["events"]), first["more"]) == (1, False)
    agent = deploy(task, "builder")["agent_id"]
    rest = answer("events", "--since", str(first["next_cursor"]))
    assert {each["agent_id"] for each in rest["events"]} == {agent}
    assert rest["events"][-1]["kind"] in headcount("events").out


# the count


def test_a_dead_runner_is_unhealthy_until_it_is_repaired(task: str) -> None:
    agent = deploy(task, "builder")
    assert answer("doctor")["healthy"] is True
    assert headcount("doctor").out.startswith("Registry: 1, Running: 1, Tmux: 0, Diff: 0\n")
    os.kill(agent["runner_pid"], signal.SIGKILL)
    until(lambda: not alive(agent["runner_pid"]), what="the runner is gone")
    ran = headcount("doctor", "--json")
    assert (ran.code, ran.facts["healthy"]) == (1, False)
    assert [each["agent_id"] for each in ran.facts["ghosts"]] == [agent["agent_id"]]
    planned = headcount("repair")
    assert planned.code == 0
    assert "nothing was changed" in planned.out
    assert headcount("doctor").code == 1
    done = answer("repair", "--apply")
    assert (done["healthy"], done["dry_run"], len(done["done"]) > 0) == (True, False, True)
    assert answer("repair", "--apply")["done"] == []
    assert headcount("doctor").code == 0
    assert agents("--all")[agent["agent_id"]]["state"] == "lost"
    assert not alive(agent["pid"])


def test_gc_says_first_and_does_then(task: str) -> None:
    agent = shell(task, "builder", "exit 0")
    headcount("wait", agent)
    dry = answer("gc", "--older-than", "0s")
    assert (dry["dry_run"], dry["runs"]) == (True, [f"{agent}.1"])
    assert answer("gc")["runs"] == []
    done = answer("gc", "--older-than", "0s", "--apply")
    assert os.listdir(done["trash"]) == [f"{agent}.1"]


# logs and attach


def test_logs_show_the_end_and_either_stream(task: str) -> None:
    agent = shell(task, "builder", "seq 1 100; echo oops >&2")
    headcount("wait", agent)
    assert headcount("logs", agent).out.split() == [str(n) for n in range(1, 101)]
    assert headcount("logs", agent, "--tail", "2").out == "99\n100\n"
    assert headcount("logs", agent, "--stderr").out == "oops\n"
    assert answer("logs", agent, "--tail", "1")["text"].strip() == "100"


def test_control_characters_are_shown_not_obeyed(task: str) -> None:
    agent = shell(task, "builder", r"printf 'a\033[2Jb\r\n'")
    headcount("wait", agent)
    assert headcount("logs", agent).out == "a^[[2Jb\n"
    assert headcount("logs", agent, "--raw").out == "a\x1b[2Jb\r\n".replace(
        "\r\n", "\n"
    )  # as text mode reads it


def test_following_ends_with_the_agent(task: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    agent = shell(task, "builder", f"echo one; read x < {tmp_path / 'go'}; echo two")
    with open(os.open(tmp_path / "go", os.O_RDWR), "w") as go:
        go.write("on\n")
        go.flush()
        assert headcount("logs", agent, "-f").out == "one\ntwo\n"


def test_long_output_is_read_to_its_end(task: str) -> None:
    agent = shell(task, "builder", "seq 1 200000")
    headcount("wait", agent)
    assert headcount("logs", agent).out == "".join(f"{n}\n" for n in range(1, 200_001))


def test_attach_without_a_terminal_or_a_view_says_what_to_do(task: str) -> None:
    deploy(task, "builder")
    ran = headcount("attach", "builder", "--json")
    assert ran.code in {3, 5}
    assert "headcount logs" in ran.error["hint"]


# the terminal


def test_colours_are_for_terminals(task: str) -> None:
    deploy(task, "builder")
    assert "\x1b[" not in headcount("ps").out
    assert "\x1b[32mrunning" in on_a_terminal("ps").out
    assert "\x1b[" not in on_a_terminal("ps", env={"NO_COLOR": "1"}).out


def test_a_home_that_cannot_be_made_is_infrastructure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = headcount("ps", "--json", env={"HEADCOUNT_HOME": str(tmp_path / "file" / "h")})
    assert ran.code == 5
    assert "HEADCOUNT_HOME" in ran.error["hint"]


def test_watching_draws_until_it_is_interrupted(task: str) -> None:
    deploy(task, "builder")
    ran = on_a_terminal("ps", "--watch", typing={"1 live": "\x03"})
    assert ran.code == 130
    assert "running" in ran.out
