"""Names that the edge and a command share."""

from typing import Final

COMPLETE_VARIABLE: Final = "_HEADCOUNT_COMPLETE"
"""Set by a shell's completion script; click's convention."""
