"""Let an agent that is over go on: a further run of it, in the same conversation.

What a crash leaves is what it leaves of a deploy, whose steps these are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from headcount.domain.errors import Refused
from headcount.domain.model import Agent, Run, Why
from headcount.domain.options import Ability, parse_options
from headcount.harnesses.base import Harness
from headcount.services import account, admit, deploy, given, rights
from headcount.services.answers import Deployed
from headcount.services.context import Context, Remote
from headcount.services.request import Again, check_env, check_prompt

CRASH_DUE: Final = 3600.0
"""Seconds in which a crash is answered; what is longer over was seen by somebody."""
AT_ONCE: Final = 100
"""Crashes that one look finds; the next look finds the others."""


def resume(context: Context, again: Again) -> Deployed:
    """Begin a further run of an agent; return when its process is confirmed to run.

    Raises:
        InvalidInput, NotFound, NotAllowed: nothing was started.
        Refused: the agent is live, its harness cannot go on with a conversation, nobody knows which it was,
            or a limit or rule forbids it; nothing was started.
        PlacementFailed: the row says why it did not start; nothing is left running.
    """
    _check(again)
    if context.remote is not None:
        return _through_daemon(context.remote, again)
    agent, runs = found(context, again.agent_id)
    harness = check(context, agent, again)
    learn(context, runs)
    return deploy.begin(
        context,
        harness,
        lambda looked: admit.reserve_again(context, agent, again, looked),
        env=again.env,
        words=again.prompt,
    )


def check(context: Context, agent: Agent, again: Again) -> Harness:
    """Return the harness with which an agent can go on.

    Raises:
        InvalidInput: a prompt that it cannot take.
        Refused: it has no conversations.
    """
    harness = context.known_harness(agent.harness)
    _check_harness(harness, agent)
    if again.prompt is not None:
        check_prompt(again.prompt, harness, context.settings.limits.prompt_max_bytes)
        # where both are a way to say the same, the prompt is what is said now
        command = agent.command if harness.wraps_prompt or harness.needs_command else ()
        harness.check(prompt=again.prompt, command=command, options=parse_options(agent.options))
    return harness


def _check(again: Again) -> None:
    given.text("agent_id", again.agent_id)
    given.maybe_text("prompt", again.prompt)
    given.maybe_text("idempotency_key", again.idempotency_key, most=given.LABEL_MAX)
    check_env(again.env)


def _through_daemon(remote: Remote, again: Again) -> Deployed:
    """Within an agent's tree nothing is started: the daemon does it."""
    arguments: dict[str, object] = {
        "agent_id": again.agent_id,
        "prompt": again.prompt,
        "env": list(again.env) or None,
        "idempotency_key": again.idempotency_key,
    }
    answered = remote.call("resume_agent", {k: v for k, v in arguments.items() if v is not None})
    return Deployed(**answered)  # type: ignore[arg-type]  # the daemon's answer has these very fields


def found(context: Context, agent_id: str) -> tuple[Agent, list[Run]]:
    """Return an agent that the caller may act on, and its runs."""
    with context.registry.read() as tx:
        last = rights.existing(tx, agent_id)
        rights.over(context, tx, last)
        agent = tx.runs.agent(agent_id)
        assert agent is not None, "a run has its agent"
        return agent, tx.runs.of_agent(agent_id)


def _check_harness(harness: Harness, agent: Agent) -> None:
    if Ability.RESUME not in harness.abilities:
        raise Refused(
            f"agent {agent.agent_id} cannot be resumed: harness {harness.name} has no conversations",
            code="cannot_resume",
            limit="conversation",
            holders=[agent.agent_id],
            hint="deploy a new agent for what is left",
        )


def learn(context: Context, runs: list[Run]) -> None:
    """Have it on record which conversation the latest run was that began."""
    began = next((run for run in reversed(runs) if run.started_at is not None), None)
    if began is not None and began.session_id is None:
        account.conversation(context, began)


# ---------------------------------------------------------------- after a crash


def crashes(context: Context) -> list[Run]:
    """Return the runs whose crash is to be answered with a further run of their agents."""
    since = context.clock.now() - CRASH_DUE
    with context.registry.read() as tx:
        return [run for run in tx.runs.crashed_since(since, AT_ONCE) if admit.crashed(run)]


def after_crash(context: Context, run: Run, *, env: tuple[str, ...] = ()) -> Deployed:
    """Resume an agent whose run crashed; another who did so first makes it refused.

    Raises:
        HeadcountError: as `resume`.
    """
    again = Again(run.key.agent_id, None, env, why=Why.CRASH)
    return resume(replace(context, call=None), again)
