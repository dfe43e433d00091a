"""Three prompts: where the fleet stands, what is wrong with an agent, how to split a piece of work."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server import MCPServer
from pydantic import Field


def fleet_status(task_id: Annotated[str, Field(description="Only this task; default: all")] = "") -> str:
    """Say where the fleet stands and what needs attention."""
    look = (
        f"get_task_status(task_id={task_id!r})" if task_id else "list_tasks(state='open') and list_agents()"
    )
    return (
        f"Say where the fleet stands. Call {look}, then get_findings for each task with live agents. "
        "Report in this order: agents that are blocked, failed or lost, and why; what was found that "
        "matters (critical and high first); what is under way and how far; what ended well. If counts and"
        " agents disagree, call registry_health_check and say what it shows. End with the one thing to do"
        " next."
    )


def triage_agent(agent_id: Annotated[str, Field(description="The agent that is stuck or has failed")]) -> str:
    """Find out what is wrong with one agent and what to do about it."""
    return (
        f"Find out what is wrong with agent {agent_id!r}. Read its row in list_agents(all=true), then "
        "get_agent_output with format='summary', then with stream='stderr' and tail=50, then read_events "
        "for it. Keep apart what was observed (state, outcome, exit code, signal) and what it said of "
        "itself. Say: is its process alive, what did it do last, what stopped it, with the lines that "
        "show it. Then propose one step: wait, stop_agent, or deploy again with which change to the "
        "prompt. Do not stop or deploy without a yes."
    )


def plan_and_deploy(
    goal: Annotated[str, Field(description="What is to be done")],
    project: Annotated[str, Field(description="The directory to work in; default: here")] = "",
) -> str:
    """Split a goal into agents, deploy them and bring their results together."""
    where = f" in {project}" if project else ""
    return (
        f"Get this done{where} with a fleet of headless agents: {goal}\n\n1. Look at the project first. "
        "Split the goal into 2 to 6 pieces that do not edit the same files; name a role for each.\n2. "
        "create_task with the goal as description, deliverables and success_criteria.\n3. "
        "deploy_headless_agent for each piece; the prompt says what to do, which files are its own, and "
        "how it will be checked. If one is refused, do what the error says.\n4. wait_for_agents until all"
        " have ended, reading get_findings in between.\n5. Check the results against the success criteria"
        " yourself; an agent's own 'done' is a claim. Deploy a fixer where it falls short.\n6. Report "
        "what was done, by whom, and what is left."
    )


def mount(server: MCPServer[Any]) -> None:
    """Put the prompts on the server."""
    for prompt, title in (
        (fleet_status, "Fleet status"),
        (triage_agent, "Triage an agent"),
        (plan_and_deploy, "Plan and deploy"),
    ):
        server.prompt(title=title)(prompt)
