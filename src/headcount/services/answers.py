"""What the services answer: plain facts, the same at every door. Times are ISO 8601 UTC strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime


def iso(at: float | None) -> str | None:
    """Return epoch seconds as `2026-11-23T04:35:00.123Z`."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task as it was created, and where it stands."""

    task_id: str
    description: str
    priority: str
    project: str
    state: str
    max_live: int
    max_agents: int
    max_depth: int
    spawn_rules: Mapping[str, tuple[str, ...]] | None
    created_at: str
    closed_at: str | None
    isolation: str = "shared"  # of its agents, unless a deploy says otherwise
    setup: tuple[str, ...] = ()  # run in each new worktree
    policy: Mapping[str, object] = field(default_factory=dict)  # what the watchdog holds its agents to


@dataclass(frozen=True, slots=True)
class TaskList:
    """Newest first; `next_cursor` continues, None at the end."""

    tasks: tuple[TaskFacts, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Deployed:
    """A confirmed deploy. `repeated`: an earlier deploy with the same idempotency key is answered again."""

    agent_id: str
    run: int
    task_id: str
    role: str
    parent: str | None
    depth: int
    state: str
    pid: int | None  # of the agent itself
    runner_pid: int | None
    tmux_session: str | None
    guidance: str  # how much the agent may delegate in its turn
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """One agent by its latest run. `state` and `outcome` are observed; `progress`, `reported` and
    `message` are what the agent last said of itself."""

    agent_id: str
    task_id: str
    role: str
    parent: str | None
    depth: int
    harness: str
    run: int
    form: str  # headless, or interactive: a person has taken it over
    state: str
    outcome: str | None
    ending: str | None  # the end of its work in a word: finished, turn_limit, rate_limited, bad_result, ...
    exit_code: int | None
    signal: int | None
    reason: str | None
    pid: int | None
    runner_pid: int | None
    tmux_session: str | None
    started_at: str | None
    ended_at: str | None
    progress: int | None
    reported: str | None
    message: str | None
    reported_at: str | None
    survivors: tuple[int, ...]
    layers: tuple[str, ...]  # what holds the tree together: subreaper, cgroup, pdeathsig
    result: Mapping[str, object] | None
    usage: Mapping[str, object] | None
    flags: tuple[str, ...]  # what the watchdog sees on it now


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run of an agent. `account` is what it used and did: of one that is over, as soon as it is made."""

    run: int
    why: str  # deploy, resume, crash (of the run before) or message
    form: str  # headless, or interactive: taken over by a person
    state: str
    outcome: str | None
    ending: str | None
    reason: str | None
    exit_code: int | None
    signal: int | None
    reserved_at: str
    started_at: str | None
    ended_at: str | None
    session_id: str | None  # the program's own conversation
    resumes: int | None  # the run whose conversation this one goes on with
    path: str
    account: Mapping[str, object] | None
    result: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class WorktreeFacts:
    """The git worktree of an agent. `state`: making, there, missing (somebody has deleted its directory),
    removing or removed. `result` is what its last run left there: commits, files that differ from the base,
    and those that are not committed; or an `error` of git's."""

    agent_id: str
    state: str
    live: bool  # a run of its agent is
    path: str
    branch: str
    repository: str
    base: str  # the commit that it began at
    made_at: str
    removed_at: str | None
    trash_ref: str | None  # where what only it had was kept when it was removed
    result: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class WorktreeList:
    """Newest first; `next_cursor` continues, None at the end."""

    worktrees: tuple[WorktreeFacts, ...]
    next_cursor: int | None


@dataclass(frozen=True, slots=True)
class WorktreeDiff:
    """How a worktree differs from its base, as git prints it, new files included; not `whole` if cut."""

    agent_id: str
    base: str
    branch: str
    diff: str
    whole: bool


@dataclass(frozen=True, slots=True)
class WorktreeRemoved:
    """What became of a worktree that was removed, and where what it had is."""

    agent_id: str
    path: str
    branch: str
    trash_ref: str | None  # of the snapshot, if one was asked for
    trash: str | None  # where its directory is now


@dataclass(frozen=True, slots=True)
class AgentWhole(AgentFacts):
    """All that is known of one agent: how it was deployed, and each of its runs, the earliest first."""

    description: str  # of its task
    prompt: str | None
    command: tuple[str, ...]
    options: Mapping[str, object]
    cwd: str
    resume_on_crash: int
    created_at: str
    session_id: str | None  # the conversation of its latest run
    path: str  # the run directory of its latest run
    isolation: str
    worktree: WorktreeFacts | None
    runs: tuple[RunFacts, ...]
    policy: Mapping[str, object]  # what the watchdog holds it to, all layers together


@dataclass(frozen=True, slots=True)
class PostMortem:
    """What is known of the end of a run, kept as it was when it was made.

    `account` is what it used and did, None if that is unknown. `files` were changed since its start:
    `source` is worktree (the agent's own), git (the project's, by whomever) or none. `unknown` says what
    nobody knows.
    """

    agent_id: str
    run: int
    task_id: str
    role: str
    harness: str
    state: str
    outcome: str | None
    ending: str | None
    how: str  # the end in words
    reason: str | None
    exit_code: int | None
    signal: int | None
    started_at: str | None
    ended_at: str | None
    ran_s: float | None
    stop: Mapping[str, object] | None  # by whom it was asked for, when and why
    out_of_memory: Mapping[str, object]  # killed (None: unknown), evidence
    survivors: tuple[int, ...]
    unknown: tuple[str, ...]
    last_report: Mapping[str, object] | None
    last_tool_call: str | None
    near_limits: tuple[Mapping[str, object], ...]  # limit, value, used, of: run, task or machine
    flags: tuple[Mapping[str, object], ...]  # what the watchdog saw
    runs: tuple[Mapping[str, object], ...]  # of the agent so far: why each began and how it ended
    files: Mapping[str, object]
    account: Mapping[str, object] | None
    entries: tuple[Mapping[str, object], ...]  # the last of its output
    stderr: str  # the end of it
    made_at: str


@dataclass(frozen=True, slots=True)
class SignalFacts:
    """One thing that is known of a run, in words, and since when."""

    name: str
    value: str
    since: str | None


@dataclass(frozen=True, slots=True)
class FlagFacts:
    """What the watchdog saw on a run. `action` is what its policy says; `acted_at` and `done_at` say how far
    that is, a `reason` why it was left undone."""

    kind: str
    means: str
    run: int
    evidence: Mapping[str, object]
    raised_at: str
    cleared_at: str | None  # it is no longer so
    action: str
    acted_at: str | None
    done_at: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Explained:
    """Why an agent stands as it does, by its latest run, and what would change it; flags: latest first."""

    agent_id: str
    run: int
    state: str
    outcome: str | None
    ending: str | None
    why: str
    signals: tuple[SignalFacts, ...]
    flags: tuple[FlagFacts, ...]
    changes: tuple[str, ...]
    policy: Mapping[str, object]  # what the watchdog holds it to


@dataclass(frozen=True, slots=True)
class UsedFacts:
    """What the runs of a task used together, as far as it is known: None is unknown, which is never 0.

    `unaccounted` runs are live or just over; of `cost_unknown` runs it is known that a model worked, and
    not what that cost.
    """

    runs: int
    unaccounted: int
    input: int | None
    output: int | None
    cached: int | None
    reasoning: int | None
    cost_usd: float | None
    cost_unknown: int


@dataclass(frozen=True, slots=True)
class AgentList:
    """Newest first; `next_cursor` continues, None at the end."""

    agents: tuple[AgentFacts, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What an agent said of its own progress. `late`: after the end of its run."""

    id: int
    agent_id: str
    task_id: str
    run: int
    at: str
    status: str
    message: str
    progress: int | None
    late: bool


@dataclass(frozen=True, slots=True)
class FindingFacts:
    """What an agent discovered."""

    id: int
    agent_id: str
    task_id: str
    run: int
    at: str
    type: str
    severity: str
    message: str
    data: Mapping[str, object]
    late: bool


@dataclass(frozen=True, slots=True)
class FindingList:
    """Oldest first; pass `next_cursor` to get only newer ones. Counts are over the whole task."""

    task_id: str
    findings: tuple[FindingFacts, ...]
    by_severity: Mapping[str, int]
    by_type: Mapping[str, int]
    next_cursor: int
    more: bool


@dataclass(frozen=True, slots=True)
class EventFacts:
    """A line of the journal."""

    seq: int
    at: str
    kind: str
    task_id: str | None
    agent_id: str | None
    run: int | None
    reason: str | None
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class EventList:
    """Oldest first; pass `next_cursor` to get only newer ones."""

    events: tuple[EventFacts, ...]
    next_cursor: int
    more: bool


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Where a task stands. `counts` are derived from the rows at the time of asking."""

    task: TaskFacts
    agents: tuple[AgentFacts, ...]  # live ones first, then the latest ended ones
    counts: Mapping[str, int]  # by state, ended ones by outcome; "live" and "total" too
    refusals: Mapping[str, int]  # refused deploys by reason
    findings_by_severity: Mapping[str, int]
    recent_reports: tuple[ReportFacts, ...]
    recent_findings: tuple[FindingFacts, ...]
    used: UsedFacts
    halted: bool


@dataclass(frozen=True, slots=True)
class Waited:
    """What a wait saw. `done` False: time ran out, nothing is wrong, ask again with `cursor`.

    Of a task, `agents` has all that are live and those of its newest 1,000 that are over. `ended` counts all
    that are over, `failed` those of them that did not complete. If `any` was asked for with a cursor, they
    tell only of those that ended behind it.
    """

    done: bool
    until: str
    agents: tuple[AgentFacts, ...]
    pending: tuple[str, ...]
    waited_s: float
    cursor: str | None
    hint: str
    ended: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """What became of an agent that was to stop."""

    agent_id: str
    run: int
    state: str
    outcome: str | None
    exit_code: int | None
    signal: int | None
    survivors: tuple[int, ...]
    was_live: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class StopList:
    """One line for each agent that was asked to stop."""

    stopped: tuple[Stopped, ...]


@dataclass(frozen=True, slots=True)
class Halted:
    """The emergency stop: in force or lifted."""

    halted: bool
    stopped: tuple[Stopped, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class PausedTask:
    """A task that begins no run until it is resumed; `live` agents of it go on to their own end."""

    task: TaskFacts
    live: tuple[str, ...]
    stopped: tuple[Stopped, ...] = ()


@dataclass(frozen=True, slots=True)
class PausedAgent:
    """An agent that a pause stopped. `state`: can_resume, resumed (in `run`), cannot_resume (and `why`)."""

    agent_id: str
    role: str
    state: str
    run: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class UnpausedTask:
    """A task that may begin runs again, and the agents that its pause stopped."""

    task: TaskFacts
    agents: tuple[PausedAgent, ...]


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """A message for an agent. `way` is how it reached, or is to reach, the agent: steer (in its work), report
    (with the answer to its next report) or resume (in the prompt of a further run); None: it waits."""

    id: int
    agent_id: str
    sender: str | None  # None: a person
    text: str
    state: str  # queued, delivered or failed
    way: str | None
    run: int | None  # that it reached, or is to reach
    reason: str | None  # why it failed
    at: str
    delivered_at: str | None


@dataclass(frozen=True, slots=True)
class MessageList:
    """Newest first; `next_cursor` continues, None at the end."""

    agent_id: str
    messages: tuple[MessageFacts, ...]
    next_cursor: int | None


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message so far, and which way it goes; see `MessageFacts`."""

    id: int
    agent_id: str
    state: str
    way: str | None
    run: int | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to the wish to end a turn. `state`: cancelled, failed, or asked: nobody answered yet."""

    agent_id: str
    run: int
    state: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalFacts:
    """What an agent asks before it does it. `kind` is what the tool does: execute, edit, fetch, other ..."""

    id: str
    agent_id: str
    run: int
    task_id: str
    tool: str
    title: str
    kind: str
    arguments: str  # as JSON, perhaps cut
    asked_at: str | None
    expires_at: str | None  # then it is denied


@dataclass(frozen=True, slots=True)
class ApprovalList:
    """What live agents ask at the moment, the oldest first."""

    approvals: tuple[ApprovalFacts, ...]


@dataclass(frozen=True, slots=True)
class Approved:
    """What became of a question: allowed, denied, expired, withdrawn; answered: not acted on yet."""

    id: str
    agent_id: str
    state: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """The answer to a report or a finding. `id` is its number in the registry, kept for ever."""

    id: int
    agent_id: str
    run: int
    late: bool
    note: str
    live_peers: tuple[str, ...] = ()
    messages: tuple[MessageFacts, ...] = ()  # for the agent that reports, each handed over once


@dataclass(frozen=True, slots=True)
class HookFacts:
    """A notification hook of the settings. `wrong` says what can be seen to be wrong with it; the counts are
    of what it was or is to be told."""

    name: str
    how: str  # command, webhook or desktop
    to: str
    on: tuple[str, ...]  # kinds of events
    tasks: tuple[str, ...]  # none: of any
    queued: int
    delivered: int
    dead: int  # after so many tries
    last_failure: str | None
    wrong: str


@dataclass(frozen=True, slots=True)
class HookList:
    """In their order in the settings."""

    hooks: tuple[HookFacts, ...]


@dataclass(frozen=True, slots=True)
class Tested:
    """Whether a hook took what it was told; `note` says why not."""

    name: str
    how: str
    delivered: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One disagreement between the registry and the machine, and what a repair does about it."""

    # ghost, stray, unfinished, wrong_identity, view_missing, foreign_session, rowless, earlier_boot, unknown
    kind: str
    subject: str
    detail: str
    # what repair does: record_end, record_lost, reap, adopt, void, kill_stray, unmark, show_view, close_view,
    # settle_worktree, none
    action: str
    agent_id: str | None = None
    run: int | None = None
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session of the view server and the agent that it belongs to."""

    name: str
    agent_id: str | None
    known: bool  # a live agent of the registry has this name


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `headcount doctor`. `ok` None: could not be told."""

    name: str
    ok: bool | None
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The systemd user unit of this home's daemon. `current`: the file says what it would say now. `why`: no
    systemd can be asked, and then `state` and `lingers` are not known."""

    name: str
    path: str
    unit: str
    installed: bool
    current: bool
    state: str
    lingers: bool | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class HarnessFacts:
    """One harness. `state`: ready; missing, too_old or not_ready (its program is, and `why`); broken (of
    another package, which cannot be used). `logged_in` None: nobody can tell."""

    name: str
    state: str
    program: str | None  # None: there is no one program
    version: str | None
    path: str | None
    logged_in: bool | None
    why: str
    hint: str  # what would make it work
    package: str | None  # of whom it is, if not our own
    abilities: tuple[str, ...]
    permissions: tuple[str, ...]  # those that it can hold its program to
    efforts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HarnessList:
    """Our own first, by name."""

    harnesses: tuple[HarnessFacts, ...]


@dataclass(frozen=True, slots=True)
class HarnessWhole(HarnessFacts):
    """All that is known of one harness."""

    oldest: str | None  # version that is known to work
    install: str
    login: str  # how to log in
    login_by: tuple[str, ...]  # variables and files, any of which logs it in
    needs_prompt: bool
    needs_command: bool
    lacks: tuple[str, ...]  # abilities; what needs one is refused
    variables: tuple[str, ...]  # of the caller's that its agents get too; * is whatever follows


@dataclass(frozen=True, slots=True)
class Health:
    """The headcount. `healthy` is true when registry and machine agree."""

    healthy: bool
    live_rows: int
    live_runs: int
    sessions_count: int
    ghosts: tuple[Problem, ...]
    strays: tuple[Problem, ...]
    unfinished: tuple[Problem, ...]
    wrong_identities: tuple[Problem, ...]
    views_missing: tuple[Problem, ...]
    foreign_sessions: tuple[Problem, ...]
    rowless: tuple[Problem, ...]
    earlier_boot: tuple[Problem, ...]
    unknown: tuple[Problem, ...]
    sessions: tuple[SessionFacts, ...]
    dry_run: bool = True
    done: tuple[Problem, ...] = ()  # what a repair did


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`headcount doctor`: the headcount and the state of everything it stands on."""

    healthy: bool
    ghosts: tuple[Problem, ...]
    strays: tuple[Problem, ...]
    unfinished: tuple[Problem, ...]
    views_missing: tuple[Problem, ...]
    sessions: tuple[SessionFacts, ...]
    checks: tuple[Check, ...]
    home: str
    tmux_socket: str
    daemon_socket: str
    env_kept: tuple[str, ...]
    env_dropped: tuple[str, ...]
    env_of_harness: Mapping[str, tuple[str, ...]]  # what only agents of that harness get


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What `up` or `down` left: whether a daemon runs, the pid of the one that does or did, and how many
    agents are live, which neither of them touches."""

    running: bool
    changed: bool  # it was started, or ended, by this call
    pid: int | None
    socket: str
    live_agents: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What `gc` would take, or took, away."""

    dry_run: bool
    runs: tuple[str, ...]
    bytes: int
    events: int
    trash: str | None
    kept_live: int
    worktrees: tuple[str, ...] = ()  # of these agents: clean, unused and merged


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild of the registry restored and what could not be had back."""

    from_backup: str | None
    quarantined: str | None
    tasks: int
    agents: int
    runs: int
    lost: tuple[str, ...] = field(default=())
