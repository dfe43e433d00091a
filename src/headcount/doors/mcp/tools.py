"""The tools: name, arguments, who may call it, and the one use case that it translates to.

The words are those that users of the predecessors know; the glossary has them all side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from headcount.api import Headcount
from headcount.domain.errors import NotAllowed
from headcount.domain.options import named
from headcount.domain.output import OutputPage
from headcount.doors.mcp.shape import PAGE_CHARS, Page, page, paged, size
from headcount.services import answers

if TYPE_CHECKING:
    from headcount.services.context import Context

OUTPUT_BYTES: Final = 6_000
"""Escaped as JSON, a page of output stays within `PAGE_CHARS`."""
WAIT_MOST: Final = 45.0
"""Clients end a tool call after 60 s, whatever progress is reported."""


class Who(StrEnum):
    """Whose tools they are: the token decides."""

    PERSON = "person"
    AGENT = "agent"


BOTH: Final = frozenset(Who)
PERSON: Final = frozenset({Who.PERSON})
AGENT: Final = frozenset({Who.AGENT})


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `call` takes the fleet as the caller sees it, and the arguments by name."""

    call: Callable[..., Page]
    answer: type
    title: str
    who: frozenset[Who]
    reads_only: bool = False
    destroys: bool = False
    repeats_well: bool = False  # a second call with the same arguments changes nothing more
    once: bool = False  # what a call changes is changed once, however often that call is sent
    slow: bool = False  # waits for a process: has its own threads
    late: bool = False  # an agent has it after the end of its run too

    @property
    def name(self) -> str:
        return self.call.__name__

    @property
    def description(self) -> str:
        """Return what the model reads: the docstring, its lines joined."""
        return " ".join((self.call.__doc__ or "").split())


TaskId = Annotated[str, Field(description="The task, such as task-01jx5e2k9pab12cd")]
AgentId = Annotated[str, Field(description="The agent, such as builder-01jx5e2k9pab12cd")]
MaybeTask = Annotated[str | None, Field(description="Only this task")]
Role = Annotated[
    str,
    Field(description="The agent's role: investigator, builder, fixer, reviewer, tester or your own word"),
]
Prompt = Annotated[
    str | None,
    Field(description="What the agent is to do. Required but for the harnesses command and script"),
]
Harness = Annotated[
    str | None,
    Field(description="The program that is the agent: claude (default), command, script or another one"),
]
Command = Annotated[
    list[str] | None, Field(description="For the harnesses command and script: program and arguments")
]
Model = Annotated[str | None, Field(description="The model, in the harness's own words")]
Effort = Annotated[str | None, Field(description="How hard the model thinks, in the harness's own words")]
Options = Annotated[
    dict[str, Any] | None,
    Field(
        description="How it works: permissions (read, edit, ask, bypass), allowed_tools, denied_tools, "
        "max_turns, budget_usd, system_prompt, result_schema, only_our_mcp, steer, peers. What its harness "
        "cannot do is refused"
    ),
]
Cwd = Annotated[
    str | None,
    Field(description="Where it works. Default: your directory if in the task's project, else the project"),
]
Env = Annotated[
    list[str] | None, Field(description="Names of further variables of yours that the agent gets")
]
Duplicate = Annotated[bool, Field(description="Allow a second live agent of this role in the task")]
SameWork = Annotated[
    bool, Field(description="Allow the same prompt while another agent of the task works on it")
]
Key = Annotated[
    str | None, Field(description="Your key for this request: repeated with the same key it is done once")
]
Crashes = Annotated[
    int,
    Field(ge=0, le=100, description="If it crashes, let it go on with its conversation, at most so often"),
]
Isolation = Annotated[
    Literal["shared", "worktree"] | None,
    Field(description="The project itself, or a git worktree of its own. Default: as the task has it"),
]
Policy = Annotated[
    dict[str, Any] | None,
    Field(
        description="What the watchdog does: stall_after_s, wall_limit_s, memory_limit_mb, output_limit_mb, "
        "linger_after_s, stopped_after_s (0: off); on_stall, on_wall, on_memory, on_output, on_linger, "
        "on_stopped, on_unreported (flag, tell_agent, tell_parent, stop, restart); act_after_s, restarts, "
        "restart_window_s, restart_backoff_s"
    ),
]
Cursor = Annotated[int, Field(ge=0, description="next_cursor of an earlier answer: only what is newer")]
Limit = Annotated[int, Field(ge=1, le=500, description="At most so many rows")]
Texts = Annotated[list[str] | None, Field(description="One string each")]
Count = Annotated[int | None, Field(ge=1)]


def create_task(
    fleet: Headcount,
    description: Annotated[str, Field(description="What is to be done")],
    project: Annotated[
        str | None, Field(description="The directory that agents work in. Default: yours")
    ] = None,
    priority: Annotated[Literal["P0", "P1", "P2", "P3"], Field(description="P0 is the most urgent")] = "P2",
    background: Annotated[str, Field(description="What an agent should know beforehand")] = "",
    deliverables: Texts = None,
    success_criteria: Texts = None,
    constraints: Texts = None,
    relevant_files: Texts = None,
    conversation: Annotated[
        list[dict[str, str]] | None,
        Field(description="The talk that led here: objects with role, content, timestamp"),
    ] = None,
    max_live: Annotated[int | None, Field(ge=1, description="Most agents at once. Default 20")] = None,
    max_agents: Annotated[
        int | None, Field(ge=1, description="Most agents over the task's life. Default 45")
    ] = None,
    max_depth: Annotated[int | None, Field(ge=1, description="Most levels of delegation. Default 5")] = None,
    spawn_rules: Annotated[
        dict[str, list[str]] | None, Field(description="Which role may deploy which roles. Default: any")
    ] = None,
    isolation: Annotated[
        Literal["shared", "worktree"],
        Field(description="Where its agents work: the project itself, or each a git worktree of its own"),
    ] = "shared",
    setup: Annotated[
        list[str] | None, Field(description="Program and arguments, run in each new worktree")
    ] = None,
    policy: Policy = None,
) -> Page:
    """Create a task for agents to work on; returns its task_id, which deploy_headless_agent takes."""
    return page(
        fleet.create_task(
            description,
            project=project,
            priority=priority,
            background=background,
            deliverables=deliverables or (),
            success_criteria=success_criteria or (),
            constraints=constraints or (),
            relevant_files=relevant_files or (),
            conversation=conversation or (),
            max_live=max_live,
            max_agents=max_agents,
            max_depth=max_depth,
            spawn_rules=spawn_rules,
            isolation=isolation,
            setup=setup or (),
            policy=policy,
        )
    )


def list_harnesses(fleet: Headcount) -> Page:
    """List the programs that can be agents (the argument harness of a deploy): whether each is ready, what
    would make it so, and which options it knows."""
    return page(fleet.list_harnesses(), more="'headcount harness list --json' shows all")


def list_tasks(
    fleet: Headcount,
    state: Annotated[
        Literal["open", "paused", "closed", "archived"] | None, Field(description="Only these")
    ] = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, Field(description="next_cursor of an earlier answer")] = None,
) -> Page:
    """List tasks, newest first."""
    return paged(
        lambda rows: fleet.list_tasks(state=state, limit=rows, cursor=cursor),
        "tasks",
        limit=limit,
        more="call list_tasks again with cursor = next_cursor",
    )


def deploy_headless_agent(
    fleet: Headcount,
    task_id: TaskId,
    agent_type: Role,
    prompt: Prompt = None,
    harness: Harness = None,
    command: Command = None,
    parent: Annotated[str | None, Field(description="The live agent that it shall be a child of")] = None,
    model: Model = None,
    effort: Effort = None,
    options: Options = None,
    cwd: Cwd = None,
    env: Env = None,
    allow_duplicate_role: Duplicate = False,
    allow_same_work: SameWork = False,
    resume_on_crash: Crashes = 0,
    isolation: Isolation = None,
    policy: Policy = None,
    idempotency_key: Key = None,
) -> Page:
    """Deploy one headless agent for a task and return when its process is confirmed to run. Limits (live,
    lifetime, depth, rate), one live agent per role and the same-work rule are checked before anything starts;
    a refusal names the limit and what holds it. Follow with wait_for_agents."""
    return page(
        fleet.deploy(
            task_id,
            role=agent_type,
            prompt=prompt,
            harness=harness or "claude",
            command=command or (),
            parent=parent,
            **{"model": model, "effort": effort, **named(options or {})},
            cwd=cwd,
            env=env or (),
            allow_duplicate_role=allow_duplicate_role,
            allow_same_work=allow_same_work,
            resume_on_crash=resume_on_crash,
            isolation=isolation,
            policy=policy,
            idempotency_key=idempotency_key,
        )
    )


def spawn_child_agent(
    fleet: Headcount,
    agent_type: Role,
    prompt: Prompt = None,
    harness: Annotated[str | None, Field(description="Default: yours; see deploy rules of your task")] = None,
    command: Command = None,
    model: Model = None,
    effort: Effort = None,
    options: Options = None,
    cwd: Cwd = None,
    env: Env = None,
    allow_duplicate_role: Duplicate = False,
    allow_same_work: SameWork = False,
    resume_on_crash: Crashes = 0,
    isolation: Isolation = None,
    policy: Policy = None,
    idempotency_key: Key = None,
) -> Page:
    """Deploy an agent as your child, in your task, one level below you. It outlives you if need be. Follow
    with wait_for_agents."""
    own = fleet.get_agent(_own_id(fleet))
    return page(
        fleet.deploy(
            own.task_id,
            role=agent_type,
            prompt=prompt,
            harness=harness or (own.harness if not command else "command"),
            command=command or (),
            **{"model": model, "effort": effort, **named(options or {})},
            cwd=cwd,
            env=env or (),
            allow_duplicate_role=allow_duplicate_role,
            allow_same_work=allow_same_work,
            resume_on_crash=resume_on_crash,
            isolation=isolation,
            policy=policy,
            idempotency_key=idempotency_key,
        )
    )


def resume_agent(
    fleet: Headcount,
    agent_id: AgentId,
    prompt: Annotated[str, Field(description="What it is to do now")],
    env: Env = None,
    idempotency_key: Key = None,
) -> Page:
    """Let an agent that is over go on with its conversation, in a further run with the same options. Refused
    if it is live or its program has no conversations. Follow with wait_for_agents."""
    return page(fleet.resume_agent(agent_id, prompt, env=env or (), idempotency_key=idempotency_key))


def send_message(
    fleet: Headcount,
    agent_id: AgentId,
    text: Annotated[str, Field(description="What it is to know or do, at most 4000 characters")],
    resume: Annotated[bool, Field(description="If it is over, let it go on with this as its prompt")] = True,
) -> Page:
    """Tell an agent something after its deploy. The answer says which way it goes: steer (now, in its work),
    report (with the answer to its next report) or resume (a further run with it as the prompt)."""
    return page(fleet.send_message(agent_id, text, resume=resume))


def list_messages(
    fleet: Headcount,
    agent_id: AgentId,
    limit: Limit = 100,
    cursor: Annotated[int | None, Field(ge=1, description="next_cursor of an earlier answer")] = None,
) -> Page:
    """List what an agent was told after its deploy, newest first, and what became of each message."""
    return paged(
        lambda rows: fleet.list_messages(agent_id, limit=rows, cursor=cursor),
        "messages",
        limit=limit,
        more="call list_messages again with cursor = next_cursor",
    )


def cancel_turn(fleet: Headcount, agent_id: AgentId) -> Page:
    """End what a live agent does at the moment, without ending its conversation. Only of agents that were
    deployed with the option steer."""
    return page(fleet.cancel_turn(agent_id))


def list_approvals(fleet: Headcount, task_id: MaybeTask = None) -> Page:
    """List what live agents ask before they do it (deployed with permissions ask), oldest first, with the id
    that answer_approval takes and when each expires."""
    return page(fleet.list_approvals(task_id=task_id), more="answer these first")


def answer_approval(
    fleet: Headcount,
    approval_id: Annotated[str, Field(description="As list_approvals names it")],
    allow: Annotated[bool, Field(description="true: it may do it; false: it may not")],
    reason: Annotated[str, Field(description="Why, for the record")] = "",
) -> Page:
    """Allow or deny what an agent asks. A person may answer every agent, an agent those below it."""
    return page(fleet.answer_approval(approval_id, allow=allow, reason=reason))


def list_agents(
    fleet: Headcount,
    task_id: MaybeTask = None,
    all: Annotated[bool, Field(description="Ended ones too")] = False,
    limit: Limit = 100,
    cursor: Annotated[str | None, Field(description="next_cursor of an earlier answer")] = None,
) -> Page:
    """List agents, newest first: state, process, what they last reported. Only live ones, unless
    all."""
    return paged(
        lambda rows: fleet.list_agents(task_id=task_id, all=all, limit=rows, cursor=cursor),
        "agents",
        limit=limit,
        more="call list_agents again with cursor = next_cursor",
    )


def list_worktrees(
    fleet: Headcount,
    removed: Annotated[bool, Field(description="Removed ones too")] = False,
    limit: Limit = 50,
    cursor: Annotated[int | None, Field(ge=1, description="next_cursor of an earlier answer")] = None,
) -> Page:
    """List the git worktrees of agents, newest first: path, branch, base, and what the last run left there
    (commits, changed files, files not committed)."""
    return paged(
        lambda rows: fleet.list_worktrees(removed=removed, limit=rows, cursor=cursor),
        "worktrees",
        limit=limit,
        more="call list_worktrees again with cursor = next_cursor",
    )


def get_agent(fleet: Headcount, agent_id: AgentId) -> Page:
    """Return all that is known of one agent: how it was deployed, where it stands, and each of its runs with
    its outcome, ending, account (tokens, cost, turns, files changed), result and conversation."""
    return page(fleet.get_agent(agent_id), more="'headcount show --json' shows all")


def get_postmortem(
    fleet: Headcount,
    agent_id: AgentId,
    run: Annotated[
        int | None, Field(ge=1, description="The number of the run. Default: the latest that is over")
    ] = None,
) -> Page:
    """Return what is known of the end of a run: how and why it ended, who asked for that, its last report,
    tool call, output and stderr, the limits that were near, the files changed since its start, and what
    nobody knows."""
    return page(fleet.get_postmortem(agent_id, run=run), more="'headcount postmortem --json' shows all")


def explain_agent(fleet: Headcount, agent_id: AgentId) -> Page:
    """Say why an agent, live or over, stands as it does: which signals there are and since when, what the
    watchdog has flagged and done, and what would change it."""
    return page(fleet.explain_agent(agent_id), more="'headcount explain --json' shows all")


def get_task_status(fleet: Headcount, task_id: TaskId) -> Page:
    """Say where a task stands: its agents, counts by state and outcome, what they used (tokens, cost),
    refused deploys by reason, the latest reports and findings."""
    return page(
        fleet.get_task_status(task_id), more="list_agents, get_findings and read_events page through all"
    )


def wait_for_agents(
    fleet: Headcount,
    agent_ids: Annotated[list[str] | None, Field(description="The agents. Default: all of task_id")] = None,
    task_id: MaybeTask = None,
    any: Annotated[bool, Field(description="Return when the first is there, not all")] = False,
    until: Annotated[
        Literal["ended", "reported", "done", "blocked", "finding"],
        Field(description="What to wait for; an agent that has ended satisfies each of them"),
    ] = "ended",
    timeout: Annotated[
        float, Field(ge=0, le=WAIT_MOST, description="Seconds, at most 45; ask again after it")
    ] = WAIT_MOST,
    cursor: Annotated[
        str | None, Field(description="cursor of an earlier answer: 'reported' means since then")
    ] = None,
) -> Page:
    """Wait until agents have ended (or reported). Time running out is an answer with done=false: nothing is
    wrong, call again with its cursor."""
    answer = fleet.wait_for_agents(
        agent_ids or (), task_id=task_id, any=any, until=until, timeout=timeout, cursor=cursor
    )
    return page(answer, more="list_agents pages through all")


def get_agent_output(
    fleet: Headcount,
    agent_id: AgentId,
    run: Annotated[int | None, Field(ge=1, description="Default: the latest run")] = None,
    stream: Annotated[Literal["output", "stderr"], Field(description="Which of its two streams")] = "output",
    format: Annotated[
        Literal["text", "jsonl", "parsed", "summary", "recent"], Field(description="How to read it")
    ] = "text",
    tail: Annotated[int | None, Field(ge=1, description="Only the last so many lines")] = None,
    filter: Annotated[str | None, Field(description="Only lines that this regular expression finds")] = None,
    max_bytes: Annotated[
        int, Field(ge=1, le=16_000, description="At most so much in one answer")
    ] = OUTPUT_BYTES,
    cursor: Annotated[int | None, Field(ge=0, description="next_cursor of an earlier answer")] = None,
) -> Page:
    """Read what an agent wrote, during its run or after it. What is left out is counted; next_cursor
    continues."""

    def read(size: int) -> OutputPage:
        return fleet.get_agent_output(
            agent_id,
            run=run,
            stream=stream,
            format=format,
            tail=tail,
            filter=filter,
            max_bytes=size,
            cursor=cursor,
        )

    shown, room = page(read(max_bytes), limit=None), max_bytes
    while max_bytes == OUTPUT_BYTES and size(shown.facts) > PAGE_CHARS and room > 1:
        room //= 2  # much of it is escaped
        shown = page(read(room), limit=None)
    return shown


def get_findings(
    fleet: Headcount,
    task_id: TaskId,
    severity: Annotated[
        Literal["critical", "high", "medium", "low", "info"] | None, Field(description="Only this severity")
    ] = None,
    type: Annotated[str | None, Field(description="Only this type")] = None,
    agent_id: Annotated[str | None, Field(description="Only of this agent")] = None,
    since: Annotated[str | None, Field(description="Only from this ISO 8601 time on")] = None,
    cursor: Cursor = 0,
    limit: Limit = 100,
) -> Page:
    """Read what the agents of a task discovered, oldest first."""
    return paged(
        lambda rows: fleet.get_findings(
            task_id, severity=severity, type=type, agent_id=agent_id, since=since, cursor=cursor, limit=rows
        ),
        "findings",
        limit=limit,
        more="call get_findings again with cursor = next_cursor",
    )


def stop_agent(
    fleet: Headcount,
    agent_id: AgentId,
    reason: Annotated[str, Field(description="Why, for the record")] = "",
    grace: Annotated[
        float | None,
        Field(ge=0, le=40, description="Seconds between TERM and KILL. Default 10; 0 kills at once"),
    ] = None,
) -> Page:
    """End an agent and all of its processes: TERM, grace, KILL. Returns when it is over; lists survivors."""
    return page(fleet.stop_agent(agent_id, reason=reason, grace=grace))


def pause_task(
    fleet: Headcount,
    task_id: TaskId,
    stop: Annotated[bool, Field(description="Also end its live agents")] = False,
    reason: Annotated[str, Field(description="Why, for the record")] = "",
    grace: Annotated[
        float | None,
        Field(ge=0, le=40, description="With stop: seconds between TERM and KILL. Default 10"),
    ] = None,
) -> Page:
    """Let a task begin no run until resume_task: deploys, resumes and restarts are refused, messages wait.
    Live agents go on to their end unless stop is true."""
    return page(fleet.pause_task(task_id, stop=stop, reason=reason, grace=grace))


def resume_task(
    fleet: Headcount,
    task_id: TaskId,
    agents: Annotated[bool, Field(description="Also let go on those that its pause stopped")] = False,
) -> Page:
    """Let a paused task begin runs again; says which agents its pause stopped and which of them can go on."""
    return page(fleet.resume_task(task_id, agents=agents))


def read_events(
    fleet: Headcount,
    cursor: Cursor = 0,
    limit: Limit = 100,
    task_id: MaybeTask = None,
    agent_id: Annotated[str | None, Field(description="Only of this agent")] = None,
) -> Page:
    """Read the journal of everything that happened, oldest first, from behind a cursor."""
    return paged(
        lambda rows: fleet.read_events(cursor=cursor, limit=rows, task_id=task_id, agent_id=agent_id),
        "events",
        limit=limit,
        more="call read_events again with cursor = next_cursor",
    )


def registry_health_check(fleet: Headcount, task_id: MaybeTask = None) -> Page:
    """Compare the registry with the machine and change nothing: ghosts, strays, unfinished deploys, wrong
    identities, missing views, and all tmux sessions with their agents."""
    return page(fleet.registry_health_check(task_id=task_id), more="'headcount doctor --json' shows all")


def validate_and_repair_registry(
    fleet: Headcount,
    dry_run: Annotated[bool, Field(description="Only say what would be done")] = True,
    task_id: MaybeTask = None,
) -> Page:
    """Compare the registry with the machine and, with dry_run=false, make them agree. Never starts an
    agent."""
    return page(
        fleet.validate_and_repair_registry(dry_run=dry_run, task_id=task_id),
        more="'headcount repair --json' shows all",
    )


def update_agent_progress(
    fleet: Headcount,
    status: Annotated[Literal["working", "blocked", "done", "failed"], Field(description="How you stand")],
    message: Annotated[str, Field(description="What you did and what comes next")],
    progress: Annotated[int | None, Field(ge=0, le=100, description="Percent")] = None,
    agent_id: Annotated[str | None, Field(description="Not needed: your token says who you are")] = None,
) -> Page:
    """Report your own progress: when you begin, at each milestone, when you are blocked, and at the end."""
    return page(fleet.update_agent_progress(status, message, progress=progress, agent_id=agent_id))


def report_agent_finding(
    fleet: Headcount,
    finding_type: Annotated[
        str, Field(description="issue, solution, insight, recommendation or your own word")
    ],
    message: Annotated[str, Field(description="What you found, and where")],
    severity: Annotated[
        Literal["critical", "high", "medium", "low", "info"], Field(description="How much it matters")
    ] = "info",
    data: Annotated[dict[str, Any] | None, Field(description="Facts in any form")] = None,
    agent_id: Annotated[str | None, Field(description="Not needed: your token says who you are")] = None,
) -> Page:
    """Report something you discovered that others of the task should know, at once."""
    return page(
        fleet.report_agent_finding(finding_type, message, severity=severity, data=data, agent_id=agent_id)
    )


def _own_id(fleet: Headcount) -> str:
    context: Context = fleet.context
    if context.caller.agent_id is None:
        raise NotAllowed("only an agent has children", hint="use deploy_headless_agent")
    return context.caller.agent_id


TOOLS: Final[tuple[Tool, ...]] = (
    Tool(create_task, answers.TaskFacts, "Create a task", PERSON, once=True),
    Tool(deploy_headless_agent, answers.Deployed, "Deploy an agent", PERSON, once=True, slow=True),
    Tool(update_agent_progress, answers.Reported, "Report progress", AGENT, once=True, late=True),
    Tool(report_agent_finding, answers.Reported, "Report a finding", AGENT, once=True, late=True),
    Tool(spawn_child_agent, answers.Deployed, "Deploy a child agent", AGENT, once=True, slow=True),
    Tool(
        wait_for_agents,
        answers.Waited,
        "Wait for agents",
        BOTH,
        reads_only=True,
        repeats_well=True,
        slow=True,
    ),
    Tool(get_task_status, answers.TaskStatus, "Status of a task", BOTH, reads_only=True, repeats_well=True),
    Tool(get_agent_output, OutputPage, "Read an agent's output", BOTH, reads_only=True, repeats_well=True),
    Tool(get_findings, answers.FindingList, "Read findings", BOTH, reads_only=True, repeats_well=True),
    Tool(list_agents, answers.AgentList, "List agents", BOTH, reads_only=True, repeats_well=True),
    Tool(
        list_harnesses,
        answers.HarnessList,
        "List harnesses",
        BOTH,
        reads_only=True,
        repeats_well=True,
        slow=True,
    ),
    Tool(list_worktrees, answers.WorktreeList, "List worktrees", PERSON, reads_only=True, repeats_well=True),
    Tool(resume_agent, answers.Deployed, "Resume an agent", BOTH, once=True, slow=True),
    Tool(send_message, answers.Sent, "Tell an agent something", BOTH, once=True, slow=True),
    Tool(list_messages, answers.MessageList, "List messages", BOTH, reads_only=True, repeats_well=True),
    Tool(cancel_turn, answers.Cancelled, "Cancel a turn", BOTH, slow=True),
    Tool(get_agent, answers.AgentWhole, "All about an agent", BOTH, reads_only=True, repeats_well=True),
    Tool(
        get_postmortem,
        answers.PostMortem,
        "Post-mortem of a run",
        BOTH,
        reads_only=True,
        repeats_well=True,
        slow=True,
    ),
    Tool(explain_agent, answers.Explained, "Explain an agent", BOTH, reads_only=True, repeats_well=True),
    Tool(list_approvals, answers.ApprovalList, "List approvals", BOTH, reads_only=True, repeats_well=True),
    Tool(answer_approval, answers.Approved, "Allow or deny", BOTH, slow=True),
    Tool(list_tasks, answers.TaskList, "List tasks", PERSON, reads_only=True, repeats_well=True),
    Tool(read_events, answers.EventList, "Read the journal", PERSON, reads_only=True, repeats_well=True),
    Tool(pause_task, answers.PausedTask, "Pause a task", PERSON, destroys=True, repeats_well=True, slow=True),
    Tool(resume_task, answers.UnpausedTask, "Resume a task", PERSON, repeats_well=True, slow=True),
    Tool(stop_agent, answers.Stopped, "Stop an agent", PERSON, destroys=True, repeats_well=True, slow=True),
    Tool(
        registry_health_check,
        answers.Health,
        "Check the registry",
        PERSON,
        reads_only=True,
        repeats_well=True,
    ),
    Tool(
        validate_and_repair_registry,
        answers.Health,
        "Repair the registry",
        PERSON,
        destroys=True,
        repeats_well=True,
        slow=True,
    ),
)
"""In the order in which they are listed, always."""

BY_NAME: Final[Mapping[str, Tool]] = {tool.name: tool for tool in TOOLS}


def mine(who: Who) -> tuple[str, ...]:
    """Return the names of the tools that this kind of caller has."""
    return tuple(tool.name for tool in TOOLS if who in tool.who)
