"""How many examples a property is tried with: enough to find a fault, few enough for a slow machine."""

from hypothesis import settings

few = settings(deadline=None, max_examples=50)
"""No deadline: a machine that others use as well is slow now and then."""
