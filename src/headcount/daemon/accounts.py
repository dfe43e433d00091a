"""Makes the accounts of runs that are over.

In a thread of its own, which learns from the registry that there is something to do: so it does not matter
who recorded an end, and what was left undone by a daemon that was killed is done by the next. Long output is
read by a process of its own (`python -m headcount.daemon.accounts HOME AGENT N`): parsing it for seconds
would keep status calls waiting for the interpreter's lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from typing import Final

import structlog

from headcount.domain.errors import HeadcountError
from headcount.domain.model import RunKey
from headcount.services import account
from headcount.services.agents import READ_AT_ONCE
from headcount.services.context import Context

EVERY: Final = 1.0
"""Seconds between two looks at whether the registry has changed."""
BATCH: Final = 50
TRIES: Final = 3
WORKER_TIME: Final = 600.0
"""Seconds that the longest output may take: a hundred times of what it does."""


class Accounts:
    """The accounts that are still to be made."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self._log: Final = structlog.get_logger("headcount.daemon")
        self._over: Final = threading.Event()
        self._failed: Final[Counter[RunKey]] = Counter()
        self._worker: subprocess.Popen[bytes] | None = None
        self._version: int | None = None  # of the registry when all was done
        self.failures = 0

    def end(self) -> None:
        self._over.set()
        if (worker := self._worker) is not None:
            worker.kill()

    def run(self) -> None:
        """Make what there is to make, until `end`."""
        while not self._over.wait(EVERY):
            try:
                self._make_all()
            except Exception:  # noqa: BLE001  the edge of the loop: it survives, logs and counts
                self.failures += 1
                self._log.exception("accounts_failed")

    def _make_all(self) -> None:
        version = self._context.registry.version()
        if version == self._version:
            return
        while (due := self._due()) and not self._over.is_set():
            for key in due:
                self._make(key)
        self._version = version  # of before the look: what ends meanwhile is seen next time

    def _due(self) -> list[RunKey]:
        given_up = {key for key, times in self._failed.items() if times >= TRIES}
        with self._context.registry.read() as tx:
            found = tx.runs.unaccounted(BATCH + len(given_up))
        return [key for key in found if key not in given_up]

    def _make(self, key: RunKey) -> None:
        try:
            if self._is_long(key):
                self._in_a_process(key)
            else:
                account.make(self._context, key)
        except HeadcountError as error:
            self._fails(key, error.message)
        except Exception:
            self._fails(key, "see the traceback")
            raise

    def _is_long(self, key: RunKey) -> bool:
        with self._context.registry.read() as tx:
            run = tx.runs.get(key.agent_id, key.n)
        if run is None:
            return False
        return self._context.placement.read_output(run.path, offset=0, limit=1).end > READ_AT_ONCE

    def _in_a_process(self, key: RunKey) -> None:
        home = os.fspath(self._context.home.root)
        self._worker = subprocess.Popen(
            (sys.executable, "-P", "-m", "headcount.daemon.accounts", home, key.agent_id, str(key.n)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            code = self._worker.wait(WORKER_TIME)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            code = self._worker.wait()
        self._worker = None
        if code != 0:
            self._fails(key, f"the process that read it ended with {code}")

    def _fails(self, key: RunKey, why: str) -> None:
        self._failed[key] += 1
        self.failures += 1
        self._log.warning("account_failed", run=str(key), reason=why, times=self._failed[key])


def main(argv: list[str]) -> int:
    """Make one account, behind all that a person waits for."""
    from headcount import bootstrap

    home, agent_id, n = argv
    os.nice(5)
    context = bootstrap.context(home, {"autostart": False})
    try:
        account.make(context, RunKey(agent_id, int(n)))
    except HeadcountError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    finally:
        context.registry.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
