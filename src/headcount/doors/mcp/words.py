"""What a client is told once: the instructions. Some clients cut them at 250 characters, some at 4,096."""

from __future__ import annotations

from typing import Final

from headcount.doors.mcp.tools import Who

PERSON: Final = """\
Headcount deploys, tracks and stops fleets of headless coding agents on this machine, and the count is
right. Core: create_task, then deploy_headless_agent for each agent, then wait_for_agents (45 s per
call, ask again).

Workflow
1. create_task(description, project=DIR) gives a task_id.
2. deploy_headless_agent(task_id, agent_type, prompt) answers when the agent's process is confirmed to
   run. One live agent per role and task; limits on live agents, agents per task, depth and rate. A
   refusal is an error that names the limit, its value, what holds it and what to do: do that, do not
   repeat the call unchanged.
3. wait_for_agents(task_id=...) until they have ended; done=false means that time ran out, nothing else.
   With until="reported" and the answer's cursor you follow their progress.
4. get_task_status for the whole picture, get_findings for what they discovered, get_agent_output for
   what one wrote.
5. stop_agent ends an agent and every process of it.

What the words mean
- state (reserved, running, stopping, ended, lost) and outcome (completed, failed, stopped, timed_out,
  over_budget, start_failed) are observed from processes. reported, progress and message are what an
  agent says of itself: an agent that says "done" may still run, one that ended may never have reported.
- Answers are pages of at most 8,000 characters; truncated and next_cursor say that there is more and
  how to get it.
- If the numbers look wrong: registry_health_check, then validate_and_repair_registry(dry_run=false).
  Neither starts an agent.
- Every agent has a tmux session of its name: `headcount attach AGENT` shows it to the user.
"""

AGENT: Final = """\
You are an agent of a Headcount fleet. Core: update_agent_progress (begin, milestones, blocked, end),
report_agent_finding (what others should know, at once), spawn_child_agent (delegate, then
wait_for_agents).

- Your token says who you are: no call needs your agent_id or task_id of your own.
- spawn_child_agent deploys into your task, one level below you. A refusal names the limit and what to
  do instead: do the work yourself or wait, do not repeat the call unchanged.
- wait_for_agents waits up to 45 s per call; done=false means that time ran out, ask again.
- get_task_status shows your siblings, get_findings what they discovered: look before you do work twice.
- End with update_agent_progress(status="done" or "failed", message=what came of it).
- In a shell the same is: headcount report, headcount finding, headcount spawn.
"""


def instructions(who: Who) -> str:
    """Return what this kind of caller is told."""
    return AGENT if who is Who.AGENT else PERSON
