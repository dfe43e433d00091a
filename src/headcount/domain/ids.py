"""Names: readable, sortable by time, safe as file and tmux names.

An id is `<prefix>-<10 characters of time><6 of chance>`, in lower-case Crockford base32: the time is
milliseconds since the epoch (48 bits, good to the year 10889), the chance 30 bits. Uniqueness is a
constraint of the registry, not a hope.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from headcount.domain.errors import InvalidInput

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
TIME_CHARS: Final = 10
CHANCE_CHARS: Final = 6
CHANCE_BITS: Final = CHANCE_CHARS * 5
ROLE_MAX: Final = 32
"""A role is part of file, socket and session names; 32 + 1 + 16 stays far below each of their limits."""

_ROLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}-[0-9a-hjkmnp-tv-z]{16}", re.ASCII)
TASK_PREFIX: Final = "task"


def base32(number: int, width: int) -> str:
    """Return `number` in exactly `width` characters of the alphabet."""
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix: str, *, now: float, chance: int) -> str:
    """Return an id for `prefix` (a valid role, or "task"); `now` in epoch seconds, `chance` any 30 bits."""
    suffix = base32(int(now * 1000), TIME_CHARS) + base32(chance % (1 << CHANCE_BITS), CHANCE_CHARS)
    return f"{prefix}-{suffix}"


def session_id(agent_id: str, n: int) -> str:
    """Return the name of the conversation that begins with this run: a UUID, always the same one."""
    digits = sha256(f"{agent_id}.{n}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def check_role(role: object) -> str:
    """Return `role` if it is a valid role.

    Raises:
        InvalidInput: it is not 1-32 of A-Z a-z 0-9 _ - beginning with a letter.
    """
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise InvalidInput(
            f"role {str(role)[:64]!r} is not valid",
            hint=f"use 1 to {ROLE_MAX} of A-Z a-z 0-9 _ -, beginning with a letter, such as 'builder'",
        )
    return role


def check_id(kind: str, value: object) -> str:
    """Return `value` if it has the form of an id; `kind` ("task" or "agent") is for the message.

    Raises:
        InvalidInput: it cannot be an id, so it is not looked up.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidInput(
            f"{str(value)[:80]!r} is not a valid {kind} id",
            hint=f"one looks like '{'task' if kind == 'task' else 'builder'}-01jx5e2k9pab12cd'",
        )
    return value
