"""The daemon's life, and the count that it keeps: real processes, killed in every way."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from headcount import Headcount
from headcount.config import Home
from headcount.daemon import lock, start
from headcount.daemon.inotify import Inotify
from headcount.daemon.runners import Runners
from headcount.daemon.transcripts import Transcripts
from headcount.daemon.watch import Watch
from tests.support import daemons
from tests.support.daemons import Bridge, daemon
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.waiting import until


def state_of(opened: Headcount, agent_id: str) -> str:
    """Return what the registry says, without looking at any process."""
    with opened.context.registry.read() as tx:
        run = tx.runs.get(agent_id)
    assert run is not None
    return run.state.value


def test_a_second_daemon_of_a_home_says_who_serves_it_and_exits(home: Path) -> None:
    with daemon(home) as first:
        second = subprocess.run(
            [*daemons.DAEMON, "--home", str(home)],
            env=daemons.environment(home),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert second.returncode == 5
        assert f"process {first.pid} serves {home}" in second.stderr
        assert first.poll() is None
        assert start.holder(Home(home)) == first.pid


def test_one_that_is_told_to_end_as_soon_as_it_answers_ends_without_a_word(home: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [*daemons.DAEMON, "--home", str(home)], env=daemons.environment(home), stderr=subprocess.PIPE
        )
        daemons.wait_ready(home)
        process.terminate()
        assert process.communicate(timeout=20)[1] == b""
        assert process.returncode == 0


def test_of_daemons_started_at_once_one_stays(home: Path) -> None:
    env = daemons.environment(home)
    crowd = [
        subprocess.Popen([*daemons.DAEMON, "--home", str(home)], env=env, stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    try:
        daemons.wait_ready(home)
        until(
            lambda: sum(each.poll() is None for each in crowd) == 1,
            what="three of four have gone",
            patience=30,
        )
        (left,) = [each for each in crowd if each.poll() is None]
        assert start.holder(Home(home)) == left.pid == daemons.facts(home)["pid"]
    finally:
        for each in crowd:
            each.terminate()
            each.wait(20)


def test_sigterm_ends_it_within_two_seconds_and_leaves_agents_running(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemon(home) as process, Bridge(home) as bridge:
        made = sleeper(opened, new_task(opened, tmp_path))
        number = bridge.send(
            "tools/call", {"name": "wait_for_agents", "arguments": {"agent_ids": [made.agent_id]}}
        )
        until(lambda: bridge.call("list_tasks")["tasks"], what="the daemon answers beside the wait")
        began = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 2.5
        assert alive(made.pid)
        assert not Home(home).daemon_socket.exists() or start.holder(Home(home)) is not None
        opened.kill_agent(made.agent_id)
        assert (
            bridge.answer(number)["result"]["structuredContent"]["done"] is True
        )  # by the daemon that came next


def test_an_end_is_recorded_without_anybody_asking(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemon(home, HEADCOUNT_HEADCOUNT_EVERY="600"):
        task = new_task(opened, tmp_path, max_live=20)
        made = [sleeper(opened, task, role=f"worker{number}", allow_same_work=True) for number in range(5)]
        late = []
        for each in made:
            assert each.pid is not None
            os.kill(each.pid, signal.SIGKILL)
            until(lambda each=each: not alive(each.pid), what="the agent is gone")  # type: ignore[misc]
            gone = time.monotonic()
            until(lambda each=each: state_of(opened, each.agent_id) == "ended", what="its row has ended")  # type: ignore[misc]
            late.append(time.monotonic() - gone)
        print(f"seconds from the end of the process to the row: {sorted(round(each, 4) for each in late)}")
        assert sorted(late)[2] < 0.5


@pytest.mark.parametrize("pushed", [True, False])
def test_it_follows_runs_whether_the_kernel_tells_it_or_not(home: Path, tmp_path: Path, pushed: bool) -> None:
    with fleet(home, headcount_every=600.0) as opened:
        watch = Watch(opened.context, Idle(), pushed=pushed)
        watch.begin()
        try:
            task = new_task(opened, tmp_path)
            short = opened.deploy(task, role="short", harness="command", command=["/bin/true"])
            until(lambda: state_of(opened, short.agent_id) == "ended", what="a short run has ended")
            long = sleeper(opened, task)
            assert long.pid is not None
            os.kill(long.pid, signal.SIGKILL)
            until(lambda: state_of(opened, long.agent_id) == "ended", what="a killed one has ended")
            assert watch.counters()["failures"] == 0
        finally:
            watch.end()


def test_an_end_goes_before_everything_else_that_is_heard(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        made = sleeper(opened, new_task(opened, tmp_path))
        inotify = Inotify()
        runners = Runners(opened.context, inotify, Transcripts(opened.context))
        assert runners.look_around() == {}
        assert made.pid is not None
        os.kill(made.pid, signal.SIGKILL)
        until(lambda: not alive(made.runner_pid), what="the end of the runner")
        marks = [Home(home).live / f"gone-0.{n}" for n in range(1, 301)]
        for mark in marks:
            mark.symlink_to("../runs/nowhere")
        assert [key.agent_id for key in runners.wait(1.0)] == [made.agent_id]
        assert unread(inotify) > 0
        assert runners.wait(60.0) == {}
        assert unread(inotify) == 0
        for mark in marks:
            mark.unlink()


def unread(inotify: Inotify) -> int:
    """Return the bytes of notes that nobody has read."""
    return int.from_bytes(fcntl.ioctl(inotify.fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_an_end_that_could_not_be_recorded_is_recorded_as_soon_as_it_can_be(
    home: Path, tmp_path: Path
) -> None:
    with fleet(home, headcount_every=600.0) as opened:
        made = sleeper(opened, new_task(opened, tmp_path))
        watch = Watch(opened.context, Idle())
        watch.begin()
        lock = Home(home).registry_lock
        until(lambda: watch.counters()["headcounts"] == 1, what="the first headcount, and the only one")
        lock.rename(tmp_path / "lock")
        lock.mkdir()  # nobody can write now
        assert made.pid is not None
        os.kill(made.pid, signal.SIGKILL)
        until(lambda: watch.counters()["failures"] > 0, what="it has tried")
        assert state_of(opened, made.agent_id) == "running"
        lock.rmdir()
        (tmp_path / "lock").rename(lock)
        until(lambda: state_of(opened, made.agent_id) == "ended", what="its row has ended")
        watch.end()


def test_it_keeps_a_copy_of_the_registry_for_a_rebuild(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        made = sleeper(opened, new_task(opened, tmp_path))
        opened.update_agent_progress("working", "half way", agent_id=made.agent_id)
        watch = Watch(opened.context, Idle(), first_copy=0.0)
        watch.begin()
        copy = Home(home).backups / "daemon.db"
        until(copy.exists, what="a copy is there")
        watch.end()
        opened.context.registry.quarantine("a disk that failed")
        rebuilt = opened.rebuild_registry()
        assert rebuilt.from_backup == str(copy)
        assert opened.get_agent(made.agent_id).message == "half way"


class Idle:
    """A lock that nobody has."""

    def keep(self) -> None:
        return


def test_the_transcript_of_a_stream_is_written_as_it_comes(home: Path, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    said = {
        "type": "assistant",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "I look."}]},
    }
    script = tmp_path / "claude"
    script.write_text(
        f"#!/bin/sh\necho '{json.dumps(said)}'\nwhile [ -e {tmp_path}/go ]; do sleep 0.05; done\n"
        f"echo '{json.dumps(said).replace('I look.', 'I am done.')}'\n"
    )
    script.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "ANTHROPIC_API_KEY": "none"}
    with daemon(home), Bridge(home, env=env) as bridge:
        task = bridge.call("create_task", description="x", project=str(tmp_path))["task_id"]
        made = bridge.call("deploy_headless_agent", task_id=task, agent_type="reader", prompt="look")
        (run,) = (home / "live").iterdir()
        transcript = run.resolve() / "transcript"
        until(
            lambda: transcript.exists() and "I look." in transcript.read_text(),
            what="what it said can be read",
        )
        (tmp_path / "go").unlink()
        bridge.call("wait_for_agents", agent_ids=[made["agent_id"]])
        until(lambda: "I am done." in transcript.read_text(), what="its last words can be read")


def test_an_agent_that_floods_keeps_no_other_from_being_read(home: Path, tmp_path: Path) -> None:
    said = {"type": "assistant", "message": {"content": [{"type": "text", "text": "words"}]}}
    script = tmp_path / "claude"
    line = json.dumps(said)
    script.write_text(f"#!/bin/sh\ngrep -q FLOOD && exec yes '{line}'\necho '{line}'; exec sleep 600\n")
    script.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "ANTHROPIC_API_KEY": "none"}
    with daemon(home), Bridge(home, env=env) as bridge:
        task = bridge.call("create_task", description="x", project=str(tmp_path))["task_id"]
        wet, dry = (
            bridge.call("deploy_headless_agent", task_id=task, agent_type=role, prompt=prompt)["agent_id"]
            for role, prompt in (("wet", "FLOOD"), ("dry", "look"))
        )
        for agent in (wet, dry):
            transcript = (home / "live" / f"{agent}.1").resolve() / "transcript"
            until(transcript.exists, what=f"the words of {agent} can be read")
        for agent in (wet, dry):
            bridge.call("stop_agent", agent_id=agent, grace=0)


def test_a_runner_that_is_killed_is_noticed_and_its_tree_ended(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemon(home, HEADCOUNT_HEADCOUNT_EVERY="600"):
        made = sleeper(opened, new_task(opened, tmp_path))
        assert made.runner_pid is not None
        os.kill(made.runner_pid, signal.SIGKILL)
        until(lambda: state_of(opened, made.agent_id) == "lost", what="its row is lost")
        until(lambda: not alive(made.pid), what="the agent is ended")


def test_what_it_reaps_does_not_cost_it_its_lock(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemon(home) as process:
        made = sleeper(opened, new_task(opened, tmp_path))
        assert made.runner_pid is not None
        os.kill(made.runner_pid, signal.SIGKILL)
        until(lambda: state_of(opened, made.agent_id) == "lost", what="its row is lost")
        until(
            lambda: start.holder(Home(home)) == process.pid, what="the kernel names the daemon as the holder"
        )
        assert not start.ensure(Home(home), daemons.environment(home))


def test_killed_it_loses_nothing_and_the_next_one_goes_on(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened:
        with daemon(home) as process:
            task = new_task(opened, tmp_path)
            stays, goes = (
                sleeper(opened, task, role="stays"),
                sleeper(opened, task, role="goes", allow_same_work=True),
            )
            os.killpg(process.pid, signal.SIGKILL) if os.getpgid(
                process.pid
            ) == process.pid else process.kill()
            process.wait(10)
            assert goes.pid is not None
            os.kill(goes.pid, signal.SIGKILL)
            until(lambda: not alive(goes.runner_pid), what="its runner has gone")
            assert state_of(opened, goes.agent_id) == "running"  # nobody has looked
        with daemon(home):
            until(
                lambda: state_of(opened, goes.agent_id) == "ended",
                what="the next daemon has recorded the end",
            )
            assert state_of(opened, stays.agent_id) == "running"
            assert alive(stays.pid)
            assert stays.pid is not None
            os.kill(stays.pid, signal.SIGKILL)
            until(
                lambda: state_of(opened, stays.agent_id) == "ended", what="it follows what it did not start"
            )


def test_an_exception_in_the_headcount_is_logged_and_ends_nothing(home: Path, tmp_path: Path) -> None:
    with (
        fleet(home) as opened,
        daemon(home, HEADCOUNT_HEADCOUNT_EVERY="0.2") as process,
        Bridge(home) as bridge,
    ):
        made = sleeper(opened, new_task(opened, tmp_path))
        aside = home / "live.aside"
        (home / "live").rename(aside)
        (home / "live").write_text("no directory")
        log = Home(home).daemon_log
        until(lambda: "supervision_failed" in log.read_text(), what="the failure is logged")
        (home / "live").unlink()
        aside.rename(home / "live")
        assert process.poll() is None
        assert state_of(opened, made.agent_id) == "running"
        assert bridge.call("list_agents")["agents"][0]["agent_id"] == made.agent_id


def test_it_keeps_nothing_of_its_starters_environment(home: Path) -> None:
    with daemon(home, SECRET_OF_THE_STARTER="s3cret", HEADCOUNT_TOKEN="t0ken"), Bridge(home) as bridge:
        task = bridge.call("create_task", description="x", project="/tmp")["task_id"]
        made = bridge.call(
            "deploy_headless_agent",
            task_id=task,
            agent_type="tester",
            harness="command",
            command=["/usr/bin/env"],
        )
        bridge.call("wait_for_agents", agent_ids=[made["agent_id"]])
        said = bridge.call("get_agent_output", agent_id=made["agent_id"])["text"]
    assert "s3cret" not in said
    assert "t0ken" not in said
    assert "s3cret" not in Home(home).daemon_log.read_text()


def test_it_starts_in_a_session_of_its_own_with_a_scrubbed_environment(home: Path) -> None:
    given = daemons.environment(home, {"SECRET_OF_MINE": "s3cret", "HEADCOUNT_TOKEN": "t0ken"})
    assert start.ensure(Home(home), given)
    try:
        daemons.wait_ready(home)
        assert not start.ensure(Home(home), given)
        pid = start.holder(Home(home))
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"s3cret" not in environ
        assert b"t0ken" not in environ
        assert b"HEADCOUNT_HOME=" in environ
    finally:
        daemons.end(home)


def test_within_an_agents_tree_no_daemon_is_started(home: Path) -> None:
    inside = daemons.environment(home, {"HEADCOUNT_AGENT_ID": "builder-0000000000000000"})
    assert not start.ensure(Home(home), inside)
    run = subprocess.run(
        [*daemons.DAEMON, "--home", str(home)],
        env=inside,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.returncode == 5
    assert "agent's tree" in run.stderr


def test_it_says_where_it_is_and_keeps_its_port(home: Path) -> None:
    with daemon(home):
        facts = daemons.facts(home)
        assert Path(facts["socket"]) == Home(home).daemon_socket
        until((home / "daemon.log").exists, what="the first line of its log")
        for name in ("daemon.json", "token", "port", "daemon.log"):
            assert (home / name).stat().st_mode & 0o077 == 0, name
        assert Home(home).daemon_socket.stat().st_mode & 0o077 == 0
    assert not Home(home).daemon_facts.exists()
    with daemon(home):
        assert daemons.facts(home)["port"] == facts["port"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", facts["port"]))
        taken.listen()
        with daemon(home):
            assert daemons.facts(home)["port"] != facts["port"]


def test_a_role_and_home_of_the_greatest_length_still_have_a_socket(home: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True, mode=0o700)
    assert Home(deep).daemon_socket.parent != deep
    with daemon(deep), Bridge(deep) as bridge:
        assert bridge.call("list_tasks")["tasks"] == []


@pytest.mark.parametrize(
    "junk", [b"\0" * 70_000, b"GET / HTTP/1.1\r\n\r\n", b"POST /mcp HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_junk_on_the_socket_harms_nobody(home: Path, junk: bytes) -> None:
    with daemon(home) as process, Bridge(home) as bridge:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(Home(home).daemon_socket))
            line.sendall(junk)
        assert bridge.call("list_tasks")["tasks"] == []
        assert process.poll() is None


def test_a_lock_says_who_holds_it_and_keeps_a_second_one_out(home: Path) -> None:
    path = str(home / "a.lock")
    assert lock.holder(path) is None
    held = lock.acquire(path)
    assert held is not None
    asked = (
        "import sys; from headcount.daemon.lock import *; print(holder(sys.argv[1]), acquire(sys.argv[1]))"
    )

    def told() -> str:
        argv = [daemons.DAEMON[0], "-c", asked, path]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout

    assert told() == f"{os.getpid()} None\n"
    os.close(os.open(path, os.O_RDONLY))  # a stray close drops the part of the lock that has our pid
    assert told() == "None None\n"
    held.keep()
    assert told() == f"{os.getpid()} None\n"


def test_the_log_is_json_and_has_no_secret(home: Path) -> None:
    with daemon(home), Bridge(home, env={"ANTHROPIC_API_KEY": "sk-very-secret"}) as bridge:
        bridge.call("create_task", description="x", project="/tmp")
        bridge.result("get_task_status", task_id="nonsense")
    text = Home(home).daemon_log.read_text()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert "daemon_started" in events
    assert "sk-very-secret" not in text
    assert (home / "token").read_text() not in text
