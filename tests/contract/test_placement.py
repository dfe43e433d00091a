"""What every placement promises; each fixture below is one that must keep it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headcount.domain.errors import PlacementFailed
from headcount.domain.model import LockState, Presence, Process, RunKey
from headcount.runtimes import local, program
from headcount.runtimes.local import LocalPlacement
from tests.support import placements, waiting
from tests.support.placements import await_exit, await_free, begin, environment, order


@pytest.fixture(params=["linux", "no cgroup", "as on a mac"])
def placement(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalPlacement]:
    if request.param == "as on a mac":
        monkeypatch.setattr(local, "_OFD", False)
        monkeypatch.setattr(LocalPlacement, "_own_locks", threading.Lock())
    without = {
        "linux": frozenset[str](),
        "no cgroup": placements.NO_CGROUP,
        "as on a mac": placements.AS_ON_A_MAC,
    }
    with placements.placed(home, without[request.param]) as opened:
        yield opened


def said(placement: LocalPlacement, path: str, stream: str = "output") -> bytes:
    return placement.read_output(path, offset=0, limit=1 << 20, stream=stream).data


# deploying


def test_a_started_run_is_held_and_its_record_names_runner_and_agent(
    placement: LocalPlacement, home: Path
) -> None:
    seen, started = begin(placement, home)
    assert seen.lock is LockState.HELD
    assert seen.runner_pid == started.runner.pid
    assert seen.start is not None
    assert (seen.start.runner, seen.start.process) == (started.runner, started.process)
    assert placement.presence(started.runner) is Presence.ALIVE
    assert placement.presence(started.process) is Presence.ALIVE
    assert [each.key for each in placement.look()] == [seen.key]


def test_the_agent_gets_prompt_directory_and_exactly_its_environment(
    placement: LocalPlacement, home: Path, tmp_path: Path
) -> None:
    made = order(
        placement, ("sh", "-c", "cat; pwd; env -0 | sort -z"), stdin=b"the prompt\n\xff", cwd=str(tmp_path)
    )
    path = placement.prepare(made)
    placement.start(made.key, path, env={"PATH": os.defpath, "B": "two\nlines", "A": "\udcff"}, timeout=20)
    await_free(placement, placement.look_at(made.key, path))
    lines = said(placement, path)
    assert lines.startswith(b"the prompt\n\xff" + os.fsencode(tmp_path) + b"\nA=\xff\0B=two\nlines\0")
    assert b"HEADCOUNT" not in lines
    assert b"LC_" not in lines


def test_without_a_prompt_stdin_is_empty(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home, ("/bin/cat",))
    assert await_exit(placement, seen).code == 0


@pytest.mark.parametrize("code", [0, 1, 37, 255])
def test_the_exit_record_has_the_exit_code(placement: LocalPlacement, home: Path, code: int) -> None:
    seen, _ = begin(placement, home, ("/bin/sh", "-c", f"exit {code}"))
    record = await_exit(placement, seen)
    assert (record.code, record.signal, record.error, record.stopped) == (code, None, None, False)
    assert record.started_at is not None
    assert record.started_at <= record.ended_at <= time.time()
    assert record.max_rss_kb > 100


def test_an_agent_that_is_killed_ends_with_that_signal(placement: LocalPlacement, home: Path) -> None:
    seen, started = begin(placement, home)
    os.kill(started.process.pid, signal.SIGKILL)
    record = await_exit(placement, seen)
    assert (record.code, record.signal, record.stopped) == (None, signal.SIGKILL, False)


RESERVED_SIGNALS = 0b11 << 31
"""Signals 32 and 33 are the C library's: no program can set them, whoever starts us may ignore them."""


def test_signals_that_the_deployer_ignores_are_not_ignored_by_the_agent(
    placement: LocalPlacement, home: Path
) -> None:
    before = {
        each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT)
    }
    try:
        seen, _ = begin(placement, home, ("/bin/sh", "-c", "grep SigIgn /proc/self/status"))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    await_free(placement, seen)
    assert int(said(placement, seen.path).split()[1], 16) & ~RESERVED_SIGNALS == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"argv": ("no-such-program-here",)}, "No such file"),
        ({"argv": ("/etc/passwd",)}, "Permission denied"),
        ({"argv": ("/no/such/program",)}, "No such file"),
        ({"argv": ("sh",), "cwd": "/no/such/directory"}, "/no/such/directory"),
    ],
)
def test_a_harness_that_cannot_start_is_told_at_once_and_recorded(
    placement: LocalPlacement, home: Path, changes: dict[str, Any], reason: str
) -> None:
    made = replace(order(placement, ("x",)), **changes)
    path = placement.prepare(made)
    before = time.monotonic()
    with pytest.raises(PlacementFailed, match=reason):
        placement.start(made.key, path, env=environment(home, made.key), timeout=20)
    assert time.monotonic() - before < 1.0 + (not placement._table.proc)
    record = await_exit(placement, placement.look_at(made.key, path))
    assert reason in (record.error or "")
    assert (record.code, record.signal) == (None, None)


def test_a_run_that_was_started_cannot_be_started_again(placement: LocalPlacement, home: Path) -> None:
    seen, started = begin(placement, home)
    with pytest.raises(PlacementFailed, match="lock"):
        placement.start(seen.key, seen.path, env={}, timeout=20)
    assert placement.presence(started.process) is Presence.ALIVE
    placement.signal_stop(seen.key, seen.path, grace=0)
    ended = await_free(placement, seen)
    with pytest.raises(PlacementFailed, match="already"):
        placement.start(seen.key, seen.path, env={}, timeout=20)
    assert placement.look_at(seen.key, seen.path) == ended


def test_a_run_directory_is_made_once(placement: LocalPlacement) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    with pytest.raises(PlacementFailed):
        placement.prepare(made)
    assert placement.look_at(made.key, path).marked


def test_a_directory_that_cannot_be_filled_is_gone_again(placement: LocalPlacement, home: Path) -> None:
    made = order(placement, placements.SLEEP, files={"../../escape": b"x"})
    with pytest.raises(PlacementFailed):
        placement.prepare(made)
    assert list(placement.look()) == []
    assert not os.path.exists(placement.run_path(made.key, reserved_at=made.reserved_at))
    assert not list(home.rglob("escape"))


def test_everything_of_a_run_is_for_the_user_only(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home, stdin=b"secret", files={"mcp.json": b"{}"})
    for folder, _, files in os.walk(seen.path):
        for name in (".", *files):
            assert os.stat(f"{folder}/{name}").st_mode & 0o077 == 0, name


def test_neither_argv_nor_disk_has_the_environment(placement: LocalPlacement, home: Path) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    started = placement.start(made.key, path, env={"PATH": os.defpath, "KEY": "sk-5ecret"}, timeout=20)
    assert b"sk-5ecret" not in Path(f"/proc/{started.runner.pid}/cmdline").read_bytes()
    assert b"sk-5ecret" not in Path(f"/proc/{started.runner.pid}/environ").read_bytes()
    assert Path(f"/proc/{started.runner.pid}/cmdline").read_bytes().split(b"\0")[-2] == os.fsencode(path)
    for file in home.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert b"sk-5ecret" not in file.read_bytes(), file


# looking


def test_a_run_that_waits_for_its_deployer_is_seen_with_it(placement: LocalPlacement) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    seen = placement.look_at(made.key, path)
    assert (seen.lock, seen.start, seen.deployer) == (LockState.FREE, None, Presence.ALIVE)


def test_a_dead_deployer_is_seen(placement: LocalPlacement) -> None:
    dead = replace(placement.self_process(), ticks=1)
    made = order(placement, placements.SLEEP, deployer=dead)
    path = placement.prepare(made)
    assert placement.look_at(made.key, path).deployer is Presence.DEAD


def test_a_directory_that_is_gone_is_free_and_without_records(placement: LocalPlacement, home: Path) -> None:
    seen = placement.look_at(RunKey("nobody-0000000000000001", 1), str(home / "runs" / "x"))
    assert (seen.lock, seen.start, seen.exit, seen.void, seen.marked) == (
        LockState.FREE,
        None,
        None,
        None,
        False,
    )


def test_unmarked_runs_are_not_looked_at(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home)
    placement.unmark(seen.key)
    placement.unmark(seen.key)
    assert list(placement.look()) == []
    assert placement.look_at(seen.key, seen.path).lock is LockState.HELD
    placement.signal_stop(seen.key, seen.path, grace=0)
    await_free(placement, seen)


def test_this_process_is_alive_and_its_likes_are_not(placement: LocalPlacement) -> None:
    me = placement.self_process()
    assert placement.presence(me) is Presence.ALIVE
    assert placement.presence(replace(me, ticks=me.ticks - 100)) is Presence.DEAD
    assert placement.presence(replace(me, boot_id="another boot")) is Presence.DEAD
    assert placement.presence(Process(2**22 + 1, 1, me.boot_id)) is Presence.DEAD


def test_a_zombie_is_dead(placement: LocalPlacement) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0)
    process = placement._table.identify(pid)
    assert process is not None
    assert placement.presence(process) is Presence.ALIVE
    os.write(write, b"x")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert placement.presence(process) is Presence.DEAD
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


def test_damaged_and_newer_records_are_unknown_not_absent(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home, ("/bin/true",))
    seen = await_free(placement, seen)
    for content in ("", "{", "[]", '{"format": 1}', '{"format": 999}'):
        Path(seen.path, "exit.json").write_text(content)
        again = placement.look_at(seen.key, seen.path)
        assert again.lock is LockState.UNKNOWN, content
        assert again.error is not None
    Path(seen.path, "exit.json").unlink()


# stopping


def test_stop_is_term_then_kill_after_the_grace(placement: LocalPlacement, home: Path) -> None:
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 600 & wait; done"
    seen, _ = begin(placement, home, ("/bin/sh", "-c", script))
    waiting.until(lambda: b"ready" in said(placement, seen.path), what="the trap is set")
    before = time.monotonic()
    assert placement.signal_stop(seen.key, seen.path, grace=0.5)
    record = await_exit(placement, seen)
    assert 0.5 <= time.monotonic() - before < 5
    assert (record.signal, record.stopped) == (signal.SIGKILL, True)
    assert b"asked" in said(placement, seen.path)


def test_a_second_request_may_be_more_urgent(placement: LocalPlacement, home: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    seen, _ = begin(placement, home, placements.awkward("ignores_term", pids))
    waiting.until((pids / "ready").exists, what="the agent ignores TERM")
    placement.signal_stop(seen.key, seen.path, grace=600)
    placement.signal_stop(seen.key, seen.path, grace=0)
    assert await_exit(placement, seen).signal == signal.SIGKILL


def test_a_stop_before_the_start_voids_the_run(placement: LocalPlacement, home: Path) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    assert not placement.signal_stop(made.key, path, grace=1)
    with pytest.raises(PlacementFailed, match="stopped before the start"):
        placement.start(made.key, path, env={}, timeout=20)
    seen = await_free(placement, placement.look_at(made.key, path))
    assert seen.void is not None
    assert "stopped before" in seen.void.reason
    assert seen.start is None


def test_nobody_takes_a_stop_of_an_ended_run(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home, ("/bin/true",))
    await_free(placement, seen)
    assert not placement.signal_stop(seen.key, seen.path, grace=1)
    assert not placement.signal_stop(seen.key, str(home / "nothing"), grace=1)


# settling


def test_a_void_run_never_starts(placement: LocalPlacement, home: Path) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    seen = placement.void(made.key, path, reason="its deployer died")
    assert seen.lock is LockState.FREE
    assert seen.void is not None
    assert seen.void.reason == "its deployer died"
    with pytest.raises(PlacementFailed, match="already"):
        placement.start(made.key, path, env={}, timeout=20)
    assert placement.look_at(made.key, path).start is None


def test_a_run_that_runs_or_ran_cannot_be_made_void(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home)
    after = placement.void(seen.key, seen.path, reason="no")
    assert (after.lock, after.void) == (LockState.HELD, None)
    assert after.start is not None
    placement.signal_stop(seen.key, seen.path, grace=0)
    await_free(placement, seen)
    after = placement.void(seen.key, seen.path, reason="no")
    assert (after.lock, after.void) == (LockState.FREE, None)
    assert after.exit is not None


def test_a_run_without_a_directory_is_void(placement: LocalPlacement, home: Path) -> None:
    seen = placement.void(RunKey("nobody-0000000000000001", 1), str(home / "gone"), reason="x")
    assert seen.void is not None


def test_a_killed_runner_leaves_a_free_lock_and_a_tree_that_is_reaped(
    placement: LocalPlacement, home: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    seen, started = begin(placement, home, placements.awkward("has_own_groups", pids))
    waiting.until((pids / "ready").exists, what="the tree stands")
    os.kill(started.runner.pid, signal.SIGKILL)
    after = await_free(placement, seen)
    assert after.start is not None
    assert after.exit is None
    assert placement.reap(after) == ()
    assert placements.noted(pids) == set()


def test_a_living_run_is_not_reaped(placement: LocalPlacement, home: Path) -> None:
    seen, started = begin(placement, home)
    assert placement.reap(replace(seen, lock=LockState.FREE)) is None
    assert placement.presence(started.process) is Presence.ALIVE


# resources


def test_free_resources_are_counted(placement: LocalPlacement) -> None:
    assert placement.free_disk_mb() > 1
    assert placement.free_memory_mb() > 1


def test_ended_runners_leave_no_zombie(placement: LocalPlacement, home: Path) -> None:
    runners = []
    for n in range(1, 4):
        seen, started = begin(placement, home, ("/bin/true",), n=n)
        await_free(placement, seen)
        runners.append(started.runner.pid)

    def waited_for(pid: int) -> bool:
        placement.look()
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False

    waiting.until(lambda: all(map(waited_for, runners)), what="no runner is left, not even a zombie")


def test_threads_that_start_the_first_runs_at_once_share_one_compiled_runner(tmp_path: Path) -> None:
    for attempt in range(20):
        cache = str(tmp_path / str(attempt))
        with ThreadPoolExecutor(8) as pool:
            made = set(pool.map(lambda _, cache=cache: program.compiled_runner(cache), range(8)))
        assert os.listdir(cache) == [os.path.basename(made.pop())]
        assert not made
