"""A git worktree for each agent that is to work apart: made, shown, taken away, brought back.

A worktree is on record, in the transaction that reserves its agent's first run, before anything of it is
made. Whoever works on it holds it (`Repositories.holding`), and so does every git that he started. So one
that is on record as being made or removed, that nobody holds and for which no deploy is under way, was left
by somebody who died; the next headcount settles it:

* being made, and a run of its agent may have begun: it is there.
* being made, and certainly none has: it is taken away, with what is left of its set-up command.
* being made again: it is taken away again; what was kept of it is still kept.
* being removed, and its directory is in its place: it is there. Nothing was lost.
* being removed, and its directory is not: the rest of it is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Final

from headcount.domain.errors import HeadcountError, InvalidInput, NotFound, Refused, WorktreeFailed
from headcount.domain.ids import check_id
from headcount.domain.lifecycle import Outcome, State
from headcount.domain.model import Isolation, Run, RunKey, Task, Worktree, WorktreeState
from headcount.domain.worktrees import (
    Checkout,
    Objection,
    branch_of,
    objections,
    trash_ref,
)
from headcount.services import given, rights, settle, stop
from headcount.services.answers import (
    Problem,
    WorktreeDiff,
    WorktreeFacts,
    WorktreeList,
    WorktreeRemoved,
    iso,
)
from headcount.services.context import Context
from headcount.store.registry import Tx

HOLD_WAIT: Final = 60.0
"""Seconds for somebody else who works on the same worktree."""
LIMIT_MAX: Final = 1000
DIFF_MAX: Final = 100_000_000
NEWEST: Final = 1 << 62


# ---------------------------------------------------------------- before and during a deploy


@dataclass(frozen=True, slots=True)
class Plan:
    """The worktree that a new agent is to get, and the checkout that it begins from."""

    tree: Worktree
    checkout: Checkout

    @property
    def cwd(self) -> str:
        """Return where the agent works: what the directory is in the checkout, that it is in the worktree."""
        return os.path.join(self.tree.path, self.checkout.inside) if self.checkout.inside else self.tree.path


def isolation(name: object) -> Isolation:
    """Return the isolation that a caller names.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return Isolation(given.text("isolation", name))
    except ValueError:
        raise InvalidInput(
            f"isolation {str(name)[:40]!r} is not known", hint=f"one of {', '.join(Isolation)}"
        ) from None


def own_tree(context: Context, tx: Tx, directory: str, task: Task) -> bool:
    """Say whether a directory is in a worktree of an agent of the task: to a caller who stands there, that is
    the project."""
    root = _root(context)
    if not directory.startswith(f"{root}/"):
        return False
    agent = tx.runs.agent(directory.removeprefix(f"{root}/").partition("/")[0])
    return agent is not None and agent.task_id == task.task_id


def plan(context: Context, agent_id: str, checkout: Checkout, *, now: float) -> Plan:
    tree = Worktree(
        agent_id=agent_id,
        repository=checkout.repository,
        path=f"{_root(context)}/{agent_id}",
        branch=branch_of(agent_id),
        base=checkout.head,
        state=WorktreeState.MAKING,
        made_at=now,
    )
    return Plan(tree, checkout)


def _root(context: Context) -> str:
    return os.path.realpath(context.home.worktrees)


def usable(tx: Tx, agent_id: str) -> None:
    """Check that a further run of an agent finds its worktree.

    Raises:
        Refused: it was taken away, or is about to be.
    """
    tree = tx.worktrees.get(agent_id)
    if tree is None or tree.state is WorktreeState.THERE:
        return
    raise Refused(
        f"the worktree of agent {agent_id} is {tree.state}",
        code="worktree_gone",
        limit="worktree",
        value=tree.state.value,
        holders=[agent_id],
        hint=f"bring it back with 'headcount worktree undo {agent_id}'",
    )


def make(context: Context, planned: Plan, task: Task, key: RunKey, env: Mapping[str, str]) -> None:
    """Make the worktree of a reserved run.

    Raises:
        HeadcountError: it is not whole; `unmake` takes away what there is of it.
    """
    tree, settings = planned.tree, context.settings
    marks = {"HEADCOUNT_AGENT_ID": key.agent_id, "HEADCOUNT_RUN": str(key.n)}
    marks["HEADCOUNT_HOME"] = str(context.home.root)
    with context.repositories.holding(tree.path, wait=HOLD_WAIT) as hold:
        context.repositories.make(tree, hold, inside=planned.checkout.inside)
        context.repositories.copy(tree, planned.checkout.top, settings.worktree_copy)
        argv = task.setup or settings.worktree_setup
        if argv:
            context.repositories.set_up(
                argv,
                cwd=planned.cwd,
                env={**env, **marks},
                timeout=settings.worktree_setup_timeout,
                goes_on=lambda: _is_reserved(context, key),
            )


def _is_reserved(context: Context, key: RunKey) -> bool:
    with context.registry.read() as tx:
        run = tx.runs.get(key.agent_id, key.n)
    return run is not None and run.state is State.RESERVED


def made(context: Context, tx: Tx, tree: Worktree) -> None:
    """Record that a worktree is there, because a run in it has begun."""
    now = context.clock.now()
    if tx.worktrees.move(tree.agent_id, from_=WorktreeState.MAKING, to=WorktreeState.THERE, now=now):
        _event(context, tx, "worktree_made", tree)


def unmake(context: Context, agent_id: str) -> None:
    """Take away the worktree of an agent that never began; what fails now the next headcount does."""
    with suppress(HeadcountError):
        _settle(context, agent_id, wait=HOLD_WAIT)


# ---------------------------------------------------------------- what the dead left


def look(context: Context) -> list[Problem]:
    """Return what `mend` would do; change nothing."""
    return [_problem(each) for each in _left(context) if _is_free(context, each)]


def mend(context: Context) -> list[Problem]:
    """Settle the worktrees that somebody who died was making or removing; return what was done. Those that
    cannot be settled now, because git still works there or fails, are seen again next time."""
    done = []
    for tree in _left(context):
        with suppress(HeadcountError):
            if _settle(context, tree.agent_id, wait=0.0):
                done.append(_problem(tree))
    return done


def _left(context: Context) -> list[Worktree]:
    with context.registry.read() as tx:
        return [each for each in tx.worktrees.unsettled() if not _is_awaited(each, _last_run(tx, each))]


def _is_awaited(tree: Worktree, last: Run | None) -> bool:
    """Say whether a deploy that is under way needs a worktree, as far as anybody knows."""
    return tree.state is WorktreeState.MAKING and last is not None and last.state is State.RESERVED


def _last_run(tx: Tx, tree: Worktree) -> Run | None:
    return tx.runs.get(tree.agent_id)


def _is_free(context: Context, tree: Worktree) -> bool:
    try:
        with context.repositories.holding(tree.path, wait=0.0):
            return True
    except HeadcountError:
        return False


def _problem(tree: Worktree) -> Problem:
    detail = f"its worktree was {tree.state} when somebody died"
    return Problem("unfinished", tree.agent_id, detail, "settle_worktree", agent_id=tree.agent_id)


def _settle(context: Context, agent_id: str, *, wait: float) -> bool:
    """Settle one worktree, with all that was said of it before we held it read anew."""
    tree = _get(context, agent_id)
    with context.repositories.holding(tree.path, wait=wait) as hold:
        tree = _get(context, agent_id)
        with context.registry.read() as tx:
            runs = tx.runs.of_agent(agent_id)
        if tree.state is WorktreeState.REMOVING:
            _settle_removal(context, tree, hold)
        elif tree.state is not WorktreeState.MAKING or _is_awaited(tree, runs[-1] if runs else None):
            return False
        elif tree.tip is not None or (runs and not any(map(_may_have_begun, runs))):
            _unmake(context, tree, hold)
        else:
            with context.registry.write("worktree") as tx:
                made(context, tx, tree)
    return True


def _may_have_begun(run: Run) -> bool:
    """Say whether an agent may have worked: all but a run that is known never to have started."""
    never = run.outcome in (Outcome.START_FAILED, Outcome.STOPPED) and run.started_at is None
    return not never


def _settle_removal(context: Context, tree: Worktree, hold: int) -> None:
    if os.path.lexists(tree.path):
        with context.registry.write("worktree") as tx:
            tx.worktrees.move(
                tree.agent_id,
                from_=WorktreeState.REMOVING,
                to=WorktreeState.THERE,
                now=context.clock.now(),
            )
    else:
        _finish_removal(context, tree, "", hold)


def _unmake(context: Context, tree: Worktree, hold: int) -> None:
    """Take away what was made for nobody, with whatever its set-up command left running."""
    context.placement.clear(RunKey(tree.agent_id, 1))
    to = _trash(context, tree)
    tip = tree.base if tree.tip is None else context.repositories.inspect(tree).branch_tip
    context.repositories.discard(tree, to=to, tip=tip, hold=hold)
    if tree.tip is None:  # nobody has worked in it; what was to come back is kept
        shutil.rmtree(to, ignore_errors=True)
    with context.registry.write("worktree") as tx:
        tx.worktrees.move(
            tree.agent_id, from_=WorktreeState.MAKING, to=WorktreeState.REMOVED, now=context.clock.now()
        )
        _event(context, tx, "worktree_unmade", tree)


# ---------------------------------------------------------------- looking


def note(context: Context, key: RunKey) -> None:
    """Record what a run that is over left in its agent's worktree, if it has one and is the latest."""
    with context.registry.read() as tx:
        tree, last = tx.worktrees.get(key.agent_id), tx.runs.get(key.agent_id)
    if tree is None or tree.state is not WorktreeState.THERE or last is None or last.key != key or last.live:
        return
    facts = _inspected(context, tree, key.n)
    with context.registry.write("worktree") as tx:
        tx.worktrees.set_result(key.agent_id, facts, run=key.n)


def _inspected(context: Context, tree: Worktree, n: int) -> dict[str, object]:
    try:
        return {"run": n, **asdict(context.repositories.inspect(tree))}
    except HeadcountError as error:
        return {"run": n, "error": error.message}


def of_agent(context: Context, agent_id: str) -> WorktreeFacts | None:
    """Return the worktree of an agent, None if it has none: of a live one as it is now, of one that is over
    as its last run left it."""
    with context.registry.read() as tx:
        tree, last = tx.worktrees.get(agent_id), tx.runs.get(agent_id)
    if tree is None:
        return None
    live = last is not None and last.live
    if live and tree.state is WorktreeState.THERE and last is not None:
        tree = replace(tree, result=_inspected(context, tree, last.key.n))
    return _facts(tree, live=live)


def page(context: Context, *, removed: bool, limit: int, cursor: int | None) -> WorktreeList:
    """Return worktrees, the newest first, as they are on record: git is not asked."""
    limit = given.whole("limit", limit, least=1, most=LIMIT_MAX)
    given.flag("removed", removed)
    before = given.maybe_whole("cursor", cursor, least=1) or NEWEST
    settle.observe(context)
    with context.registry.read() as tx:
        trees = tx.worktrees.page(removed=removed, limit=limit + 1, before=before)
        live = {each.key.agent_id for each in tx.runs.live()}
    shown = tuple(_facts(each, live=each.agent_id in live) for each in trees[:limit])
    return WorktreeList(shown, trees[limit - 1].seq if len(trees) > limit else None)


def _facts(tree: Worktree, *, live: bool) -> WorktreeFacts:
    missing = tree.state is WorktreeState.THERE and not os.path.lexists(tree.path)
    return WorktreeFacts(
        agent_id=tree.agent_id,
        state="missing" if missing else tree.state.value,
        live=live,
        path=tree.path,
        branch=tree.branch,
        repository=tree.repository,
        base=tree.base,
        made_at=iso(tree.made_at) or "",
        removed_at=iso(tree.removed_at),
        trash_ref=tree.trash_ref,
        result=tree.result,
    )


def diff(context: Context, agent_id: str, *, max_bytes: int) -> WorktreeDiff:
    """Return how an agent's worktree differs from its base.

    Raises:
        NotFound: it has none, or nothing is left of it.
        WorktreeFailed: git cannot say.
    """
    given.whole("max_bytes", max_bytes, least=1, most=DIFF_MAX)
    tree = _get(context, agent_id)
    text, whole = context.repositories.diff(tree, max_bytes)
    return WorktreeDiff(agent_id, tree.base, tree.branch, text.decode("utf-8", "replace"), whole)


def _get(context: Context, agent_id: str) -> Worktree:
    with context.registry.read() as tx:
        tree = tx.worktrees.get(check_id("agent", agent_id))
        if tree is None:
            rights.existing(tx, agent_id)
            raise NotFound(
                f"agent {agent_id} has no worktree", hint="list them with 'headcount worktree list'"
            )
    return tree


# ---------------------------------------------------------------- taking away and bringing back


def remove(context: Context, agent_id: str, *, snapshot: bool) -> WorktreeRemoved:
    """Take an agent's worktree and branch away, if nothing is lost with it; its directory goes to the trash.

    With `snapshot`, what would be lost is kept under a ref first. Killed at any step, nothing is lost, and
    the next headcount settles it.

    Raises:
        NotFound: it has none.
        NotAllowed: an agent asks.
        Refused: its agent is live, it is in use, or something would be lost; nothing was changed.
        WorktreeFailed: git did not do it.
    """
    stop.person_only(context, "remove a worktree")
    given.flag("snapshot", snapshot)
    settle.observe(context)
    tree = _get(context, agent_id)
    with context.repositories.holding(tree.path, wait=HOLD_WAIT) as hold:
        tree = _get(context, agent_id)
        _check_there(tree)
        _check_over(context, tree)
        _refuse(tree, _objections(context, tree), snapshot=snapshot)
        to = _trash(context, tree)
        ref = _keep(context, tree, to, hold) if snapshot else None
        seen = context.repositories.inspect(tree)
        tree = _claim(context, tree, seen.branch_tip or seen.tip, ref)
        moved = os.path.lexists(tree.path)
        _finish_removal(context, tree, to, hold)
    return WorktreeRemoved(agent_id, tree.path, tree.branch, tree.trash_ref, to if moved else None)


def _check_there(tree: Worktree) -> None:
    if tree.state is not WorktreeState.THERE:
        raise Refused(
            f"the worktree of agent {tree.agent_id} is {tree.state}",
            code="worktree_gone" if tree.state is WorktreeState.REMOVED else "worktree_busy",
            limit="worktree",
            value=tree.state.value,
            holders=[tree.agent_id],
            hint="'headcount repair --apply' settles what somebody who died left",
        )


def _check_over(context: Context, tree: Worktree) -> None:
    with context.registry.read() as tx:
        last = _last_run(tx, tree)
    if last is not None and last.live:
        raise _live(tree)


def _live(tree: Worktree) -> Refused:
    return Refused(
        f"agent {tree.agent_id} is live and works in its worktree",
        code="worktree_in_use",
        limit="worktree",
        holders=[tree.agent_id],
        hint="wait for it, or stop it first",
    )


def _objections(context: Context, tree: Worktree) -> Iterator[Objection]:
    try:
        seen = context.repositories.inspect(tree)
    except WorktreeFailed as error:
        yield Objection("worktree_not_inspectable", error.message, error.hint)
        return
    yield from objections(seen, context.repositories.users(tree.path))


def _refuse(tree: Worktree, found: Iterator[Objection], *, snapshot: bool) -> None:
    """Raise the first objection that stands; those that a snapshot answers stand without one."""
    for each in found:
        if not (snapshot and each.keeps):
            raise Refused(
                f"the worktree of agent {tree.agent_id} is not removed: {each.message}",
                code=each.code,
                limit="worktree",
                value=tree.path,
                holders=[tree.agent_id],
                hint=each.hint,
            )


def _trash(context: Context, tree: Worktree) -> str:
    """Return where a worktree's directory goes: a name that none had before."""
    with context.registry.write("worktree") as tx:
        number = tx.worktrees.number_trash(tree.agent_id)
    return str(context.home.trash / f"worktree-{tree.agent_id}-{number}")


def _keep(context: Context, tree: Worktree, to: str, hold: int) -> str:
    """Keep all of a worktree under a ref of the same number; look again at who works in it, for it may have
    taken minutes."""
    ref = trash_ref(tree.agent_id, int(to.rpartition("-")[2]))
    context.repositories.snapshot(tree, ref, hold)
    _refuse(tree, _objections(context, tree), snapshot=True)
    return ref


def _claim(context: Context, tree: Worktree, tip: str | None, ref: str | None) -> Worktree:
    """Record, before anything is taken away, what is kept of a worktree, unless its agent is live by now."""
    with context.registry.write("worktree") as tx:
        if not tx.worktrees.claim(tree.agent_id, tip=tip):
            raise _live(tree)
        tx.worktrees.set_trash(tree.agent_id, ref)
    return replace(tree, state=WorktreeState.REMOVING, tip=tip, trash_ref=ref)


def _finish_removal(context: Context, tree: Worktree, to: str, hold: int) -> None:
    context.repositories.discard(tree, to=to, tip=tree.tip, hold=hold)
    with context.registry.write("worktree") as tx:
        tx.worktrees.move(
            tree.agent_id, from_=WorktreeState.REMOVING, to=WorktreeState.REMOVED, now=context.clock.now()
        )
        _event(context, tx, "worktree_removed", tree)


def undo(context: Context, agent_id: str) -> WorktreeFacts:
    """Bring a removed worktree back, with its branch, files and staged state.

    Raises:
        NotFound: the agent has none.
        NotAllowed: an agent asks.
        Refused: it is not removed, or nothing is in its place.
        WorktreeFailed: git does not have any more what was kept; nothing was changed.
    """
    stop.person_only(context, "bring a worktree back")
    tree = _get(context, agent_id)
    with context.repositories.holding(tree.path, wait=HOLD_WAIT) as hold:
        tree = _get(context, agent_id)
        _check_removed(tree)
        now = context.clock.now()
        with context.registry.write("worktree") as tx:
            tx.worktrees.move(agent_id, from_=WorktreeState.REMOVED, to=WorktreeState.MAKING, now=now)
        try:
            context.repositories.restore(tree, hold)
        except HeadcountError:
            with suppress(HeadcountError):  # else the next headcount does it
                _unmake(context, replace(tree, state=WorktreeState.MAKING), hold)
            raise
        with context.registry.write("worktree") as tx:
            made(context, tx, tree)
    return _facts(_get(context, agent_id), live=False)


def _check_removed(tree: Worktree) -> None:
    if tree.state is not WorktreeState.REMOVED:
        why, code = f"is {tree.state}", "worktree_there"
    elif tree.trash_ref is None and tree.tip is None:
        why, code = "was never used, so nothing of it was kept", "worktree_gone"
    elif os.path.lexists(tree.path):
        why, code = f"cannot be brought back: something is at {tree.path}", "worktree_there"
    else:
        return
    raise Refused(
        f"the worktree of agent {tree.agent_id} {why}",
        code=code,
        limit="worktree",
        value=tree.state.value,
        holders=[tree.agent_id],
        hint="list them with 'headcount worktree list --all'",
    )


def _event(context: Context, tx: Tx, kind: str, tree: Worktree) -> None:
    data = {"path": tree.path, "branch": tree.branch, "trash_ref": tree.trash_ref}
    agent = tx.runs.agent(tree.agent_id)
    tx.events.add(
        kind,
        task_id=agent.task_id if agent else None,
        agent_id=tree.agent_id,
        data=data,
        now=context.clock.now(),
    )


# ---------------------------------------------------------------- garbage


def merged(context: Context, before: float) -> Sequence[Worktree]:
    """Return the worktrees that can go without a loss: clean, unused, every commit on another branch, and the
    last run of their agents over since before a moment. Git is asked of each."""
    with context.registry.read() as tx:
        trees = [
            (each, _last_run(tx, each))
            for each in tx.worktrees.page(removed=False, limit=10_000, before=NEWEST)
        ]
    return [tree for tree, last in trees if _is_old(tree, last, before) and _goes(context, tree)]


def _is_old(tree: Worktree, last: Run | None, before: float) -> bool:
    if tree.state is not WorktreeState.THERE or (last is not None and last.live):
        return False
    return (tree.made_at if last is None or last.ended_at is None else last.ended_at) <= before


def _goes(context: Context, tree: Worktree) -> bool:
    try:
        return next(_objections(context, tree), None) is None
    except HeadcountError:
        return False
