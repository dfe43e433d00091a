"""The threads in which blocking services run, so that the event loop never waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

Result = TypeVar("Result")

QUICK: Final = 8
"""Threads for what only reads and writes the registry."""
SLOW: Final = 24
"""Threads for what waits for processes, so that twenty deploys and stops do not hold up a status."""


class Crew:
    """Two bounded pools. What waits for long does it on the loop, in short visits to a pool."""

    def __init__(self) -> None:
        self._quick: Final = ThreadPoolExecutor(QUICK, thread_name_prefix="quick")
        self._slow: Final = ThreadPoolExecutor(SLOW, thread_name_prefix="slow")

    async def do(self, work: Callable[[], Result], *, slow: bool = False) -> Result:
        """Run `work` in a thread and return its result.

        If the caller is cancelled, the work still runs to its end: a deploy is not torn in two.
        """
        pool = self._slow if slow else self._quick
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def dismiss(self) -> None:
        """Take no more work; what is running is left to itself."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
