"""Writers that are killed, stopped, forked or kept out."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from headcount.config import Home
from headcount.domain.errors import Infrastructure, RegistryBusy
from headcount.store.lock import WritersLock
from tests.support.forks import child, end, together
from tests.support.registries import new_run, registry, with_task
from tests.support.waiting import until

KILLS = 40


@pytest.mark.timeout(240)
def test_no_commit_that_was_acknowledged_is_lost_when_writers_are_killed(home: Path) -> None:
    with_task(home).close()
    acknowledged: set[int] = set()
    for round_ in range(KILLS):

        def write_for_ever(pipe: int, round_: int = round_) -> None:
            opened = registry(home)
            number = round_ * 1_000_000
            while True:
                with opened.write("write") as tx:
                    tx.events.add("k", now=float(number), data={"pad": "x" * (number % 3000)})
                    tx.events.add("k", now=float(number))
                os.write(pipe, number.to_bytes(8, "big"))
                number += 1

        with child(write_for_ever) as (pid, pipe):
            heard = os.read(pipe, 8)
            while len(heard) < 8 * (1 + round_ % 7):  # so that it dies at another place each time
                heard += os.read(pipe, 8)
            os.kill(pid, signal.SIGKILL)
            while piece := os.read(pipe, 1 << 16):
                heard += piece
        acknowledged |= {int.from_bytes(heard[at : at + 8], "big") for at in range(0, len(heard), 8)}
    opened = registry(home)
    with opened.read() as tx:
        events = tx.events.since(0, limit=1_000_000)
    numbers = [int(event.at) for event in events]
    assert acknowledged <= set(numbers)
    assert all(numbers.count(each) == 2 for each in set(numbers[-50:])), "half a transaction"
    assert opened.integrity() == []
    opened.close()


def hold(home: Path, pipe: int) -> None:
    """Stand still inside a write transaction."""
    opened = registry(home)
    with opened.write("standing still") as tx:
        tx.runs.add(new_run("builder-1"))
        os.write(pipe, b".")
        signal.pause()


def test_a_writer_stopped_inside_its_transaction_is_named_after_the_deadline(home: Path) -> None:
    with_task(home).close()
    opened = registry(home, wait=0.3)
    with child(lambda pipe: hold(home, pipe)) as (pid, pipe):
        os.read(pipe, 1)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        with pytest.raises(RegistryBusy) as busy, opened.write("test"):
            pass
        assert busy.value.facts()["holder_pid"] == pid
        assert busy.value.stopped
        assert f"process {pid}, which is stopped" in busy.value.message
        assert f"kill -CONT {pid}" in busy.value.hint
        assert busy.value.exit_code == 5
        with opened.read() as tx:  # readers wait for nobody
            assert tx.runs.live() == []
        os.kill(pid, signal.SIGKILL)
        with opened.write("test") as tx:
            assert tx.runs.get("builder-1") is None
    opened.close()


def test_a_writer_that_only_takes_long_is_named_and_not_called_stopped(home: Path) -> None:
    with_task(home).close()
    opened = registry(home, wait=0.1)
    with child(lambda pipe: hold(home, pipe)) as (pid, pipe):
        os.read(pipe, 1)
        with pytest.raises(RegistryBusy, match=f"process {pid} for") as busy, opened.write("test"):
            pass
        assert not busy.value.stopped
    opened.close()


def test_a_writer_of_another_program_is_named_too(home: Path) -> None:
    """Somebody writes with the sqlite3 shell, past our queue."""
    with_task(home).close()

    def shell(pipe: int) -> None:
        with closing(sqlite3.connect(Home(home).registry, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            os.write(pipe, b".")
            signal.pause()

    opened = registry(home, wait=0.2)
    with child(shell) as (pid, pipe):
        os.read(pipe, 1)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        with pytest.raises(RegistryBusy) as busy, opened.write("test"):
            pass
        assert "database is locked" not in str(busy.value.facts())
        assert (busy.value.holder_pid, busy.value.stopped) == (pid, True)
    with opened.write("test") as tx:
        tx.events.add("k", now=1.0)
    opened.close()


def test_those_who_gave_up_do_not_take_the_lock_later(home: Path) -> None:
    lock = WritersLock(Home(home).registry_lock, wait=0.05)
    patient = WritersLock(Home(home).registry_lock, wait=10)
    with patient.hold("test"):
        for _ in range(3):
            with pytest.raises(RegistryBusy), lock.hold("too late"):
                pass
    with patient.hold("test"):
        pass
    until(
        lambda: all(each.name != "writers' lock" for each in threading.enumerate()),
        what="the threads of those who gave up are over",
    )


def test_a_queue_that_moves_is_waited_in_longer_than_for_one_holder(home: Path) -> None:
    path, let_go = Home(home).registry_lock, threading.Event()

    def hold_in_turn(name: str, until_: threading.Event, then: threading.Event) -> None:
        with WritersLock(path, wait=60).hold(name):
            started.set()
            until_.wait(30)
        then.set()

    started, half, over = threading.Event(), threading.Event(), threading.Event()
    first = threading.Thread(target=hold_in_turn, args=("one", let_go, half))
    first.start()
    assert started.wait(30)
    second = threading.Thread(target=hold_in_turn, args=("two", over, threading.Event()))
    second.start()
    until(lambda: queued(path) == 1, what="the second is in the queue")
    outcome: list[object] = []

    def last() -> None:
        try:
            with WritersLock(path, wait=2.0).hold("three"):
                outcome.append("held")
        except RegistryBusy as error:
            outcome.append(error)

    third = threading.Thread(target=last)
    third.start()
    until(lambda: queued(path) == 2, what="the third is behind it")
    let_go.set()
    assert half.wait(30)
    third.join(2.3)
    assert outcome == [], "its second turn has begun, for the holder is another"
    over.set()
    for thread in (first, second, third):
        thread.join(30)
    assert outcome == ["held"]


def queued(path: Path) -> int:
    """Return how many wait for the lock, by the kernel's table."""
    mark = f":{path.stat().st_ino} "
    return sum("->" in line and mark in line for line in Path("/proc/locks").read_text().splitlines())


def test_a_place_in_the_queue_is_handed_over(home: Path) -> None:
    lock = WritersLock(Home(home).registry_lock, wait=10)
    done: list[int] = []

    def work(me: int) -> None:
        with lock.hold("test"):
            done.append(me)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    with lock.hold("test"):
        for thread in threads:
            thread.start()
        assert done == []
    for thread in threads:
        thread.join(10)
    assert sorted(done) == list(range(8))


def test_a_child_forked_during_a_transaction_does_not_keep_the_lock(home: Path) -> None:
    opened = with_task(home, wait=2)
    with opened.write("test"):
        pid = os.fork()
        if pid == 0:
            signal.pause()
    try:
        with opened.write("test") as tx:
            tx.events.add("k", now=1.0)
    finally:
        end(pid)
    opened.close()


def test_a_forked_child_opens_its_own_connection(home: Path) -> None:
    opened = with_task(home)
    with opened.read():
        pass
    before = opened.opens

    def use(pipe: int) -> None:
        with opened.write("child") as tx:
            tx.events.add("child", now=1.0)
        os.write(pipe, bytes([opened.opens - before]))
        opened.close()

    with child(use) as (_, pipe):
        assert os.read(pipe, 1) == b"\x01"
        with opened.write("parent") as tx:  # its own connection and locks are as they were
            tx.events.add("parent", now=1.0)
            assert [event.kind for event in tx.events.since(0, limit=9)] == ["child", "parent"]
        assert opened.opens == before
    opened.close()


def test_threads_have_connections_of_their_own_and_leave_none(home: Path) -> None:
    opened = with_task(home)

    def work() -> None:
        with opened.write("thread") as tx:
            tx.events.add("k", now=1.0)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    for _ in range(3):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with opened.read() as tx:
        assert tx.events.last() == 24
    most = descriptors()
    for _ in range(50):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert descriptors() <= most
    opened.close()
    assert descriptors() < most


def test_no_connection_is_closed_under_a_thread_that_has_just_begun(home: Path) -> None:
    """A thread may get the number of one that is over, whose connection others are about to close. It has a
    process of its own, for it would be SQLite that falls."""
    with_task(home).close()

    def crowd(_: int) -> list[str]:
        opened, failed = registry(home), list[str]()

        def work(index: int) -> None:
            try:
                with opened.read() if index % 3 else opened.write("thread") as tx:
                    tx.events.last()
            except Exception as error:  # noqa: BLE001  # the test is told
                failed.append(repr(error))

        for _ in range(40):
            threads = [threading.Thread(target=work, args=(index,)) for index in range(24)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return failed

    assert together(1, crowd) == [[]]


def test_it_can_be_used_again_after_it_was_closed(home: Path) -> None:
    opened = with_task(home)
    opened.close()
    opened.close()
    with opened.write("test") as tx:
        tx.events.add("k", now=1.0)
    assert opened.version() != 0
    opened.close()


def test_a_lock_file_that_is_a_link_is_refused(home: Path) -> None:
    (home / "elsewhere").write_text("mine")
    Home(home).registry_lock.symlink_to(home / "elsewhere")
    with pytest.raises(Infrastructure, match="cannot be opened"), registry(home).write("test"):
        pass
    assert (home / "elsewhere").read_text() == "mine"


def test_a_holder_that_left_no_note_is_found_in_the_kernels_table(home: Path) -> None:
    opened = with_task(home, wait=0.1)
    Home(home).registry_lock.write_bytes(b"")
    descriptor = os.open(Home(home).registry_lock, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(RegistryBusy) as busy, opened.write("test"):
        pass
    os.close(descriptor)
    assert busy.value.holder_pid == os.getpid()
    opened.close()
