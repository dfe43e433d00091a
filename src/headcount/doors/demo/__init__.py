"""`headcount demo`: a whole job to watch, in a home of its own. It needs no model and no key."""

from headcount.doors.demo.play import main

__all__ = ["main"]
