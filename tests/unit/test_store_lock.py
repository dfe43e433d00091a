"""What is read from the kernel's table of locks."""

import os

import pytest

from headcount.store import lock


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        ("1: FLOCK  ADVISORY  WRITE 8207 fe:00:2146368 0 EOF", 8207),
        ("1: POSIX  ADVISORY  WRITE 8207 fe:00:2146368 120 120", 8207),
        ("1: POSIX  ADVISORY  READ  8207 fe:00:2146368 0 EOF", None),  # shares it
        ("1: -> FLOCK  ADVISORY  WRITE 8207 fe:00:2146368 0 EOF", None),  # waits for it
        ("1: FLOCK  ADVISORY  WRITE 8207 fe:00:12146368 0 EOF", None),  # of another file
        ("1: FLOCK  ADVISORY  WRITE 0 fe:00:2146368 0 EOF", None),  # of another pid namespace
        ("1: OFDLCK ADVISORY  WRITE -1 fe:00:2146368 0 EOF", None),
        ("", None),
    ],
)
def test_the_holder_is_read_from_a_line(line: str, pid: int | None) -> None:
    assert lock._holder_in(line, 2146368, None) == pid


@pytest.mark.parametrize(("byte", "pid"), [(119, None), (120, 7), (121, 7), (122, None)])
def test_only_a_lock_of_the_byte_counts(byte: int, pid: int | None) -> None:
    assert lock._holder_in("1: POSIX  ADVISORY  WRITE 7 fe:00:5 120 121", 5, byte) == pid


def test_a_running_process_is_not_stopped_and_an_absent_one_neither() -> None:
    assert not lock.is_stopped(os.getpid())
    assert not lock.is_stopped(2**22 + 1)


def test_a_holder_that_is_not_known_is_still_told_of() -> None:
    error = lock.busy(lock.Holder(None, stopped=False), 10.0)
    assert "another process" in error.message
    assert error.facts()["holder_pid"] is None
