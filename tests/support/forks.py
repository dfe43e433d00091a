"""Forked processes that do the same thing at the same moment, and one that can be killed."""

from __future__ import annotations

import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

PATIENCE = 60.0
"""Seconds for the whole crowd; two busy cores and a hundred processes need a few."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A member raised `error`; `text` is the traceback."""

    error: BaseException
    text: str


def together(number: int, work: Callable[[int], Any]) -> list[Any]:
    """Fork `number` processes, let them go at once, and return what `work(index)` returned in each.

    What a member raises comes back as `Failed`. The test fails if one is killed or takes too long.
    """
    gate_read, gate_write = os.pipe()
    members = [_member(index, work, gate_read, gate_write) for index in range(number)]
    os.close(gate_read)
    os.close(gate_write)  # all read the end of the pipe at the same moment
    try:
        return [_answer(pipe) for _, pipe in members]
    finally:
        for pid, pipe in members:
            os.close(pipe)
            end(pid)


@contextmanager
def child(work: Callable[[int], None]) -> Iterator[tuple[int, int]]:
    """Fork one process that runs `work(pipe)` with the writing end of a pipe; yield its pid and the
    reading end. It is killed at the end, if it is still there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            work(write)
        except BaseException:  # noqa: BLE001  # the test sees the end of the pipe; a person sees this
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    try:
        yield pid, read
    finally:
        os.close(read)
        end(pid)


def end(pid: int) -> None:
    """Kill a child that is not over yet, and wait for it."""
    if os.waitpid(pid, os.WNOHANG) == (0, 0):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _member(index: int, work: Callable[[int], Any], gate_read: int, gate_write: int) -> tuple[int, int]:
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(answer_write)
        return pid, answer_read
    try:
        os.close(gate_write)
        os.read(gate_read, 1)
        with os.fdopen(answer_write, "wb") as file:
            file.write(_pickled(work, index))
    finally:
        os._exit(0)


def _pickled(work: Callable[[int], Any], index: int) -> bytes:
    try:
        return pickle.dumps(work(index))
    except BaseException as error:  # noqa: BLE001  # it is handed to the test
        failed = Failed(RuntimeError(repr(error)), traceback.format_exc())
        try:
            return pickle.dumps(Failed(error, failed.text))
        except Exception:  # noqa: BLE001  # an error with arguments that cannot be pickled
            return pickle.dumps(failed)


def _answer(pipe: int) -> Any:
    pieces = []
    while select.select([pipe], [], [], PATIENCE)[0]:
        piece = os.read(pipe, 1 << 16)
        if not piece:
            break
        pieces.append(piece)
    if not pieces:
        raise AssertionError("a member of the crowd was killed, or did not answer in time")
    return pickle.loads(b"".join(pieces))
