"""What happens to views when tmux, the machine or an agent's output does its worst."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.domain.errors import InvalidInput
from headcount.domain.model import RunKey
from headcount.runtimes.tmux_view import TmuxViews
from tests.support.views import Fleet, Run, alive, fleet, person, pss_kb, tree
from tests.support.waiting import until

SHOW = """
import os, sys
from headcount.domain.model import RunKey
from headcount.runtimes.tmux_view import TmuxViews
socket, tmux, agent, path, pid = sys.argv[1:]
views = TmuxViews(socket, tmux=tmux, env=os.environ)
print("ready", flush=True)
sys.stdin.readline()
views.show(RunKey(agent, 1), path, runner_pid=int(pid), renders=False)
"""


@pytest.fixture
def views(home: Path, require_tmux: str) -> Iterator[Fleet]:
    with fleet(home, require_tmux) as made:
        yield made


def show_at_once(views: Fleet, runs: list[Run]) -> None:
    """Show each run from a process of its own, all in the same instant."""
    argv = (sys.executable, "-c", SHOW, views.socket, views.tmux)
    crowd = [
        subprocess.Popen(
            (*argv, run.name, str(run.path), str(run.pid)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for run in runs
    ]
    for each in crowd:
        assert each.stdout is not None
        assert each.stdout.readline() == b"ready\n"
    for each in crowd:
        assert each.stdin is not None
        each.stdin.close()
    for each in crowd:
        assert each.wait(60) == 0
        assert each.stdout is not None
        each.stdout.close()


@pytest.mark.parametrize("number", [30, 100])
def test_many_processes_show_at_once_without_a_server(views: Fleet, number: int) -> None:
    runs = [views.run() for _ in range(number)]
    show_at_once(views, runs)
    until(lambda: len(views.names()) == number, what=f"{number} sessions", patience=30)
    assert views.names() == sorted(run.name for run in runs)


def test_one_run_shown_by_many_at_once_has_one_session(views: Fleet) -> None:
    run = views.run()
    show_at_once(views, [run] * 20)
    until(lambda: views.names() == [run.name], what="the session")
    assert len(views.pane_pids()) == 1


def test_a_dead_server_is_an_empty_answer_and_the_next_show_starts_another(views: Fleet) -> None:
    runs = [views.shown(b"hello\n") for _ in range(3)]
    panes = views.pane_pids()
    views.kill_server()
    assert views.names() == []
    assert all(run.alive() for run in runs)
    until(lambda: not any(map(alive, panes)), what="the end of the dead server's views")
    for run in runs:
        views.show(run)
    until(lambda: len(views.names()) == len(runs), what="all sessions again")
    until(lambda: "hello" in views.screen(runs[0]), what="the transcript again")


def test_a_server_without_sessions_stays(views: Fleet) -> None:
    run = views.shown()
    pid = views.server_pid()
    assert views.views.close(run.name)
    assert views.names() == []
    assert views.server_pid() == pid


def test_short_views_one_after_the_other_are_never_refused(views: Fleet) -> None:
    for _ in range(20):
        run = views.shown()
        assert views.views.close(run.name)


def test_a_socket_that_was_removed_is_an_empty_answer(views: Fleet) -> None:
    views.shown()
    pid = views.server_pid()
    os.unlink(views.socket)
    assert views.names() == []
    os.kill(pid, signal.SIGUSR1)  # the server makes its socket again
    until(lambda: os.path.exists(views.socket), what="the socket")
    assert len(views.names()) == 1


def test_a_wedged_server_is_unknown_within_the_time_out(home: Path, require_tmux: str) -> None:
    with fleet(home, require_tmux, timeout=0.3) as views:
        run = views.run(data=b"")
        views.show(run)
        until(views.views.list, what="the session")
        pid = views.server_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert views.views.list() is None
            assert [views.views.close(run.name) for _ in range(20)] == [False] * 20
            other = views.run()
            views.show(other)
            assert time.monotonic() - began < 2, "a wedged server costs one time-out, not twenty"
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: len(views.views.list() or ()) == 2, what="the view that was asked for meanwhile")


def test_a_long_life_leaves_no_zombies(views: Fleet) -> None:
    def zombies() -> set[int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return {pid for pid in map(int, children) if not alive(pid)}

    before = zombies()  # of other tests of this process
    run = views.shown()
    for _ in range(30):
        views.show(run)
    until(lambda: views.settled() and zombies() <= before, what="the end of all clients")


HOSTILE = {
    b"\x1b]0;owned\x07": "^[]0;owned^G",
    b"\x1b[2J\x1b[31mred": "^[[2J^[[31mred",
    b"\x1bkname\x1b\\": "^[kname^[\\",
    b"a\x00b": "ab",
    b"back\x08space \x7f": "back^Hspace ^?",
    b"one\rtwo": "one^Mtwo",
    b"dos line\r": "dos line",
    b"\xc2\x9b31m \xc2\x90q": "<C1>31m <C1>q",
    b"raw \x9b31m": "raw \ufffd31m",
    b"\x9b at the start": "\ufffd at the start",
    b"after \xc3\xa9\x9b and \xe2\x82\xac\x9b": "after \u00e9\ufffd and \u20ac\ufffd",
    b"never \xff\xfe\xc0\x80": "never \ufffd",
    "caf\u00e9 \u2018q\u2019 \u20ac \u65e5\u672c".encode(): "caf\u00e9 \u2018q\u2019 \u20ac \u65e5\u672c",
    b"a\\033b \\n %s #{pid} #(id) `id` $(id)": "a\\033b \\n %s #{pid} #(id) `id` $(id)",
    bytes(range(1, 9)) + bytes(range(14, 32)): "^A^B^C^D^E^F^G^H^N^O^P^Q^R^S^T^U^V^W^X^Y^Z^[^\\^]^^^_",
}


@pytest.mark.parametrize(("written", "shown"), HOSTILE.items(), ids=[repr(each) for each in HOSTILE])
def test_control_characters_are_made_visible(views: Fleet, written: bytes, shown: str) -> None:
    run = views.shown(b"<" + written + b"\nend.\n")
    until(lambda: "end." in views.screen(run), what="the end")
    line = views.screen(run).splitlines()[0]
    if written.endswith(b"\r"):
        assert line == f"<{shown}"
    else:
        assert line.startswith(f"<{shown.rstrip()}")
    title = views.ask("display-message", "-p", "-t", f"={run.name}:", "#{pane_title} #{window_name}")
    assert "owned" not in title
    assert "name" not in title.split()


def test_later_parts_of_a_long_output_are_followed(views: Fleet) -> None:
    run = views.run(data=b"head\n")
    run.write(b"in the ninth part\n", part="output.900.jsonl")
    run.write(b"in the tenth part\n", part="output.1000.jsonl")
    views.show(run)
    until(lambda: "tenth part" in views.screen(run), what="the newest part")
    assert "head" not in views.screen(run)
    run.write(b"in the last part\n", part="output.1100.jsonl")
    (run.path / "output.900.jsonl").unlink()
    until(lambda: "last part" in views.screen(run), what="the part written since")
    run.write(b"and more\n", part="output.1100.jsonl")
    until(lambda: "and more" in views.screen(run), what="what was added to it")


@pytest.mark.parametrize(
    "folder",
    [
        "a b",
        "a'b\"c",
        "#(touch x)",
        "#{pid} #H",
        "a;",
        "; run-shell 'touch x' ;",
        "$(touch x)`touch x`",
        "-n",
    ],
)
def test_a_home_with_any_name_executes_nothing(home: Path, require_tmux: str, folder: str) -> None:
    place = home / folder
    place.mkdir(mode=0o700)
    with fleet(place, require_tmux) as views:
        run = views.shown(b"it is here\n")
        until(lambda: "it is here" in views.screen(run), what="the transcript")
        assert views.ask("list-panes", "-a", "-F", "#{session_name}") == f"{run.name}\n"
    assert not list(home.rglob("x"))
    assert not Path("/x").exists()


def test_a_run_directory_that_ends_in_a_semicolon_executes_nothing(views: Fleet) -> None:
    run = views.run()
    path = views.home / "odd ;"
    path.mkdir()
    (path / "output.jsonl").write_text("it is here\n")
    views.views.show(run.key, str(path), runner_pid=run.pid, renders=False)
    until(lambda: views.names() == [run.name], what="the session")
    until(lambda: "it is here" in views.screen(run), what="the transcript")


def test_a_socket_path_that_is_too_long_is_refused_clearly(home: Path, require_tmux: str) -> None:
    views = TmuxViews(str(home / ("x" * 100) / "tmux.sock"), tmux=require_tmux, env={})
    assert "longer than 103 bytes" in str(views.available())
    views.show(RunKey("builder-01jx5e2k9pab12cd", 1), str(home), runner_pid=os.getpid(), renders=False)
    assert not list(home.iterdir())


def test_a_directory_that_others_can_write_is_refused(views: Fleet) -> None:
    views.home.chmod(0o777)
    assert "others can write" in str(views.views.available())
    views.show(views.run())
    assert not os.path.exists(views.socket)


def test_a_tmux_that_is_gone_is_said_so(home: Path) -> None:
    views = TmuxViews(str(home / "tmux.sock"), tmux=str(home / "tmux"), env={})
    assert "apt install tmux" in str(views.available())


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_a_pid_that_is_no_runners_is_refused(views: Fleet, pid: int) -> None:
    run = views.run()
    with pytest.raises(InvalidInput):
        views.views.show(run.key, str(run.path), runner_pid=pid, renders=False)


def test_the_server_has_the_descriptors_it_was_promised(views: Fleet) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        views.shown()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = resource.prlimit(views.server_pid(), resource.RLIMIT_NOFILE)[0]
    assert limit == min(4096, hard)


def test_views_stay_below_the_descriptors(home: Path, require_tmux: str) -> None:
    with fleet(home, require_tmux, max_views=3) as views:
        runs = [views.shown() for _ in range(3)]
        views.show(views.run())
        until(views.settled, what="the fourth client's end")
        assert views.names() == sorted(run.name for run in runs)
        assert views.views.close(runs[0].name)
        views.shown()


def test_nothing_of_the_callers_tmux_or_agent_reaches_the_server(home: Path, require_tmux: str) -> None:
    env = {
        **os.environ,
        "TMUX": "/elsewhere,1,0",
        "TMUX_PANE": "%0",
        "HEADCOUNT_TOKEN": "secret",
        "LC_ALL": "C",
    }
    with fleet(home, require_tmux, env=env) as views:
        run = views.shown("caf\u00e9\n".encode())
        until(lambda: "caf\u00e9" in views.screen(run), what="the transcript in UTF-8")
        pid = views.server_pid()
        names = {each.partition("=")[0] for each in Path(f"/proc/{pid}/environ").read_text().split("\0")}
        assert not names & {"TMUX", "TMUX_PANE", "HEADCOUNT_TOKEN", "LC_ALL", "ANTHROPIC_API_KEY"}
        assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_keys_reach_neither_the_view_nor_the_agent(views: Fleet) -> None:
    run = views.shown(b"hello\n")
    (pane,) = views.pane_pids()
    views.ask("send-keys", "-t", f"={run.name}:", "C-c", "C-z", "C-\\", "q", "Enter")
    run.write(b"still here\n")
    until(lambda: "still here" in views.screen(run), what="a view that goes on")
    assert views.pane_pids() == [pane]


def test_a_person_can_scroll_and_leave_but_not_type(views: Fleet) -> None:
    run = views.shown(b"".join(b"line %d.\n" % number for number in range(150)))
    until(lambda: "line 149." in views.screen(run), what="the transcript")
    with person(views.views.attach_argv(run.name)) as somebody:
        until(lambda: somebody.sees("line 149."), what="the end of the transcript")
        for key in (b"r", b"m", b"\r", b"\x13", b"\x1a", b"\x02", b":"):
            somebody.press(key)
        run.write(b"still here\n")
        until(lambda: somebody.sees("still here"), what="what is written while somebody looks")
        somebody.press(b"\x1b[5~")
        until(lambda: somebody.sees("line 100."), what="what stood above")
        somebody.press(b"q")
        until(lambda: somebody.sees("still here"), what="the end again")
        assert views.ask("display-message", "-p", "-t", f"={run.name}:", "#{window_width}") == "120\n"
        somebody.press(b"q")
        until(lambda: somebody.sees("detached"), what="leaving")
    assert views.names() == [run.name]
    assert views.screen(run).splitlines()[150] == "still here"


def test_attaching_where_no_server_is_starts_none(views: Fleet) -> None:
    done = subprocess.run(
        views.views.attach_argv("builder-0000000000000000"), capture_output=True, check=False
    )
    assert done.returncode != 0
    assert not os.path.exists(views.socket)


@pytest.mark.slow
def test_a_view_costs_less_than_a_megabyte(views: Fleet) -> None:
    runs = [views.shown(b"a line of output\n" * 100) for _ in range(20)]
    until(lambda: all("a line" in views.screen(run) for run in runs), what="all transcripts")
    until(lambda: all(len(tree(pid)) == 6 for pid in views.pane_pids()), what="all processes of the views")
    costs = [sum(map(pss_kb, tree(pid))) for pid in views.pane_pids()]
    server = pss_kb(views.server_pid())
    assert max(costs) + server / len(runs) <= 1024, (costs, server)
