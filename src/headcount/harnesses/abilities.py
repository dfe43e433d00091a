"""The one place where what is asked of an agent program is held against what it can do."""

from __future__ import annotations

from headcount.domain.errors import InvalidInput
from headcount.domain.options import Ability, Options, Permissions
from headcount.harnesses.base import Harness, Launch, Spec


def check_options(harness: Harness, options: Options) -> None:
    """Refuse what the program cannot do: an option is never silently dropped.

    Raises:
        InvalidInput: names the option and the harness, and says what it can do instead.
    """
    for ability, option in options.needs():
        if ability not in harness.abilities:
            can = ", ".join(sorted(harness.abilities)) or "none"
            raise InvalidInput(
                f"harness {harness.name} has no {option}", hint=f"leave it out; options it knows: {can}"
            )
    if options.effort is not None and options.effort not in harness.efforts:
        raise InvalidInput(
            f"harness {harness.name} knows no effort {options.effort}",
            hint=f"one of {', '.join(harness.efforts)}",
        )
    _check_permissions(harness, options.permissions)


def names_session(harness: Harness, options: Options) -> bool:
    """Say whether a new conversation is called as we say: not where the protocol of a driver names it."""
    by_protocol = options.steer and harness.name in ("copilot", "gemini", "qwen")
    return Ability.PRESET_SESSION in harness.abilities and not by_protocol


def _check_permissions(harness: Harness, asked: Permissions) -> None:
    if asked in harness.permissions or (not harness.permissions and asked is Permissions.EDIT):
        return
    known = ", ".join(each for each in Permissions if each in harness.permissions)
    raise InvalidInput(
        f"harness {harness.name} cannot hold its program to permissions {asked}",
        hint=f"one of {known}" if known else "leave them out: the program alone decides what it does",
    )


class NotInteractive:
    """A harness whose program has no form of its own for a person."""

    name: str

    def interactive(self, spec: Spec) -> Launch:
        raise InvalidInput(
            f"harness {self.name} has no interactive form",
            hint="see 'headcount attach' and 'headcount logs -f'",
        )
