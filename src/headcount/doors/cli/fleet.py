"""The way from a command to the fleet: opening it, and finding what a person named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from headcount.domain.errors import InvalidInput, NotFound
from headcount.domain.ids import TASK_PREFIX, check_id

if TYPE_CHECKING:
    from headcount.api import Headcount
    from headcount.services.answers import AgentFacts, TaskFacts

_PART_OF_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_PAGE: Final = 500
_SHOWN: Final = 8
"""So many candidates are named in an error; more would hide what it says."""


@contextmanager
def opened() -> Iterator[Headcount]:
    """Open the fleet of `HEADCOUNT_HOME` for one command."""
    from headcount.api import Headcount

    with Headcount() as fleet:
        yield fleet


def all_agents(
    fleet: Headcount, *, task_id: str | None = None, ended: bool = False, limit: int | None = None
) -> tuple[AgentFacts, ...]:
    """Return the agents of every page, at most `limit`, in order of deployment."""
    found: list[AgentFacts] = []
    cursor = None
    while True:
        page = fleet.list_agents(task_id=task_id, all=ended, limit=_PAGE, cursor=cursor)
        found.extend(page.agents)
        cursor = page.next_cursor
        if cursor is None or (limit is not None and len(found) >= limit):
            return tuple(sorted(found[:limit], key=deployed))


def deployed(agent: AgentFacts) -> str:
    """Return the part of an id that sorts by time."""
    return agent.agent_id.rpartition("-")[2]


def all_tasks(fleet: Headcount, *, state: str | None = None) -> tuple[TaskFacts, ...]:
    """Return the tasks of every page, newest first."""
    found: list[TaskFacts] = []
    cursor = None
    while True:
        page = fleet.list_tasks(state=state, limit=_PAGE, cursor=cursor)
        found.extend(page.tasks)
        cursor = page.next_cursor
        if cursor is None:
            return tuple(found)


def agent_id(fleet: Headcount, named: str) -> str:
    """Return the id of the agent that is meant by an id, the beginning of one, or a role.

    Live agents come first: an ended one is meant only where no live one fits.

    Raises:
        InvalidInput: it cannot be part of an id, or more than one agent fits.
        NotFound: none does.
    """
    if _whole(named, "agent"):
        return named
    for ended in (False, True):
        agents = all_agents(fleet, ended=ended)
        fits = [each.agent_id for each in agents if each.role == named or each.agent_id.startswith(named)]
        if fits:
            return _only(fits, named, "agent")
    raise NotFound(f"no agent is called {named}", hint="'headcount ps --all' lists them")


def agent_ids(fleet: Headcount, named: Sequence[str]) -> tuple[str, ...]:
    """Return the ids that are meant, each once; all are found before anything is done to one."""
    return tuple(dict.fromkeys(agent_id(fleet, each) for each in named))


def task_id(fleet: Headcount, named: str) -> str:
    """Return the id of the task that is meant by an id or the beginning of one.

    Raises:
        InvalidInput: it cannot be part of an id, or more than one task fits.
        NotFound: none does.
    """
    if _whole(named, "task"):
        return named
    fits = [each.task_id for each in all_tasks(fleet) if each.task_id.startswith(named)]
    if not fits:
        raise NotFound(f"no task is called {named}", hint="'headcount task list' lists them")
    return _only(fits, named, "task")


def maybe_task_id(fleet: Headcount, named: str | None) -> str | None:
    return None if named is None else task_id(fleet, named)


def the_task_id(fleet: Headcount, named: str | None) -> str:
    """Return the named task, or where none is named the only open one.

    Raises:
        InvalidInput: none is named, and not exactly one is open.
    """
    if named is not None:
        return task_id(fleet, named)
    open_ones = all_tasks(fleet, state="open")
    if len(open_ones) == 1:
        return open_ones[0].task_id
    if not open_ones:
        raise NotFound("no task is open", hint="create one with 'headcount task create'")
    ids = [each.task_id for each in open_ones]
    raise InvalidInput(f"{len(ids)} tasks are open; say which", hint=f"one of {_listed(ids)}")


def _whole(named: str, kind: str) -> bool:
    """Whether it has the form of an id; what cannot even be a part of one is an error at once."""
    if not _PART_OF_ID.fullmatch(named):
        check_id(kind, named)
    try:
        check_id(kind, named)
    except InvalidInput:
        return False
    return kind != "task" or named.startswith(f"{TASK_PREFIX}-")


def _only(fits: Sequence[str], named: str, kind: str) -> str:
    if len(fits) == 1:
        return fits[0]
    raise InvalidInput(f"{len(fits)} {kind}s fit {named!r}; say which", hint=f"one of {_listed(fits)}")


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more
