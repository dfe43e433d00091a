"""Take an agent over: end its headless run, and open its conversation for a person; then hand it back.

A crash between the two steps of either leaves an agent that is stopped, and can be resumed.
"""

from __future__ import annotations

from typing import Final

from headcount.domain.errors import Infrastructure, Refused
from headcount.domain.model import Agent, Form, Run
from headcount.domain.options import Ability
from headcount.services import admit, deploy, given, resume, stop
from headcount.services.answers import Deployed
from headcount.services.context import Context
from headcount.services.request import Again, check_env

TAKEOVER: Final = "takeover"
HANDBACK: Final = "handback"


def take_over(context: Context, agent_id: str, *, env: tuple[str, ...]) -> Deployed:
    """Open an agent's conversation in its program's own form, on a terminal; return when that runs.

    Raises:
        NotFound, NotAllowed: nothing was changed.
        Refused: it goes on as before; or it was stopped, and a limit or rule forbids the new run.
        Infrastructure: what it did could not be ended.
        PlacementFailed: it is stopped, and the row says why the new run did not start.
    """
    given.text("agent_id", agent_id)
    check_env(env)
    stop.person_only(context, "take an agent over")
    agent, runs = resume.found(context, agent_id)
    harness = context.known_harness(agent.harness)
    if Ability.TAKEOVER not in harness.abilities:
        raise _refused(agent, "cannot_take_over", f"harness {agent.harness} has no form for a person")
    if runs[-1].live and runs[-1].form is Form.INTERACTIVE:
        raise _refused(agent, "taken_over", f"it was, see 'headcount attach {agent_id}'")
    if (why := context.views.available()) is not None:
        raise _refused(agent, "no_view", why)
    resume.learn(context, runs)
    admit.began_in(_again(context, agent_id))
    _end(context, runs[-1], TAKEOVER)
    again = Again(agent_id, None, env, form=Form.INTERACTIVE)
    return deploy.begin(
        context,
        harness,
        lambda looked: admit.reserve_again(context, agent, again, looked),
        env=env,
        words=None,
    )


def hand_back(context: Context, again: Again) -> Deployed:
    """End the run that a person had, and let the agent go on headless; return when that is confirmed.

    Raises:
        InvalidInput, NotFound, NotAllowed: nothing was changed.
        Refused: it was not taken over; or it was stopped, and a limit or rule forbids the new run.
        Infrastructure: the run could not be ended.
        PlacementFailed: it is stopped, and the row says why the new run did not start.
    """
    given.text("agent_id", again.agent_id)
    stop.person_only(context, "hand an agent back")
    agent, runs = resume.found(context, again.agent_id)
    if runs[-1].form is not Form.INTERACTIVE:
        raise Refused(
            f"agent {agent.agent_id} was not taken over",
            code="not_taken_over",
            limit="form",
            holders=[agent.agent_id],
            hint="'headcount send' tells it something, 'headcount resume' lets it go on if it is over",
        )
    resume.check(context, agent, again)
    _end(context, runs[-1], HANDBACK)
    return resume.resume(context, again)


def _again(context: Context, agent_id: str) -> list[Run]:
    with context.registry.read() as tx:
        return tx.runs.of_agent(agent_id)


def _end(context: Context, run: Run, why: str) -> None:
    """End a run if it lives. When this returns its place is free, and so is that of its window, in which the
    next run would not be seen."""
    if run.live:
        stopped = stop.stop(context, run.key.agent_id, reason=why, grace=None)
        if stopped.outcome is None:
            raise Infrastructure(f"agent {run.key.agent_id} could not be ended: {stopped.note}")
    if context.views.available() is None:
        context.views.close(run.key.agent_id)


def _refused(agent: Agent, code: str, why: str) -> Refused:
    return Refused(
        f"agent {agent.agent_id} cannot be taken over: {why}",
        code=code,
        limit="takeover",
        holders=[agent.agent_id],
        hint="see 'headcount attach' and 'headcount logs -f'",
    )
