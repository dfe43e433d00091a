"""`headcount audit`: the guarantees, proved by behaviour in a scratch home, never by reading code."""

from headcount.doors.audit.checks import CHECKS
from headcount.doors.audit.table import main

__all__ = ["CHECKS", "main"]
