"""Headcount: deploys, tracks and supervises fleets of headless coding agents. The count is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.domain.errors import (
        HeadcountError,
        Infrastructure,
        InvalidInput,
        NotAllowed,
        NotFound,
        PlacementFailed,
        Refused,
    )

__version__ = "0.1.0"
__all__ = [
    "Headcount",
    "HeadcountError",
    "Infrastructure",
    "InvalidInput",
    "NotAllowed",
    "NotFound",
    "PlacementFailed",
    "Refused",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import the API on first use: the runner, the bridge and the hooks start without it."""
    if name == "Headcount":
        from headcount.api import Headcount

        return Headcount
    if name in __all__:
        from headcount.domain import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'headcount' has no attribute {name!r}")
