"""The headcount: look, compare with the registry, repair. Unknown changes nothing; repair starts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from headcount.domain.lifecycle import State
from headcount.domain.model import Form, LiveRun, LockState, Presence, Process, Run, RunKey, Seen
from headcount.domain.plan import (
    Adopt,
    Correct,
    Orphan,
    Reap,
    RecordEnd,
    RecordLost,
    RecordVoid,
    RowAction,
    orphans,
    plan_files,
)
from headcount.runtimes.base import Session, Views
from headcount.services import account, rights, settle, stop, worktrees
from headcount.services.answers import Health, Problem, SessionFacts
from headcount.services.context import Context

VIEW_DUE: Final = 1.0
"""Seconds after its start in which a run has its session, and after its end in which it has none any more;
before that none is missed and none is in the way."""
VIEW_TRIES: Final = 3
"""A view that dies this often stays down: something is wrong with it that a fourth will not mend."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One look at everything, rows read last."""

    looked: settle.Look
    rows: tuple[LiveRun, ...]
    sessions: tuple[Session, ...] | None  # None: unknown
    runs: dict[RunKey, Run | None]  # of the orphans
    ending: frozenset[str]  # agents that ended a moment ago: their sessions are about to go


def check(context: Context, *, task_id: str | None) -> Health:
    """Compare and say; write nothing.

    Raises:
        NotFound: the task does not exist.
    """
    _check_task(context, task_id)
    return _health(context, _picture(context, _Asked(context.views)), task_id, dry_run=True)


def repair(context: Context, *, dry_run: bool, task_id: str | None) -> Health:
    """Compare, and unless `dry_run` bring rows, runs and views together.

    Raises:
        NotFound: the task does not exist.
        NotAllowed: an agent asks for more than a dry run. It would end what is not its own, and a view
            server that it starts would end with it.
    """
    if dry_run:
        return check(context, task_id=task_id)
    stop.person_only(context, "repair")
    _check_task(context, task_id)
    views = _Asked(context.views)
    done = _step(context, views, task_id=task_id, strays=True)
    if _await_killed(context, [each for each in done if each.action in ("kill_stray", "send_stop")]):
        again = _step(context, views, task_id=task_id, strays=True)
        done += [each for each in again if each.action != "unmark"]
    _await_shown(context, views, {each.agent_id for each in done if each.action == "show_view"})
    if context.daemon_pid() is None:  # which does this
        account.make_some(context)
    after = _health(context, _picture(context, views), task_id, dry_run=False)
    return replace(after, done=tuple(done))


def _check_task(context: Context, task_id: str | None) -> None:
    if task_id is not None:
        with context.registry.read() as tx:
            rights.existing_task(tx, task_id)


class _Asked:
    """The view server, asked until it does not answer once: nobody waits for a second time-out."""

    def __init__(self, views: Views) -> None:
        self._views: Final = views
        self._silent = False

    def list(self) -> Sequence[Session] | None:
        found = None if self._silent else self._views.list()
        self._silent = found is None
        return found


def _await_killed(context: Context, killed: Sequence[Problem]) -> bool:
    """Give runs that were told to end the time to do so; return whether there were any."""
    for each in killed:
        if each.agent_id is not None and each.run is not None:
            key = RunKey(each.agent_id, each.run)
            marked = {seen.key: seen.path for seen in context.placement.look()}
            if key in marked:
                stop.until_over(context, key, marked[key], grace=0.0)
    return bool(killed)


def _await_shown(context: Context, views: _Asked, names: set[str | None]) -> None:
    """Give views that were just made the time to be there; one that is not then is missed by the check."""
    deadline = context.clock.monotonic() + VIEW_DUE
    while names and context.clock.monotonic() < deadline:
        sessions = views.list()
        if sessions is None or names <= {each.name for each in sessions}:
            return
        context.clock.pause(stop.POLL[1])


def tick(context: Context, *, task_id: str | None = None, strays: bool = False) -> list[Problem]:
    """Bring registry and machine one step closer; return what was done.

    With `strays`, run directories that no row knows are ended too: only a person's repair does that.
    """
    return _step(context, _Asked(context.views), task_id=task_id, strays=strays)


def _step(context: Context, views: _Asked, *, task_id: str | None, strays: bool) -> list[Problem]:
    looked = settle.look(context, act=True)
    sessions = views.list()
    with context.registry.read() as tx:
        rows = _of_task(tx.runs.live(), task_id)
    settled: list[settle.Settled] = []
    if settle.plan(context, looked, rows):
        with context.registry.write("headcount") as tx:
            rows = _of_task(tx.runs.live(), task_id)
            settled = settle.record(context, tx, looked, rows)
        settle.tidy(context, settled, close_views=True)
    over = {each.row.key for each in settled if not isinstance(each.action, (Adopt, Correct))}
    rows = [row for row in rows if row.key not in over]
    left = settle.Look({key: seen for key, seen in looked.seen.items() if key not in over})
    return [
        *(_row_problem(each.action) for each in settled),
        *_resend_stops(context, left, rows),
        *_end_orphans(context, left, task_id=task_id, strays=strays),
        *_mend_views(context, left, rows, sessions, task_id),
        *worktrees.mend(context),
    ]


def _of_task(rows: Iterable[LiveRun], task_id: str | None) -> list[LiveRun]:
    return [row for row in rows if task_id is None or row.task_id == task_id]


def _resend_stops(context: Context, looked: settle.Look, rows: Sequence[LiveRun]) -> list[Problem]:
    done = []
    for row in rows:
        if row.state is State.STOPPING and settle.held(looked.seen.get(row.key)):
            stop.resend(context, row)
            done.append(
                _problem("unfinished", row, "a stop was recorded but the run still lives", "send_stop")
            )
    return done


def _end_orphans(
    context: Context, looked: settle.Look, *, task_id: str | None, strays: bool
) -> list[Problem]:
    """End runs that live without a live row, and take finished ones out of `live/`."""
    done = []
    for orphan, run in _orphans(context, looked, task_id):
        again = context.placement.look_at(orphan.seen.key, orphan.seen.path)
        if again.lock is LockState.UNKNOWN or (run is None and not strays):
            continue
        if again.lock is LockState.HELD:
            context.placement.signal_stop(again.key, again.path, grace=0.0)
            _record_stray(context, again, run)
        elif again.exit or again.void or again.start or again.deployer is Presence.DEAD:
            context.placement.unmark(again.key)
        else:
            continue
        done.append(_orphan_problem(replace(orphan, held=again.lock is LockState.HELD), run))
    return done


def _record_stray(context: Context, seen: Seen, run: Run | None) -> None:
    with context.registry.write("end stray") as tx:
        tx.events.add(
            "stray_ended",
            task_id=run.task_id if run else None,
            agent_id=run.key.agent_id if run else None,
            run=seen.key.n,
            data={"run": str(seen.key), "runner_pid": seen.runner_pid},
            now=context.clock.now(),
        )


def _orphans(context: Context, looked: settle.Look, task_id: str | None) -> list[tuple[Orphan, Run | None]]:
    """Return marked runs without a live row, each with its row if there is one at all. The rows are
    read here, after the look, so that a run which ended meanwhile is no orphan."""
    with context.registry.read() as tx:
        live = frozenset(row.key for row in tx.runs.live())
        found = [
            (each, tx.runs.get(each.seen.key.agent_id, each.seen.key.n))
            for each in orphans(looked.seen.values(), live)
        ]
    return [
        (each, run) for each, run in found if task_id is None or (run is not None and run.task_id == task_id)
    ]


def _mend_views(
    context: Context,
    looked: settle.Look,
    rows: Sequence[LiveRun],
    sessions: Sequence[Session] | None,
    task_id: str | None,
) -> list[Problem]:
    """Give each live run its session, and take away those of agents that are over."""
    if sessions is None or context.views.available() is not None:
        return []
    names = {each.name for each in sessions}
    missing = _viewless(context, looked, rows, names)
    if names:  # the server stands, so these died one by one; the loss of the server is no fault of theirs
        missing = _worth_another_try(context, missing)
    for row, runner in missing:
        show(context, row, runner)
    done = [_problem("view_missing", row, "no session shows it", "show_view") for row, _ in missing]
    return done if task_id is not None else done + _close_stale(context, sessions)


def show(context: Context, run: LiveRun | Run, runner: Process) -> None:
    """Have a window made onto a run that lives."""
    context.views.show(
        run.key,
        run.path,
        runner_pid=runner.pid,
        renders=context.harness(run.read_by).renders,
        interactive=run.form is Form.INTERACTIVE,
    )


def _worth_another_try(
    context: Context, missing: Sequence[tuple[LiveRun, Process]]
) -> list[tuple[LiveRun, Process]]:
    if not missing:
        return []
    with context.registry.write("views") as tx:
        return [each for each in missing if tx.runs.view_failed(each[0].key) <= VIEW_TRIES]


def _close_stale(context: Context, sessions: Sequence[Session]) -> list[Problem]:
    with context.registry.read() as tx:
        live = {row.key.agent_id for row in tx.runs.live()}
        stale = [
            each
            for each in sessions
            if each.agent_id and each.agent_id not in live and tx.runs.get(each.agent_id)
        ]
    return [_stale_problem(each) for each in stale if context.views.close(each.name)]


def _stale_problem(session: Session) -> Problem:
    return Problem(
        "foreign_session", session.name, "its agent is over", "close_view", agent_id=session.agent_id
    )


def _viewless(
    context: Context, looked: settle.Look, rows: Sequence[LiveRun], names: set[str]
) -> list[tuple[LiveRun, Process]]:
    """Return the running rows, with their runners, that no session shows although one should by now."""
    now = context.clock.now()
    found = []
    for row in rows:
        seen = looked.seen.get(row.key)
        if row.state is not State.RUNNING or row.runner is None or row.key.agent_id in names:
            continue
        if settle.held(seen) and seen and seen.start and abs(now - seen.start.started_at) > VIEW_DUE:
            found.append((row, row.runner))
    return found


def _picture(context: Context, views: _Asked) -> Picture:
    looked = settle.Look(settle.glance(context))
    sessions = views.list()
    with context.registry.read() as tx:
        rows = tuple(tx.runs.live())
        live = frozenset(row.key for row in rows)
        agents = {row.key.agent_id for row in rows}
        runs = {
            each.seen.key: tx.runs.get(each.seen.key.agent_id, each.seen.key.n)
            for each in orphans(looked.seen.values(), live)
        }
        over = [each.agent_id for each in sessions or () if each.agent_id and each.agent_id not in agents]
        ending = frozenset(each for each in over if _just_ended(context, tx.runs.get(each)))
    return Picture(looked, rows, None if sessions is None else tuple(sessions), runs, ending)


def _just_ended(context: Context, run: Run | None) -> bool:
    ended_at = run.ended_at if run else None
    return ended_at is not None and abs(context.clock.now() - ended_at) <= VIEW_DUE


def _health(context: Context, picture: Picture, task_id: str | None, *, dry_run: bool) -> Health:
    problems = list(_problems(context, picture, task_id))
    rows = _of_task(picture.rows, task_id)
    live = {row.key.agent_id for row in picture.rows}
    by_kind = {kind: tuple(each for each in problems if each.kind == kind) for kind in _KINDS}
    sessions = tuple(
        SessionFacts(each.name, each.agent_id, each.agent_id in live) for each in picture.sessions or ()
    )
    return Health(
        healthy=not problems,
        live_rows=len(rows),
        live_runs=sum(1 for row in rows if settle.held(picture.looked.seen.get(row.key))),
        sessions_count=sum(1 for each in sessions if each.known),
        ghosts=by_kind["ghost"],
        strays=by_kind["stray"],
        unfinished=by_kind["unfinished"],
        wrong_identities=by_kind["wrong_identity"],
        views_missing=by_kind["view_missing"],
        foreign_sessions=by_kind["foreign_session"],
        rowless=by_kind["rowless"],
        earlier_boot=by_kind["earlier_boot"],
        unknown=by_kind["unknown"],
        sessions=sessions,
        dry_run=dry_run,
    )


_KINDS = (
    "ghost",
    "stray",
    "unfinished",
    "wrong_identity",
    "view_missing",
    "foreign_session",
    "rowless",
    "earlier_boot",
    "unknown",
)


def _problems(context: Context, picture: Picture, task_id: str | None) -> Iterable[Problem]:
    rows = _of_task(picture.rows, task_id)
    yield from _row_problems(context, picture, rows)
    for orphan in orphans(picture.looked.seen.values(), frozenset(row.key for row in picture.rows)):
        run = picture.runs.get(orphan.seen.key)
        if task_id is None or (run is not None and run.task_id == task_id):
            yield _orphan_problem(orphan, run)
    yield from worktrees.look(context)
    if context.views.available() is not None:
        return
    if picture.sessions is None:
        yield Problem("unknown", "tmux", "tmux does not answer, so its sessions are unknown", "none")
        return
    yield from _view_problems(context, picture, rows, task_id)


def _row_problems(context: Context, picture: Picture, rows: Sequence[LiveRun]) -> Iterable[Problem]:
    """Say of each live row what is wrong with it: what an applied repair would do comes from the same
    plan that it uses, with the dead runners' trees counted as reaped."""
    would_reap = {
        each.seen.key: () for each in plan_files(picture.looked.seen.values()) if isinstance(each, Reap)
    }
    looked = settle.Look(picture.looked.seen, {**would_reap, **picture.looked.reaped})
    actions = {action.row.key: action for action in settle.plan(context, looked, rows)}
    for row in rows:
        seen = picture.looked.seen.get(row.key)
        if row.key in actions:
            yield _row_problem(actions[row.key])
        elif seen is not None and seen.lock is LockState.UNKNOWN:
            yield _problem("unknown", row, seen.error or "its run directory cannot be read", "none")
        elif _unfinished(context, row, seen):
            yield _problem("unfinished", row, "its deployer is dead and nothing was started", "void")
        elif row.state is State.STOPPING and settle.held(seen):
            yield _problem("unfinished", row, "a stop was recorded but the run still lives", "send_stop")


def _unfinished(context: Context, row: LiveRun, seen: Seen | None) -> bool:
    if row.state is not State.RESERVED or settle.held(seen):
        return False
    return context.placement.presence(row.deployer) is Presence.DEAD


def _view_problems(
    context: Context, picture: Picture, rows: Sequence[LiveRun], task_id: str | None
) -> Iterable[Problem]:
    sessions = picture.sessions or ()
    names = {each.name for each in sessions}
    for row, _ in _viewless(context, picture.looked, rows, names):
        yield _problem("view_missing", row, "no session shows it", "show_view")
    if task_id is not None:
        return
    live = {row.key.agent_id for row in picture.rows}
    for session in sessions:
        if session.agent_id is None:
            yield Problem("foreign_session", session.name, "it is not a view of ours", "none")
        elif session.agent_id not in live and session.agent_id not in picture.ending:
            yield _stale_problem(session)


def _row_problem(action: RowAction) -> Problem:
    match action:
        case Adopt(row, _):
            return _problem("unfinished", row, "its deployer died after the start", "adopt")
        case Correct(row, start):
            detail = f"the row names another runner than the start record ({start.runner.pid})"
            return _problem("wrong_identity", row, detail, "correct_row")
        case RecordEnd(row, record, _):
            how = f"exit code {record.code}" if record.code is not None else f"signal {record.signal}"
            return _problem("ghost", row, f"it has ended ({record.error or how})", "record_end")
        case RecordVoid(row, reason):
            return _problem("unfinished", row, reason, "record_end")
        case RecordLost(row, reason, _):
            kind = "earlier_boot" if "restarted" in reason else "ghost"
            return _problem(kind, row, reason, "record_lost")


def _problem(kind: str, row: LiveRun, detail: str, action: str) -> Problem:
    return Problem(
        kind, str(row.key), detail, action, agent_id=row.key.agent_id, run=row.key.n, task_id=row.task_id
    )


def _orphan_problem(orphan: Orphan, run: Run | None) -> Problem:
    key, task_id = orphan.seen.key, run.task_id if run else None
    if orphan.held:
        row = run.state if run else "not there"
        kind, action = "stray", "kill_stray"
        detail = f"it runs (runner {orphan.seen.runner_pid}) but its row is {row}"
    else:
        kind, action = ("unfinished" if run else "rowless"), "unmark"
        detail = "it is over and still marked live"
    return Problem(kind, str(key), detail, action, agent_id=key.agent_id, run=key.n, task_id=task_id)
