"""Which harnesses there are, what each can do, and whether its program is here and would work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from headcount.domain.environment import select
from headcount.domain.errors import HeadcountError, NotFound, PlacementFailed
from headcount.domain.model import RunKey
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses.base import Harness, Probe, Session, Spec
from headcount.services import given
from headcount.services.answers import Check, HarnessFacts, HarnessList, HarnessWhole
from headcount.services.context import Context, Offered

READY: Final = "ready"
MISSING: Final = "missing"
TOO_OLD: Final = "too_old"
NOT_READY: Final = "not_ready"
BROKEN: Final = "broken"
AT_ONCE: Final = 4
"""Programs that are asked for their versions side by side: each is a whole Node."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of one program."""

    state: str = READY
    path: str | None = None
    version: str | None = None
    logged_in: bool | None = None
    why: str = ""
    hint: str = ""


def page(context: Context) -> HarnessList:
    """Return all harnesses. A program whose package does not say its version is asked for it."""
    offered = context.offered()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda each: _found(context, each, asks=True), offered))
    return HarnessList(tuple(_facts(each, at) for each, at in zip(offered, found, strict=True)))


def whole(context: Context, name: str) -> HarnessWhole:
    """Return all that is known of one harness.

    Raises:
        NotFound: there is none of that name.
    """
    given.text("name", name)
    offered = {each.name: each for each in context.offered()}
    if name not in offered:
        raise NotFound(f"there is no harness {name[:64]!r}", hint=f"known: {', '.join(sorted(offered))}")
    one = offered[name]
    facts, harness = _facts(one, _found(context, one, asks=True)), one.harness
    probe = harness.probe if harness else None
    return HarnessWhole(
        **{each: getattr(facts, each) for each in HarnessFacts.__slots__},
        oldest=".".join(map(str, probe.oldest)) or None if probe else None,
        install=probe.install if probe else "",
        login=probe.login if probe else "",
        login_by=(*probe.login_env, *(f"~/{each}" for each in probe.login_files)) if probe else (),
        needs_prompt=harness.needs_prompt if harness else False,
        needs_command=harness.needs_command if harness else False,
        lacks=tuple(each.value for each in Ability if harness and each not in harness.abilities),
        variables=_variables(harness) if harness else (),
    )


def _variables(harness: Harness) -> tuple[str, ...]:
    return (*harness.env_names, *(f"{each}*" for each in harness.env_prefixes))


def _facts(offered: Offered, found: _Found) -> HarnessFacts:
    harness = offered.harness
    probe = harness.probe if harness else None
    return HarnessFacts(
        name=offered.name,
        state=found.state,
        program=probe.program if probe else None,
        version=found.version,
        path=found.path,
        logged_in=found.logged_in,
        why=found.why,
        hint=found.hint,
        package=offered.package or None,
        abilities=tuple(each.value for each in Ability if harness and each in harness.abilities),
        permissions=tuple(each.value for each in Permissions if harness and each in harness.permissions),
        efforts=tuple(each.value for each in Effort if harness and each in harness.efforts),
    )


def _found(context: Context, offered: Offered, *, asks: bool) -> _Found:
    if offered.harness is None:
        return _Found(BROKEN, why=offered.why, hint=f"mend or take away the package {offered.package}")
    probe = offered.harness.probe
    if probe is None:
        return _Found(why="it is whatever program you name" if offered.harness.needs_command else "")
    env = _env(context, offered.harness)
    try:
        path = context.programs.path(probe, env=env, cwd=_cwd(context))
    except PlacementFailed as error:
        return _Found(MISSING, why=error.message, hint=error.hint)
    return _installed(context, offered.harness, probe, path=path, env=env, asks=asks)


def _installed(
    context: Context, harness: Harness, probe: Probe, *, path: str, env: Mapping[str, str], asks: bool
) -> _Found:
    version = context.programs.version(path, probe, env=env, asks=asks)
    said = context.programs.logged_in(probe, env=env)
    if version is not None and context.programs.is_old(version, probe):
        oldest = ".".join(map(str, probe.oldest))
        return _Found(TOO_OLD, path, version, said, f"{oldest} or later is needed", probe.install)
    refusal = _refusal(context, harness, env)
    if refusal is not None:
        return _Found(NOT_READY, path, version, said, refusal.message, refusal.hint)
    return _Found(READY, path, version, said or None)  # it knows of more ways to log in than a probe can name


def _refusal(context: Context, harness: Harness, env: Mapping[str, str]) -> HeadcountError | None:
    """Return why a deploy would be refused at this moment: what the harness says where it makes a command,
    which starts nothing."""
    spec = Spec(
        key=RunKey("probe-0000000000000000", 1),
        task_id="task-0000000000000000",
        prompt="probe",
        command=(),
        options=_least(harness),
        session=Session("00000000-0000-4000-8000-000000000000"),
        cwd=_cwd(context),
        run_path=str(context.home.runs / "probe"),
        headcount=context.headcount,
        env=env,
    )
    try:
        harness.command(spec)
    except HeadcountError as error:
        return error
    except OSError as error:
        return PlacementFailed(f"it cannot be looked at: {error}")
    return None


def _least(harness: Harness) -> Options:
    """Return the options with which it asks for as little as it can be held to."""
    held = [each for each in (Permissions.EDIT, *Permissions) if each in harness.permissions]
    return Options(permissions=held[0]) if held else Options()


def _env(context: Context, harness: Harness) -> dict[str, str]:
    """Return the variables that an agent of this harness would get of the caller's."""
    kept, _ = select(
        context.caller.env,
        names=(*harness.env_names, *context.settings.env),
        prefixes=harness.env_prefixes,
    )
    return {**kept, "PATH": kept.get("PATH", os.defpath)}


def _cwd(context: Context) -> str:
    return context.caller.cwd or "/"


# ---------------------------------------------------------------- for doctor


def checks(context: Context) -> list[Check]:
    """Return one check for all, and one for each that is here and would not work. None starts a program, and
    that a program is not here is no fault."""
    offered = context.offered()
    found = {each.name: _found(context, each, asks=False) for each in offered}
    ready = [_named(name, each) for name, each in found.items() if each.state == READY]
    missing = [name for name, each in found.items() if each.state == MISSING]
    detail = f"ready: {', '.join(ready) or 'none'}"
    detail += f"; not installed: {', '.join(missing)}" if missing else ""
    bad = [
        Check("harness", False if each.state == BROKEN else None, f"{name}: {each.why}", each.hint)
        for name, each in found.items()
        if each.state in (TOO_OLD, NOT_READY, BROKEN)
    ]
    return [Check("harnesses", True, detail), *bad]


def _named(name: str, found: _Found) -> str:
    return f"{name} {found.version}" if found.version else name
