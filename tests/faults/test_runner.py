"""The runner against awkward agents, dying deployers, full disks and other runners."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount.config import Home
from headcount.domain.errors import PlacementFailed
from headcount.domain.model import LockState, Presence, RunKey, Seen, Started
from headcount.runtimes import program
from headcount.runtimes.local import LocalPlacement
from tests.support import forks, leftovers, needs, placements, waiting
from tests.support.placements import (
    AS_ON_A_MAC,
    NO_CGROUP,
    alive,
    await_exit,
    await_free,
    awkward,
    begin,
    environment,
    noted,
    order,
)

LAYERS = {"all layers": frozenset[str](), "no cgroup": NO_CGROUP, "as on a mac": AS_ON_A_MAC}

MODES = [
    "plain",
    "ignores_term",
    "stops_itself",
    "daemonises",
    "leaves_a_daemon",
    "leaves_a_clean_daemon",
    "runs_away",
    "grows_heads",
    "floods",
    "closes_stdio",
    "has_many",
    "has_a_stopped_child",
    "has_own_groups",
]
BEYOND_A_MAC = {("leaves_a_clean_daemon", "as on a mac"), ("runs_away", "as on a mac")}
"""Without sub-reaper and cgroup, a daemon with an empty environment cannot be told from anybody's, and a tree
that forks faster than the process table is read cannot be held."""


@pytest.fixture
def placement(home: Path) -> Iterator[LocalPlacement]:
    with placements.placed(home) as opened:
        yield opened


def start_awkward(placement: LocalPlacement, home: Path, mode: str, pids: Path) -> tuple[Seen, Started]:
    seen, started = begin(placement, home, awkward(mode, pids))
    waiting.until((pids / "ready").exists, what=f"{mode} is in place")
    return seen, started


# nothing survives


@pytest.mark.parametrize(
    ("mode", "layers"),
    [(mode, layers) for mode in MODES for layers in LAYERS if (mode, layers) not in BEYOND_A_MAC],
)
def test_nothing_of_an_awkward_agent_survives_a_stop(
    home: Path, tmp_path: Path, mode: str, layers: str
) -> None:
    pids = tmp_path / "pids"
    with placements.placed(home, LAYERS[layers]) as placement:
        seen, _ = start_awkward(placement, home, mode, pids)
        asked = time.monotonic()
        placement.signal_stop(seen.key, seen.path, grace=0.3)
        record = await_exit(placement, seen)
        assert time.monotonic() - asked < 0.3 + 2.0 + 3.0
        assert record.survivors == ()
    assert noted(pids) == set()
    assert leftovers.processes_under(pids) == []


@pytest.mark.parametrize("mode", ["leaves_a_daemon", "leaves_a_clean_daemon"])
def test_when_the_leader_ends_its_leftovers_are_ended_before_the_record(
    placement: LocalPlacement, home: Path, tmp_path: Path, mode: str
) -> None:
    pids = tmp_path / "pids"
    seen, _ = start_awkward(placement, home, mode, pids)
    record = await_exit(placement, seen)
    assert (record.code, record.stopped) == (3 if mode == "leaves_a_daemon" else 0, False)
    assert noted(pids) == set()


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("mode", ["plain", "daemonises", "has_many", "has_own_groups", "runs_away"])
def test_nothing_survives_the_death_of_the_runner(home: Path, tmp_path: Path, mode: str, layers: str) -> None:
    pids = tmp_path / "pids"
    with placements.placed(home, LAYERS[layers]) as placement:
        seen, started = start_awkward(placement, home, mode, pids)
        os.kill(started.runner.pid, signal.SIGKILL)
        after = await_free(placement, seen)
        assert (after.start, after.exit) == (seen.start, None)
        assert list(placement.reap(after) or ()) == []
        # Without a cgroup one that forks without end may be missed by a look: by the next it is not.
        waiting.until(
            lambda: not (placement.reap(after) or leftovers.processes_under(pids)), what="nothing is left"
        )
        assert noted(pids) == set()
        if after.start is not None and after.start.cgroup:
            assert not os.path.exists(after.start.cgroup)


def test_a_clean_run_leaves_no_cgroup(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home, ("/bin/true",))
    await_free(placement, seen)
    if seen.start is None or seen.start.cgroup is None:
        needs.lacking("no cgroup can be made")
    assert not os.path.exists(seen.start.cgroup)


@pytest.mark.usefixtures("require_root")
def test_as_root_the_agent_has_a_cgroup_of_its_own_and_the_runner_has_left(
    placement: LocalPlacement, home: Path
) -> None:
    seen, started = begin(placement, home)
    assert seen.start is not None
    assert set(seen.start.layers) == {"subreaper", "pdeathsig", "apart", "cgroup"}
    assert seen.start.cgroup is not None

    def group_of(pid: int) -> str:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return next(line[3:] for line in lines if line.startswith("0::"))

    assert seen.start.cgroup.endswith(group_of(started.process.pid))
    assert group_of(started.runner.pid).endswith("/headcount/runners")


# nobody else is touched


def test_a_run_started_inside_another_run_outlives_it(
    placement: LocalPlacement, home: Path, tmp_path: Path
) -> None:
    """Our own programs ask the daemon instead, but a kill loop must spare what was started all the same."""
    code = (
        "import sys, time; from pathlib import Path; from tests.support import placements; "
        "from headcount.config import Home; from headcount.runtimes.local import LocalPlacement; "
        "home = Path(sys.argv[1]); p = LocalPlacement(Home(home)); "
        "placements.begin(p, home, agent='fixer-0000000000000002'); print('begun', flush=True); "
        "time.sleep(600)"
    )
    parent = order(placement, (sys.executable, "-c", code, str(home)), cwd=os.getcwd())
    path = placement.prepare(parent)
    env = {
        **environment(home, parent.key),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    placement.start(parent.key, path, env=env, timeout=20)
    waiting.until(
        lambda: b"begun" in placement.read_output(path, offset=0, limit=100).data,
        what="the child run is started",
    )
    child = next(seen for seen in placement.look() if seen.key.agent_id.startswith("fixer"))
    assert child.start is not None
    placement.signal_stop(parent.key, path, grace=0.2)
    assert await_exit(placement, placement.look_at(parent.key, path)).survivors == ()
    after = placement.look_at(child.key, child.path)
    assert after.lock is LockState.HELD
    assert placement.presence(child.start.runner) is Presence.ALIVE
    assert placement.presence(child.start.process) is Presence.ALIVE


def test_the_holder_of_the_daemons_lock_is_spared(
    placement: LocalPlacement, home: Path, tmp_path: Path
) -> None:
    holder = (
        "import fcntl, os, time; lock = open(os.environ['HEADCOUNT_HOME'] + '/daemon.lock', 'w'); "
        "fcntl.lockf(lock, fcntl.LOCK_EX); print(os.getpid(), flush=True); time.sleep(600)"
    )
    script = f'{sys.executable} -I -S -c "{holder}" & sleep 600'
    seen, _ = begin(placement, home, ("/bin/sh", "-c", script))

    def said() -> bytes:
        return placement.read_output(seen.path, offset=0, limit=100).data

    waiting.until(said, what="the daemon's lock is held")
    daemon = int(said())
    try:
        placement.signal_stop(seen.key, seen.path, grace=0.2)
        record = await_exit(placement, seen)
        assert record.survivors == ()
        assert alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_reaping_touches_nothing_of_another_run_or_home(home: Path, tmp_path: Path) -> None:
    """The same agent id and run number in two homes, and a neighbour in the same home."""
    other_home = home.parent / "other"
    with placements.placed(home) as placement, placements.placed(other_home) as other:
        seen, started = begin(placement, home)
        _, neighbour = begin(placement, home, agent="fixer-0000000000000002")
        _, namesake = begin(other, other_home)
        marked = [
            subprocess.Popen(("/bin/sleep", "600"), env=environment(whose, key))
            for whose, key in ((other_home, seen.key), (home, RunKey(seen.key.agent_id, 2)))
        ]
        os.kill(started.runner.pid, signal.SIGKILL)
        placement.reap(await_free(placement, seen))
        assert not alive(started.process.pid)
        assert [each.poll() for each in marked] == [None, None]
        for stranger in marked:
            stranger.kill()
            stranger.wait()
        for each in (neighbour, namesake):
            assert placement.presence(each.runner) is Presence.ALIVE
            assert placement.presence(each.process) is Presence.ALIVE


def test_a_run_of_an_earlier_boot_is_not_reaped(placement: LocalPlacement, home: Path) -> None:
    """Its pids belong to others now."""
    from dataclasses import replace

    seen, started = begin(placement, home)
    assert seen.start is not None
    stranger = replace(seen.start, process=replace(seen.start.process, boot_id="another"))
    assert placement._reaper.reap(seen.key, stranger) == ()
    assert placement.presence(started.process) is Presence.ALIVE


def test_a_pid_that_was_given_to_another_process_is_not_killed(placement: LocalPlacement, home: Path) -> None:
    from dataclasses import replace

    stranger = subprocess.Popen(("/bin/sleep", "600"), start_new_session=True)
    try:
        seen, _ = begin(placement, home, ("/bin/true",))
        start = await_free(placement, seen).start
        assert start is not None
        mistaken = replace(
            start, process=replace(start.process, pid=stranger.pid, ticks=start.process.ticks - 5000)
        )
        assert placement._reaper.reap(seen.key, mistaken) == ()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# two runners


def test_of_many_runners_of_one_run_exactly_one_starts_it(
    placement: LocalPlacement, home: Path, tmp_path: Path
) -> None:
    made = order(placement, ("/bin/sh", "-c", f"echo x >> {tmp_path}/starts; sleep 600"))
    path = placement.prepare(made)

    def race(_: int) -> str:
        try:
            LocalPlacement(Home(home)).start(made.key, path, env=environment(home, made.key), timeout=30)
        except PlacementFailed as error:
            return error.message
        return "started"

    told = forks.together(8, race)
    assert told.count("started") == 1
    assert all("lock" in each or "already" in each for each in told if each != "started")
    waiting.until((tmp_path / "starts").exists, what="the agent runs")
    assert (tmp_path / "starts").read_text() == "x\n"


def test_voiding_and_starting_at_once_never_do_both(placement: LocalPlacement, home: Path) -> None:
    for n in range(1, 13):
        made = order(placement, placements.SLEEP, n=n)
        path = placement.prepare(made)

        def race(index: int, key: RunKey = made.key, path: str = path) -> str:
            mine = LocalPlacement(Home(home))
            if index:
                time.sleep(0.004 * key.n)  # so that the void falls into every part of the start
                return "void" if mine.void(key, path, reason="raced").void else "not void"
            try:
                mine.start(key, path, env=environment(home, key), timeout=30)
            except PlacementFailed:
                return "refused"
            return "started"

        assert forks.together(2, race) in (["started", "not void"], ["refused", "void"])
        seen = placement.look_at(made.key, path)
        assert (seen.start is None) != (seen.void is None)


# a deployer that dies


def begun_by_hand(path: str) -> subprocess.Popen[bytes]:
    """Start a runner as a deployer does, and leave the conversation to the test."""
    argv = (
        program.interpreter(),
        "-I",
        "-S",
        program.compiled_runner(str(Path(path).parents[3] / "cache")),
        path,
    )
    return subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=path, env={}, start_new_session=True
    )


@pytest.mark.parametrize(
    "part", [b"", b"arg\0/bin/sleep\0", b"arg\0/bin/sleep\0arg\0600\0cwd\0/\0end\0", b"en"]
)
def test_a_truncated_order_starts_nothing(placement: LocalPlacement, part: bytes) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    with begun_by_hand(path) as runner:
        out, _ = runner.communicate(part, timeout=20)
    assert out.startswith(b"failed the order was cut short")
    seen = placement.look_at(made.key, path)
    assert seen.lock is LockState.FREE
    assert seen.start is None
    assert seen.void is not None


@pytest.mark.usefixtures("require_root")
def test_a_runner_that_nobody_moved_leaves_the_cgroup_of_its_starter(
    placement: LocalPlacement, home: Path
) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    with begun_by_hand(path) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        runner.stdin.write(placement._message(path, environment(home, made.key)))
        runner.stdin.flush()
        assert runner.stdout.readline().startswith(b"started")
        seen = placement.look_at(made.key, path)
        placement.signal_stop(made.key, path, grace=0)
    assert seen.start is not None
    assert ("apart" in seen.start.layers) == ("cgroup" in seen.start.layers)


def test_a_deployer_that_dies_after_the_order_does_not_harm_the_run(
    placement: LocalPlacement, home: Path
) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    with begun_by_hand(path) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        runner.stdout.close()
        runner.stdin.write(placement._message(path, environment(home, made.key)))
        runner.stdin.close()
        seen = waiting.until(lambda: placement.look_at(made.key, path).start, what="the run is started")
        assert seen
        assert placement.presence(seen.process) is Presence.ALIVE
        placement.signal_stop(made.key, path, grace=1)


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE])
def test_signals_of_a_closing_terminal_do_not_end_a_runner(
    placement: LocalPlacement, home: Path, how: int
) -> None:
    seen, started = begin(placement, home)
    os.kill(started.runner.pid, how)
    placement.signal_stop(seen.key, seen.path, grace=5)
    record = await_exit(placement, seen)
    assert (record.signal, record.stopped) == (signal.SIGTERM, True)


def test_a_term_to_the_runner_is_a_stop(placement: LocalPlacement, home: Path) -> None:
    seen, started = begin(placement, home)
    os.kill(started.runner.pid, signal.SIGTERM)
    record = await_exit(placement, seen)
    assert (record.signal, record.stopped) == (signal.SIGTERM, True)


def test_a_stop_file_whose_writer_died_is_found(placement: LocalPlacement, home: Path) -> None:
    seen, _ = begin(placement, home)
    Path(seen.path, "stop").write_bytes(b"stop 0\n")
    assert await_exit(placement, seen).signal == signal.SIGKILL


def test_rubbish_in_the_control_pipe_is_no_stop(placement: LocalPlacement, home: Path) -> None:
    seen, started = begin(placement, home)
    control = os.open(f"{seen.path}/control", os.O_WRONLY | os.O_NONBLOCK)
    for rubbish in (b"stop\n", b"stop now\n", b"\0\xff\n", b"start 1\n", b"stop -1\n"):
        os.write(control, rubbish)
    os.close(control)
    waiting.until(lambda: sleeping(started.runner.pid), what="the runner has read it")
    assert placement.presence(started.process) is Presence.ALIVE


def sleeping(pid: int) -> bool:
    return (
        Path(f"/proc/{pid}/wchan").read_text() not in {"0", ""}
        or "S" in Path(f"/proc/{pid}/stat").read_text()
    )


def test_an_idle_runner_uses_no_time(placement: LocalPlacement, home: Path) -> None:
    _, started = begin(placement, home)

    def used() -> int:
        fields = Path(f"/proc/{started.runner.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    waiting.until(lambda: sleeping(started.runner.pid), what="the runner has settled")
    before, until = used(), time.monotonic() + 6.0
    waiting.until(lambda: time.monotonic() > until, what="six seconds have passed")
    assert used() - before <= 1


def test_a_deep_home_and_a_long_role_work(home: Path) -> None:
    deep = home
    while len(str(deep)) < 300:
        deep /= "a-directory-with-quite-a-long-name"
    deep.mkdir(parents=True)
    with placements.placed(deep) as placement:
        seen, started = begin(placement, deep, agent="r" * 32 + "-0123456789abcdef")
        assert placement.presence(started.process) is Presence.ALIVE
        placement.signal_stop(seen.key, seen.path, grace=1)
        assert await_exit(placement, seen).stopped


def test_an_upgrade_of_the_package_does_not_touch_running_runners(
    placement: LocalPlacement, home: Path
) -> None:
    seen, _ = begin(placement, home)
    for each in (home / "cache").iterdir():
        each.unlink()
    placement.signal_stop(seen.key, seen.path, grace=1)
    assert await_exit(placement, seen).stopped
    begin(placement, home, n=2)


def test_a_deployer_that_blocks_and_ignores_every_signal_does_not_pass_that_on(
    placement: LocalPlacement, home: Path
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        seen, _ = begin(
            placement, home, ("/bin/sh", "-c", "grep -E 'SigBlk|SigIgn' /proc/self/status; exit 5")
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        signal.signal(signal.SIGCHLD, before)
    assert await_exit(placement, seen).code == 5
    said = placement.read_output(seen.path, offset=0, limit=1000).data.split()
    reserved = (
        0b11 << 31
    )  # signals 32 and 33 are the C library's: whoever started us may have left them ignored
    assert (int(said[1], 16), int(said[3], 16) & ~reserved) == (0, 0)


def test_a_runner_that_hangs_is_ended_and_so_is_its_agent(placement: LocalPlacement, home: Path) -> None:
    """Here the agent's child process hangs when it opens its stdin, after the start record is written."""
    made = order(placement, placements.SLEEP, stdin=b"x")
    path = placement.prepare(made)
    os.unlink(f"{path}/prompt")
    os.mkfifo(f"{path}/prompt")
    before = time.monotonic()
    with pytest.raises(PlacementFailed, match="hung"):
        placement.start(made.key, path, env=environment(home, made.key), timeout=1.0)
    assert time.monotonic() - before < 1.0 + 3.0
    seen = await_free(placement, placement.look_at(made.key, path))
    if seen.start is not None:
        assert not alive(seen.start.process.pid)
        assert not alive(seen.start.runner.pid)


def test_a_runner_with_a_defect_says_so(placement: LocalPlacement, home: Path) -> None:
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    os.unlink(f"{path}/control")
    with pytest.raises(PlacementFailed, match="No such file"):
        placement.start(made.key, path, env={}, timeout=20.0)
    assert placement.look_at(made.key, path).start is None


def test_a_reaping_daemon_keeps_its_own_lock(placement: LocalPlacement, home: Path) -> None:
    """Closing any descriptor of a file drops the F_SETLK that the process has on it."""
    import fcntl

    from headcount.runtimes import system

    with open(home / "daemon.lock", "wb") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for n in (1, 2):
            seen, started = begin(placement, home, n=n)
            os.kill(started.runner.pid, signal.SIGKILL)
            placement.reap(await_free(placement, seen))
        assert forks.together(1, lambda _: system.lock_holder(os.fspath(home / "daemon.lock"))) == [
            os.getpid()
        ]


def test_a_runner_that_was_stopped_takes_a_stop(placement: LocalPlacement, home: Path) -> None:
    seen, started = begin(placement, home)
    os.kill(started.runner.pid, signal.SIGSTOP)
    assert placement.look_at(seen.key, seen.path).lock is LockState.HELD
    assert placement.signal_stop(seen.key, seen.path, grace=1)
    assert await_exit(placement, seen).stopped


@pytest.mark.parametrize("moment", range(16))
def test_a_runner_killed_at_any_moment_leaves_what_can_be_settled(
    placement: LocalPlacement, home: Path, tmp_path: Path, moment: int
) -> None:
    """Either nothing was started, and the run can be made void; or its tree is found and ended."""
    pids = tmp_path / "pids"
    made = order(placement, awkward("daemonises", pids))
    path = placement.prepare(made)
    with begun_by_hand(path) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        runner.stdin.write(placement._message(path, environment(home, made.key)))
        runner.stdin.flush()
        select.select([runner.stdout], [], [], 0.003 * moment)
        runner.kill()
    seen = await_free(placement, placement.look_at(made.key, path))
    assert seen.exit is None
    if seen.start is None:
        assert placement.void(made.key, path, reason="its runner died").void is not None
    else:
        assert placement.reap(seen) == ()
    waiting.until(
        lambda: not leftovers.processes_under(pids), what="the waiting child has ended with its runner"
    )
    assert noted(pids) == set()


def test_a_run_that_begins_during_a_look_is_not_taken_for_dead(
    placement: LocalPlacement, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock was free, then the runner took it and wrote its record, then the records are read."""
    made = order(placement, placements.SLEEP)
    path = placement.prepare(made)
    read = placement._records

    def begin_and_read(path: str) -> Any:
        monkeypatch.setattr(placement, "_records", read)
        LocalPlacement(Home(home)).start(made.key, path, env=environment(home, made.key), timeout=20)
        return read(path)

    monkeypatch.setattr(placement, "_records", begin_and_read)
    seen = placement.look_at(made.key, path)
    assert seen.start is not None
    assert seen.lock is LockState.HELD
