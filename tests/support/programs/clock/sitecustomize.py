"""For Python under libfaketime 0.9.10, whose clock_nanosleep fails if the monotonic clock is left alone."""

import select
import time
from typing import SupportsIndex


def sleep(seconds: float | SupportsIndex, /) -> None:
    select.select((), (), (), float(seconds))


time.sleep = sleep
