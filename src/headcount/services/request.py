"""What a deploy is asked for, and the checks that need neither the registry nor the machine's state."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from headcount.domain.errors import InvalidInput
from headcount.domain.ids import check_id, check_role
from headcount.domain.model import Form, Why
from headcount.domain.options import Ability, Options
from headcount.domain.policy import Act, parse_policy
from headcount.harnesses.abilities import check_options
from headcount.harnesses.base import Harness
from headcount.services import given
from headcount.services.context import Context

RESUMES_MAX: Final = 100
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks for, not yet checked."""

    task_id: str
    role: str
    prompt: str | None
    harness: str
    command: tuple[str, ...]
    parent: str | None
    options: Options
    cwd: str | None
    env: tuple[str, ...]
    allow_duplicate_role: bool
    allow_same_work: bool
    idempotency_key: str | None
    resume_on_crash: int = 0
    isolation: str | None = None  # None: as the task has it
    policy: Mapping[str, Any] = field(default_factory=dict)  # domain.policy

    def fingerprint(self) -> str:
        """Return what tells a repeated request from a different one with the same key."""
        return hashlib.sha256(repr(replace(self, env=())).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Again:
    """What a caller asks for who wants an agent to go on. `prompt` None: with what waits for it."""

    agent_id: str
    prompt: str | None
    env: tuple[str, ...] = ()
    idempotency_key: str | None = None
    why: Why = Why.RESUME
    form: Form = Form.HEADLESS
    restart: int | None = None  # the number of the flag for which the watchdog does it

    def fingerprint(self) -> str:
        """Return what tells a repeated request from a different one with the same key."""
        return hashlib.sha256(repr(("again", self.agent_id, self.prompt)).encode()).hexdigest()


def validate(context: Context, request: Request) -> Harness:
    """Check all that needs neither the registry nor the machine."""
    _check_types(request)
    check_id("task", request.task_id)
    check_role(request.role)
    if request.parent is not None:
        check_id("agent", request.parent)
    harness = context.known_harness(request.harness)
    check_prompt(request.prompt, harness, context.settings.limits.prompt_max_bytes)
    check_options(harness, request.options)
    if request.options.result_schema is not None:
        from headcount.services import schema  # only here: its library takes 60 ms to import

        schema.check(request.options.result_schema)
    harness.check(prompt=request.prompt or "", command=request.command, options=request.options)
    if "\0" in (request.cwd or ""):
        raise InvalidInput("a NUL character cannot be passed on", hint="remove it")
    check_env(request.env)
    _check_resume(request, harness)
    _check_policy(request, harness)
    return harness


def _check_resume(request: Request, harness: Harness) -> None:
    given.whole("resume_on_crash", request.resume_on_crash, most=RESUMES_MAX)
    if request.resume_on_crash and Ability.RESUME not in harness.abilities:
        raise InvalidInput(
            f"harness {harness.name} cannot go on with a conversation", hint="leave resume_on_crash out"
        )


def _check_policy(request: Request, harness: Harness) -> None:
    parse_policy(request.policy, roles=False)
    if Act.RESTART in request.policy.values() and Ability.RESUME not in harness.abilities:
        raise InvalidInput(
            f"harness {harness.name} cannot go on with a conversation, so it cannot be restarted",
            hint="let the policy stop it instead",
        )


def _check_types(request: Request) -> None:
    for name in ("task_id", "role", "harness"):
        given.text(name, getattr(request, name))
    for name in ("allow_duplicate_role", "allow_same_work"):
        given.flag(name, getattr(request, name))
    for name in ("prompt", "parent", "cwd"):
        given.maybe_text(name, getattr(request, name))
    given.maybe_text("idempotency_key", request.idempotency_key, most=given.LABEL_MAX)


def check_env(names: Iterable[str]) -> None:
    """Refuse what is not the name of a variable, above all `NAME=value`: a value would stand in the argv
    of whoever gave it, for all to see, and be dropped."""
    for name in names:
        if not _NAME.fullmatch(name):
            what = name.partition("=")[0][:64]
            raise InvalidInput(
                f"{what!r} is not given as the name of a variable",
                hint="set the variable, and give its name alone: the agent gets its value",
            )


def check_prompt(prompt: str | None, harness: Harness, most: int) -> None:
    """Refuse a prompt that is blank or too long, or none where one is needed."""
    if prompt is None:
        if harness.needs_prompt:
            raise InvalidInput(f"harness {harness.name} needs a prompt", hint="say what the agent is to do")
        return
    if not prompt.strip():
        raise InvalidInput("the prompt is blank", hint="say what the agent is to do, or leave the prompt out")
    size = len(prompt.encode("utf-8", "surrogateescape"))
    if size > most:
        raise InvalidInput(
            f"the prompt has {size} bytes, the limit is {most}",
            hint="put the material into a file and name it in the prompt (setting prompt_max_bytes)",
        )


def check_cwd(here: str, cwd: str | None) -> None:
    """Check the asked directory, which is relative to the caller's, never to the daemon's."""
    if cwd is not None and not os.path.isdir(os.path.join(here, cwd)):
        raise InvalidInput(f"{cwd} is not a directory", hint="name an existing directory")
