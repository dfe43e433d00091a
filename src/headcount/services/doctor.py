"""Examine everything that Headcount stands on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headcount.domain.environment import select
from headcount.domain.errors import HeadcountError
from headcount.domain.prompt import PARTS
from headcount.services import account, collect, headcount, heartbeat, notify, probes
from headcount.services.answers import Check, Diagnosis, Health
from headcount.services.context import Context

ROWLESS_NAMED: Final = 5
FLAGS_NAMED: Final = 5


def examine(context: Context) -> Diagnosis:
    """Return the headcount and the checks; never raises for what it examines."""
    health, failed = _health(context)
    checks = [
        *(_safely(check, context) for check in (_registry, _home, _disk, _memory)),
        _views(context, health),
        *(_safely(check, context) for check in (_daemon, _halt, _limits, _prompts, _prices)),
        *(_safely(check, context) for check in (_flags, _hooks, _rowless)),
        *probes.checks(context),
    ]
    if failed is not None:
        checks.append(failed)
    variables = _variables(context)
    problems = _no_health() if health is None else health
    return Diagnosis(
        healthy=all(check.ok is not False for check in checks) and health is not None and health.healthy,
        ghosts=problems.ghosts + problems.earlier_boot,
        strays=problems.strays + problems.rowless,
        unfinished=problems.unfinished,
        views_missing=problems.views_missing,
        sessions=problems.sessions,
        checks=(_count(health), *checks, _versions()),
        home=str(context.home.root),
        tmux_socket=str(context.home.tmux_socket),
        daemon_socket=str(context.home.daemon_socket),
        env_kept=variables.kept,
        env_dropped=variables.dropped,
        env_of_harness=variables.of_harness,
    )


@dataclass(frozen=True, slots=True)
class Variables:
    """The names of the caller's variables, by which agents of his get them without being asked to."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    of_harness: dict[str, tuple[str, ...]]


def _variables(context: Context) -> Variables:
    caller, named = context.caller, context.settings.env
    kept = set(select(caller.env, names=named)[0])
    of_harness = {
        name: set(select(caller.env, names=harness.env_names, prefixes=harness.env_prefixes)[0]) - kept
        for name, harness in ((name, context.harness(name)) for name in context.harness_names)
    }
    all_kept = kept.union(*of_harness.values())
    dropped = {*caller.env, *caller.dropped_env} - all_kept
    return Variables(
        tuple(sorted(kept)),
        tuple(sorted(dropped)),
        {name: tuple(sorted(names)) for name, names in of_harness.items() if names},
    )


def _health(context: Context) -> tuple[Health | None, Check | None]:
    try:
        return headcount.check(context, task_id=None), None
    except HeadcountError as error:
        return None, Check("headcount", False, error.message, error.hint)


def _no_health() -> Health:
    none: tuple[()] = ()
    return Health(False, 0, 0, 0, none, none, none, none, none, none, none, none, none, none)


def _safely(check: Callable[[Context], Check], context: Context) -> Check:
    try:
        return check(context)
    except (HeadcountError, OSError) as error:
        hint = error.hint if isinstance(error, HeadcountError) else ""
        return Check(check.__name__.strip("_"), False, str(error), hint)


def _count(health: Health | None) -> Check:
    if health is None:
        return Check("count", None, "the count is not known", "see below why")
    differ = health.live_rows - health.live_runs
    detail = f"Registry: {health.live_rows}, Running: {health.live_runs}, "
    sessions = health.sessions_count if _views_answered(health) else "unknown"
    detail += f"Tmux: {sessions}, Diff: {differ}"
    return Check("count", differ == 0, detail, "" if differ == 0 else "see 'headcount repair'")


def _registry(context: Context) -> Check:
    if (found := context.registry.quarantined()) is not None:
        return Check(
            "registry", False, f"quarantined: {found.path} ({found.why})", "run 'headcount repair --rebuild'"
        )
    wrong = context.registry.integrity()
    detail = "; ".join(wrong[:3]) or "integrity check clean"
    return Check("registry", not wrong, detail, "run 'headcount repair --rebuild'" if wrong else "")


def _home(context: Context) -> Check:
    root = context.home.root
    found = root.stat()
    if found.st_mode & 0o077:
        return Check("home", False, f"{root} can be entered by others", f"chmod 700 {root}")
    if not os.access(root, os.W_OK):
        return Check("home", False, f"{root} cannot be written", "make it writable, or set HEADCOUNT_HOME")
    return Check("home", True, str(root))


def _disk(context: Context) -> Check:
    free, least = context.placement.free_disk_mb(), context.settings.limits.min_disk_mb
    return Check(
        "disk",
        free >= least,
        f"{free} MB free, {least} needed",
        "" if free >= least else "see 'headcount gc'",
    )


def _memory(context: Context) -> Check:
    free, least = context.placement.free_memory_mb(), context.settings.limits.min_memory_mb
    return Check("memory", free >= least, f"{free} MB free, {least} needed")


def _views(context: Context, health: Health | None) -> Check:
    why = context.views.available()
    if why is not None:
        return Check("tmux", None, why, "agents run without views")
    if not _view_server_answers(context, health):
        return Check(
            "tmux", False, "the view server does not answer", "agents are not affected; end it by its pid"
        )
    return Check("tmux", True, shutil.which("tmux") or "tmux")


def _view_server_answers(context: Context, health: Health | None) -> bool:
    """Say what the headcount found: to ask a wedged server again would take its time-out again."""
    return context.views.list() is not None if health is None else _views_answered(health)


def _views_answered(health: Health) -> bool:
    return not any(each.subject == "tmux" for each in health.unknown)


def _daemon(context: Context) -> Check:
    facts = context.home.daemon_facts
    pid = context.daemon_pid()
    if pid is None:
        return Check("daemon", None, "not running", "it is started on first need, or by 'headcount up'")
    silence = heartbeat.silence(context, pid)
    if silence is None:  # it has just begun, or is of a release that gives no sign of life
        return Check("daemon", True, f"pid {pid}, {facts}")
    if silence.is_long:
        return Check(
            "daemon",
            False,
            f"pid {pid} holds its lock but has done no headcount for {silence.seconds:.0f} s: it hangs",
            f"agents are not affected; 'kill -9 {pid}', then 'headcount up'",
        )
    return Check("daemon", True, f"pid {pid}, last headcount {silence.seconds:.0f} s ago, {facts}")


def _halt(context: Context) -> Check:
    if context.home.halted.exists():
        return Check(
            "halt", None, "the emergency stop is in force", "lift it with 'headcount halt --release'"
        )
    return Check("halt", True, "not in force")


def _limits(context: Context) -> Check:
    limits = context.settings.limits
    return Check(
        "limits",
        True,
        f"{limits.machine_max_live} live on the machine, {limits.task_max_live} a task, "
        f"{limits.task_max_agents} a task over its life, depth {limits.max_depth}",
    )


def _flags(context: Context) -> Check:
    """Say on which agents the watchdog sees something: that is theirs, and does not make us unhealthy."""
    with context.registry.read() as tx:
        found = [f"{flag.key} {flag.kind}" for flag in tx.flags.open()]
    if not found:
        return Check("watchdog", True, "no flag is raised")
    more = f" and {len(found) - FLAGS_NAMED} more" if len(found) > FLAGS_NAMED else ""
    return Check("watchdog", None, ", ".join(found[:FLAGS_NAMED]) + more, "see 'headcount explain AGENT'")


def _prompts(context: Context) -> Check:
    """Say which parts of the prompt are the user's own; a name with a slip in it replaces nothing."""
    folder = context.home.prompts
    names = sorted(each.stem for each in folder.glob("*.md")) if folder.is_dir() else []
    idle = [f"{name}.md" for name in names if name.partition("-")[0] not in PARTS]
    if idle:
        return Check(
            "prompts",
            None,
            f"{', '.join(idle)} in {folder} replaces no part",
            f"the parts: {', '.join(PARTS)}",
        )
    return Check("prompts", True, f"replaced: {', '.join(names)}" if names else "no part is replaced")


def _rowless(context: Context) -> Check:
    """Say which runs that are over stand in no row; the headcount passes them by, for it costs what lives."""
    found = collect.rowless(context)
    if not found:
        return Check("rowless", True, "every run directory has its row")
    names = ", ".join(str(each.key) for each in found[:ROWLESS_NAMED])
    more = f" and {len(found) - ROWLESS_NAMED} more" if len(found) > ROWLESS_NAMED else ""
    return Check("rowless", None, f"no row has {names}{more}, which are over", "'headcount gc' collects them")


def _hooks(context: Context) -> Check:
    """Say whether those who are to be told of what happens can be told."""
    found = notify.page(context).hooks
    if wrong := [f"{each.name}: {each.wrong}" for each in found if each.wrong]:
        return Check("notify", False, "; ".join(wrong), "mend it, then try 'headcount notify test NAME'")
    late = [each for each in found if each.last_failure and (each.queued or each.dead)]
    if failing := [f"{each.name}, {each.dead} dead: {each.last_failure}" for each in late]:
        return Check("notify", None, "; ".join(failing), "see 'headcount notify list'")
    names = ", ".join(each.name for each in found)
    return Check("notify", True, f"tells {names}" if names else "no hooks: nobody outside is told")


def _prices(context: Context) -> Check:
    """Say what tokens are priced by, where an agent's program does not say what it cost."""
    known = [each.pattern for each in account.prices(context)]
    return Check(
        "prices", True, f"for {', '.join(known)}" if known else "no table: what no program tells is unknown"
    )


def _versions() -> Check:
    python = ".".join(map(str, sys.version_info[:3]))
    return Check("versions", True, f"Python {python}, SQLite {sqlite3.sqlite_version}, {sys.platform}")
