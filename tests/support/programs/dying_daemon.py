"""A daemon that is killed after its first commit for a purpose, before anybody is answered.

dying_daemon.py PURPOSE --home HOME
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from headcount.daemon.program import main
from headcount.store.registry import Registry, Tx

PURPOSE = sys.argv[1]
write = Registry.write


@contextmanager
def write_and_die(self: Registry, purpose: str) -> Iterator[Tx]:
    with write(self, purpose) as tx:
        yield tx
    if purpose == PURPOSE:
        os.kill(os.getpid(), signal.SIGKILL)


Registry.write = write_and_die  # type: ignore[method-assign]
sys.exit(main(sys.argv[2:]))
