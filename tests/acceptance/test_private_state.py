"""What lies under the state directory is the user's alone, and no link planted there is followed."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from headcount import Headcount, client
from headcount.config import Home
from headcount.daemon import log
from headcount.daemon.program import _write as publish
from headcount.domain.errors import HeadcountError, Infrastructure
from headcount.domain.model import RunKey
from headcount.harnesses.catalogue import find
from headcount.harnesses.driver import letters
from headcount.runtimes import asks, inbox, program, records
from headcount.runtimes.gate import gate
from headcount.runtimes.transcript import Transcript
from tests.support import forks, placements
from tests.support.daemons import Bridge, daemon
from tests.support.fleets import fleet
from tests.support.placements import await_exit, begin
from tests.support.waiting import until

FOLDERS: Final = ("runs", "live", "quarantine", "backups", "trash", "cache", "gates", "worktrees")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file of the user's that is not ours; nothing may happen to it."""
    made = tmp_path / "precious"
    made.write_text("precious")
    yield made
    assert made.read_text() == "precious"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory of the user's that is not ours; nothing may be put there."""
    made = tmp_path / "elsewhere"
    made.mkdir()
    yield made
    assert os.listdir(made) == []


# ---------------------------------------------------------------- links in the home


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_in_the_place_of_one_of_our_directories_is_refused(
    name: str, home: Path, elsewhere: Path
) -> None:
    for make_first in (False, True):
        if make_first:
            (home / name).unlink()
            Home(home).make()
            if name != "worktrees":
                (home / name).rmdir()
        (home / name).symlink_to(elsewhere)
        with pytest.raises(Infrastructure, match="symbolic link"):
            Headcount(home, views=False, autostart=False)


def test_a_link_in_the_place_of_the_registry_is_refused(home: Path, outside: Path) -> None:
    (home / "registry.db").symlink_to(outside)
    with pytest.raises(Infrastructure, match="symbolic link"):
        Headcount(home, views=False, autostart=False)


def test_a_halt_writes_through_no_link(home: Path, outside: Path) -> None:
    with fleet(home) as opened:
        (home / "halted").symlink_to(outside)
        assert "cannot be written" in str(opened.halt(reason="x").note)
        (home / "halted").unlink()


def test_no_link_among_the_daemons_own_files_is_followed(home: Path, outside: Path) -> None:
    (home / "daemon.log").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        log.configure(Home(home).daemon_log)
    for name in ("daemon.json", "token", "port"):
        (home / name).symlink_to(outside)
        publish(home / name, "ours")
        assert not (home / name).is_symlink()
        (home / f".{name}.{os.getpid()}").symlink_to(outside)
        with pytest.raises(OSError, match="symbolic link"):
            publish(home / name, "ours")


def test_a_lock_of_a_gate_and_a_compiled_runner_go_through_no_link(home: Path, outside: Path) -> None:
    Home(home).make()
    gates = home / "gates"
    with gate(str(gates), 1, 1.0):
        (lock,) = gates.iterdir()
    lock.unlink()
    lock.symlink_to(outside)
    mode = outside.stat().st_mode
    with gate(str(gates), 1, 0.2):  # as if there were none
        pass
    assert outside.stat().st_mode == mode
    compiled = Path(program.compiled_runner(str(home / "cache")))
    compiled.unlink()
    compiled.symlink_to(outside)
    with placements.placed(home) as placement:
        outside_before = outside.read_bytes()
        with suppress(HeadcountError):  # it is no runner
            begin(placement, home, ("/bin/true",))
        assert outside.read_bytes() == outside_before


# ---------------------------------------------------------------- links in a run directory

WRITES: Final[dict[str, Any]] = {
    "a note for a driver": lambda run: inbox.put(str(run), "1", {"x": 1}),
    "an answer to a question": lambda run: asks.answer(str(run), "1", {"x": 1}),
    "an answer of a driver": lambda run: letters.write(f"{run}/inbox/1.done", {"x": 1}),
}


@pytest.mark.parametrize("what", WRITES)
def test_what_is_written_into_a_run_follows_no_link(what: str, tmp_path: Path, outside: Path) -> None:
    run = tmp_path / "run"
    for folder in ("inbox", "asks"):
        (run / folder).mkdir(parents=True)
        for name in (f".1.{os.getpid()}", "1.done.tmp"):
            (run / folder / name).symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        WRITES[what](run)


@pytest.mark.parametrize("what", list(WRITES)[:2])
def test_a_link_in_the_place_of_its_folder_is_refused(what: str, tmp_path: Path, elsewhere: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for folder in ("inbox", "asks"):
        (run / folder).symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
        WRITES[what](run)


def test_an_agent_that_puts_links_where_its_output_goes_on_loses_output_only(
    home: Path, outside: Path
) -> None:
    """The runner is no sandbox's prisoner, even if its agent is one."""
    code = (
        "import os, sys\n"
        "for n in range(0, 10_001, 100):\n"
        "    os.symlink(sys.argv[1], f'output.{n}.jsonl')\n"
        "for name in ('runner.log', 'start.tmp', 'stop.tmp', 'transcript'):\n"
        "    os.symlink(sys.argv[1], name)\n"
        "for _ in range(100):\n"
        "    os.write(1, b'x' * 100)\n"
    )
    with placements.placed(home) as placement:
        path = placement.run_path(RunKey("builder-0000000000000001", 1), reserved_at=0.0)
        seen, _ = begin(
            placement,
            home,
            (sys.executable, "-I", "-S", "-c", f"import os\nos.chdir({path!r})\n{code}", str(outside)),
            output_cap=4_000,
            reserved_at=0.0,
        )
        record = await_exit(placement, seen)
        assert (record.code, record.output_bytes) == (0, 10_000)
        assert record.output_cut > 0
        assert b"precious" not in placement.read_output(path, offset=0, limit=10_000).data


def test_nothing_is_read_through_a_link_of_an_agent_or_waits_for_its_pipe(home: Path, outside: Path) -> None:
    with placements.placed(home) as placement:
        seen, _ = begin(placement, home, ("/bin/true",))
        await_exit(placement, seen)
        for name in ("output.jsonl", "stderr.log"):
            Path(seen.path, name).unlink()
            Path(seen.path, name).symlink_to(outside)
        assert placement.read_output(seen.path, offset=0, limit=100).data == b""
        assert placement.read_output(seen.path, offset=0, limit=100, stream="stderr").data == b""
        for name in ("void.json", "order.json"):
            Path(seen.path, name).unlink(missing_ok=True)
            os.mkfifo(Path(seen.path, name))
            with pytest.raises(records.Unreadable):
                records.read_object(f"{seen.path}/{name}")
        placement.unmark(seen.key)


def test_a_transcript_goes_through_no_link(home: Path, outside: Path) -> None:
    with placements.placed(home) as placement:
        seen, _ = begin(placement, home, ("/bin/echo", "hello"))
        await_exit(placement, seen)
        for name in ("transcript", "transcript.place.tmp"):
            Path(seen.path, name).symlink_to(outside)
        written = Transcript(seen.path, placement, find("command").read)
        while written.advance(over=True):
            pass
        assert "hello" in Path(seen.path, "transcript").read_text()
        assert not Path(seen.path, "transcript").is_symlink()
        placement.unmark(seen.key)


# ---------------------------------------------------------------- modes


def test_all_that_a_whole_job_leaves_is_the_users_alone(home: Path, tmp_path: Path) -> None:
    """Whatever the umask of whoever began it."""
    before = os.umask(0)
    try:
        with daemon(home) as process, Bridge(home, cwd=tmp_path) as bridge:
            task = bridge.call("create_task", description="x", project=str(tmp_path))["task_id"]
            made = bridge.call(
                "deploy_headless_agent",
                task_id=task,
                agent_type="builder",
                harness="script",
                prompt='[{"report": {"status": "working", "message": "m"}}, {"say": "x"}, {"sleep": 600}]',
                options={"steer": True},
            )
            agent = made["agent_id"]
            until(lambda: bridge.call("get_agent", agent_id=agent)["message"] == "m", what="its report")
            bridge.call("send_message", agent_id=agent, text="hello")
            open_now = [*_open_to_others(home)]
            bridge.call("stop_agent", agent_id=agent, grace=1)
            until(lambda: bridge.call("get_agent", agent_id=agent)["runs"][-1]["account"], what="its account")
            assert process.poll() is None
            assert [*open_now, *_open_to_others(home)] == []
            names = {each.name for each in home.rglob("*")}
            assert names >= {"registry.db", "order.json", "exit.json", "output.jsonl", "daemon.log", "token"}
    finally:
        os.umask(before)


def _open_to_others(home: Path) -> Iterator[str]:
    for each in (home, *home.rglob("*")):
        found = each.lstat()
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o077:
            yield f"{stat.filemode(found.st_mode)} {each.relative_to(home)}"


# ---------------------------------------------------------------- sockets that others could have made


def test_a_directory_for_sockets_that_others_made_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    Home(deep).runtime.mkdir(parents=True)
    Home(deep).runtime.chmod(0o777)
    with pytest.raises(Infrastructure, match="not private to you"):
        Home(deep).make()


@pytest.mark.usefixtures("require_root")
def test_a_daemon_of_another_users_gets_no_token(home: Path) -> None:
    def listen(pipe: int) -> None:
        os.chdir(home)
        os.setgid(65_534)
        os.setuid(65_534)
        with socket.socket(socket.AF_UNIX) as line:
            line.bind("theirs.sock")
            line.listen()
            os.write(pipe, b"x")
            line.settimeout(60)
            heard, _ = line.accept()
            with heard:
                os.write(pipe, heard.recv(100) or b"-")

    home.chmod(0o777)
    with forks.child(listen) as (_, pipe), socket.socket(socket.AF_UNIX) as line:
        assert os.read(pipe, 1) == b"x"
        with pytest.raises(ConnectionRefusedError, match="another user's"):
            client.connect(line, str(home / "theirs.sock"))
        line.close()
        assert os.read(pipe, 100) == b"-"
    home.chmod(0o700)
