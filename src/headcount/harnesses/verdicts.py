"""What an exit record alone says of a run."""

from __future__ import annotations

import signal

from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.harnesses.base import Verdict

SHELL_SIGNAL_BASE = 128
"""A program that was ended by signal n and cleans up exits, by a shell's custom, with 128 + n."""


def judge_exit(record: ExitRecord) -> Verdict:
    """Judge by the exit record only. Asked to stop means stopped, whatever the code:
    some programs exit 0 when they are told to end."""
    if record.error is not None:
        return Verdict(Outcome.START_FAILED, record.error)
    if record.stopped:
        return Verdict(Outcome.STOPPED, f"stopped as asked ({describe_exit(record)})")
    outcome = Outcome.COMPLETED if record.code == 0 else Outcome.FAILED
    return Verdict(outcome, describe_exit(record))


def describe_exit(record: ExitRecord) -> str:
    """Return "exit code 3" or "killed by SIGKILL"."""
    if record.signal is not None:
        return f"killed by {signal_name(record.signal)}"
    if record.code is not None and record.code > SHELL_SIGNAL_BASE:
        name = signal_name(record.code - SHELL_SIGNAL_BASE)
        if name.startswith("SIG"):
            return f"exit code {record.code} (as after {name})"
    return f"exit code {record.code}"


def signal_name(number: int) -> str:
    """Return "SIGTERM" for 15, and "signal 99" for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
