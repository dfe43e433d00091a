"""What a call changes is changed once, however often the call is sent.

The bridge sends a call again when the daemon died before it answered, with the key of the first attempt. What
that attempt wrote stands under the caller and the key since the transaction that wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from headcount.domain.errors import Refused
from headcount.services import rights
from headcount.services.context import Context
from headcount.store.registry import Tx


def written(
    context: Context, tx: Tx, asked: object, write: Callable[[], Mapping[str, object]]
) -> Mapping[str, object]:
    """Return what `write` wrote, now or in an earlier attempt at the call that we are in.

    `asked` is all that the caller wants: the key of a call stands for that alone.

    Raises:
        Refused: the key was used for something else.
    """
    if context.call is None:
        return write()
    caller = context.caller.agent_id or rights.PERSON
    fingerprint = hashlib.sha256(repr(asked).encode()).hexdigest()
    earlier = tx.calls.get(caller, context.call)
    if earlier is None:
        wrote = write()
        tx.calls.put(caller, context.call, request_hash=fingerprint, wrote=wrote, now=context.clock.now())
        return wrote
    request_hash, wrote = earlier
    if request_hash != fingerprint:
        raise Refused(
            f"the key {context.call!r} was used for another call",
            code="idempotency_key_reused",
            limit="idempotency_key",
            hint="use a new key for a new call",
        )
    return wrote
