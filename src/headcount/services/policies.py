"""What a run is held to: the layers that were given for it, and what depends on its harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from headcount.domain.model import Run
from headcount.domain.policy import Policy, policy_of
from headcount.services.context import Context
from headcount.store.registry import Tx


def policy(context: Context, run: Run, layers: Sequence[Mapping[str, Any]]) -> Policy:
    """Return what a run is held to."""
    found = policy_of(run.role, context.settings.policy, *layers)
    return found.for_harness(streams=context.harness(run.harness).renders)


def shown(context: Context, tx: Tx, run: Run) -> dict[str, object]:
    """Return what a run is held to, as doors show it."""
    return asdict(policy(context, run, tx.flags.policies(run.key.agent_id)))
