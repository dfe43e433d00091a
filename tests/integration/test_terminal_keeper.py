"""The keeper of a terminal: what appears is never lost for the run, and no window holds the program up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headcount.runtimes import terminal
from headcount.runtimes.terminal import keeper
from tests.support.fleets import alive
from tests.support.waiting import until


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run directory with a path that is too long for a socket."""
    made = tmp_path / ("r" * 100) / "run"
    made.mkdir(parents=True)
    return made


class Kept:
    """A program on a terminal that a keeper holds."""

    def __init__(self, place: Path, script: str) -> None:
        self.place = place
        self.output = place / "output"
        with self.output.open("wb") as out:
            argv = terminal.kept(("/bin/sh", "-c", script), str(place))
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, start_new_session=True
            )

    def wait(self) -> int:
        return self.process.wait(20)

    def appeared(self) -> bytes:
        return self.output.read_bytes()

    def tail(self) -> bytes:
        return self.appeared()[-100:]

    @contextmanager
    def window(self) -> Iterator[socket.socket]:
        until((self.place / "terminal").exists, what="the keeper listens")
        here = os.open(".", os.O_RDONLY)
        os.chdir(self.place)
        try:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.connect("terminal")
        finally:
            os.fchdir(here)
            os.close(here)
        link.settimeout(20)
        with link:
            yield link


@contextmanager
def kept(place: Path, script: str) -> Iterator[Kept]:
    made = Kept(place, script)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            os.killpg(made.process.pid, signal.SIGKILL)
            made.process.wait(20)


def frame(kind: bytes, content: bytes) -> bytes:
    return kind + b"%04x" % len(content) + content


def sees(link: socket.socket, words: bytes) -> bytes:
    """Return what a window is told up to these words."""
    seen = b""
    while words not in seen:
        more = link.recv(65_536)
        assert more, seen
        seen += more
    return seen


def test_it_is_a_terminal_and_its_end_is_the_programs(place: Path) -> None:
    with kept(place, "test -t 0 && test -t 1 && test -t 2 && stty size && exit 7") as program:
        assert program.wait() == 7
    assert program.appeared() == b"40 120\r\n"
    assert not (place / "terminal").exists()


def test_a_program_that_a_signal_ends_is_told_as_such(place: Path) -> None:
    with kept(place, "kill -9 $$") as program:
        assert program.wait() == -signal.SIGKILL


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    argv = terminal.kept(("/nowhere/tool",), str(tmp_path))
    done = subprocess.run(argv, capture_output=True, timeout=20, check=False)
    assert (done.returncode, b"/nowhere/tool cannot be started" in done.stdout) == (127, True)


def test_its_socket_is_the_users_alone(place: Path) -> None:
    with kept(place, "read x") as program, program.window():
        assert (place / "terminal").stat().st_mode & 0o777 == 0o600


def test_keys_of_every_window_arrive_and_all_see_the_same(place: Path) -> None:
    script = "stty -echo; echo ready; while read x; do echo got $x; done"
    with kept(place, script) as program, program.window() as one, program.window() as two:
        sees(one, b"ready")
        one.sendall(frame(b"k", b"a\r"))
        two.sendall(frame(b"k", b"b") + frame(b"k", b"\r"))
        for each in (one, two):
            seen = sees(each, b"got b")
            assert b"got a" in seen
        one.sendall(frame(b"k", b"\x04"))
        assert program.wait() == 0
    assert b"got a\r\ngot b\r\n" in program.appeared()


def test_a_window_that_comes_later_sees_the_end_of_what_was_and_no_more_than_is_kept(place: Path) -> None:
    with kept(place, "seq 200000; echo the end; read x") as program:
        until(lambda: b"the end" in program.appeared(), what="it has written all")
        with program.window() as late:
            seen = sees(late, b"the end")
    assert len(seen) <= keeper.KEPT + keeper.CHUNK
    assert seen.endswith(b"200000\r\nthe end\r\n")
    assert program.appeared().startswith(b"1\r\n2\r\n")  # the run has it all


def test_a_window_that_reads_nothing_is_let_go_and_holds_nobody_up(place: Path) -> None:
    lines = (keeper.BEHIND + 4_000_000) // 8
    script = f"read go; seq 1000000 {1_000_000 + lines}; echo the end; read x"
    with kept(place, script) as program, program.window() as idle:
        idle.sendall(frame(b"k", b"\r"))
        until(lambda: b"the end" in program.tail(), what="it has written all", patience=60)
        with program.window() as other:
            other.sendall(frame(b"k", b"\r"))
            assert program.wait() == 0
        taken = 0
        while more := _read(idle):
            taken += len(more)
    assert taken < len(program.appeared())


def _read(link: socket.socket) -> bytes:
    try:
        return link.recv(1 << 20)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    "nonsense", [b"kzzzz", b"\xff" * 4096, frame(b"s", b"0 0"), frame(b"s", b"-1 x"), b"k"]
)
def test_a_window_that_talks_nonsense_changes_nothing(nonsense: bytes, place: Path) -> None:
    script = "echo ready; read x; echo got $x; stty size"
    with kept(place, script) as program, program.window() as bad:
        sees(bad, b"ready")
        bad.sendall(nonsense)
        with program.window() as good:
            sees(good, b"ready")
            good.sendall(frame(b"k", b"fine\r"))
            sees(good, b"40 120")
        assert program.wait() == 0


def test_the_size_is_that_of_whoever_spoke_last_and_a_new_window_has_all_drawn_anew(place: Path) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do read x || :; done"
    with kept(place, script) as program, program.window() as one:
        sees(one, b"ready")
        one.sendall(frame(b"s", b"30 90"))
        sees(one, b"30 90")
        with program.window() as two:
            sees(two, b"30 90")
            two.sendall(frame(b"s", b"30 90"))
            sees(two, b"30 90")  # drawn again for it, though nothing has changed


def test_a_request_to_end_is_a_hang_up_for_programs_that_heed_no_other(place: Path) -> None:
    with kept(place, "trap '' TERM; echo ready; while :; do sleep 0.1; done") as program:
        until(lambda: b"ready" in program.appeared(), what="it runs")
        began = time.monotonic()
        program.process.terminate()
        assert program.wait() == -signal.SIGHUP
        assert time.monotonic() - began < 10


def test_what_python_or_its_starter_ignores_is_not_handed_on(place: Path) -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP))"
    with kept(place, f"{sys.executable} -c '{code}'; yes | head -1; echo $?") as program:
        assert program.wait() == 0
    assert b"default_int_handler" in program.appeared()
    assert b" 0\r\n" in program.appeared()  # SIG_DFL
    assert b"Broken pipe" not in program.appeared()


def test_a_killed_keeper_takes_the_terminal_with_it(place: Path) -> None:
    with kept(place, "echo $$; exec sleep 600") as program:
        pid = int(until(program.appeared, what="it says who it is").split()[0])
        program.process.kill()
        program.wait()
        until(lambda: not alive(pid), what="its program has been hung up on")
