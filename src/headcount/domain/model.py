"""The data that the parts hand to each other. Frozen, typed, without behaviour that touches the world.

Times are seconds since the epoch (`float`) inside; answers for users carry ISO 8601 UTC strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from headcount.domain.lifecycle import LIVE, Outcome, State


class TaskState(StrEnum):
    """A task takes new agents only while it is open."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"
    ARCHIVED = "archived"


class Severity(StrEnum):
    """How much a finding matters, most severe first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


class ReportStatus(StrEnum):
    """What an agent says of itself. It never moves the state of its run."""

    WORKING = "working"
    BLOCKED = "blocked"
    DONE = "done"
    FAILED = "failed"


class Why(StrEnum):
    """What made a run begin."""

    DEPLOY = "deploy"
    RESUME = "resume"
    CRASH = "crash"  # of the run before
    MESSAGE = "message"  # to an agent that was over


class Isolation(StrEnum):
    """Where an agent works."""

    SHARED = "shared"  # in the project itself, as everybody
    WORKTREE = "worktree"  # in a git worktree of its own


class WorktreeState(StrEnum):
    """What has become of a worktree that was made for an agent."""

    MAKING = "making"
    THERE = "there"
    REMOVING = "removing"
    REMOVED = "removed"


class Form(StrEnum):
    """How an agent's program runs."""

    HEADLESS = "headless"
    INTERACTIVE = "interactive"  # on a terminal, for a person who has taken it over


TERMINAL: Final = "terminal"
"""By what a run on a terminal is read and judged, whatever its harness: what appeared, and the exit code."""


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """One run: the agent's id and the run number, which is the fencing token."""

    agent_id: str
    n: int

    def __str__(self) -> str:
        return f"{self.agent_id}.{self.n}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for another.

    `ticks` is field 22 of /proc/PID/stat (start time in clock ticks since boot), or an equivalent
    that is equal for the same process and differs for a later one with the same pid.
    """

    pid: int
    ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Message:
    """One line of the conversation that led to a task."""

    role: str
    content: str
    timestamp: str | None = None


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What an agent should know of its task besides the description."""

    background: str = ""
    deliverables: tuple[str, ...] = ()
    success_criteria: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    relevant_files: tuple[str, ...] = ()
    conversation: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a fleet. Defaults are those of the README; a task may set its own four."""

    machine_max_live: int = 50
    task_max_live: int = 20
    task_max_agents: int = 45
    max_depth: int = 5
    spawn_rate: int = 10
    spawn_window: float = 10.0  # seconds; an agent may deploy `spawn_rate` children in any such span
    rights_shrink: bool = True  # what an agent deploys gets no further than it does itself
    min_disk_mb: int = 100
    min_memory_mb: int = 256
    prompt_max_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work for one or more agents."""

    task_id: str
    description: str
    priority: str
    project: str
    state: TaskState
    context: TaskContext
    max_live: int
    max_agents: int
    max_depth: int
    spawn_rules: Mapping[str, tuple[str, ...]] | None
    created_at: float
    closed_at: float | None = None
    isolation: Isolation = Isolation.SHARED  # of its agents, unless a deploy says otherwise
    setup: tuple[str, ...] = ()  # argv, run in each new worktree
    policy: Mapping[str, Any] = field(default_factory=dict)  # domain.policy, what differs; by role too


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A live row of the registry with what a plan needs; `deployer` settles a reserved one.

    `reserved_boottime` is comparable within the deployer's boot; 0.0: before anything that was seen.
    """

    key: RunKey
    task_id: str
    role: str
    state: State
    harness: str
    path: str
    deployer: Process
    runner: Process | None
    process: Process | None
    stop_reason: str | None
    options: Mapping[str, object] = field(default_factory=dict)
    reserved_boottime: float = 0.0
    form: Form = Form.HEADLESS

    @property
    def read_by(self) -> str:
        """Return the name of the harness that can read and judge it."""
        return self.harness if self.form is Form.HEADLESS else TERMINAL


@dataclass(frozen=True, slots=True)
class Run:
    """A row of the registry: one process life of an agent, with its agent's facts."""

    key: RunKey
    task_id: str
    role: str
    parent: str | None
    depth: int
    harness: str
    state: State
    outcome: Outcome | None
    path: str
    deployer: Process
    runner: Process | None
    process: Process | None
    reserved_at: float
    started_at: float | None
    ended_at: float | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    stop_reason: str | None
    survivors: tuple[int, ...]
    view_failures: int
    result: Mapping[str, object] | None
    usage: Mapping[str, object] | None
    options: Mapping[str, object] = field(default_factory=dict)  # domain.options, what differs
    session_id: str | None = None  # the program's own conversation
    resumes: int | None = None  # the run whose conversation this one continues
    why: Why = Why.DEPLOY
    ending: str | None = None  # domain.account.Ending, of one that has ended
    account: Mapping[str, Any] | None = None  # domain.account, once it is made
    takes_role: bool = True  # False: a double was asked for
    takes_work: bool = True
    form: Form = Form.HEADLESS

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def read_by(self) -> str:
        """Return the name of the harness that can read and judge it."""
        return self.harness if self.form is Form.HEADLESS else TERMINAL


@dataclass(frozen=True, slots=True)
class Agent:
    """What an agent was deployed as: the same for all of its runs."""

    agent_id: str
    task_id: str
    role: str
    parent: str | None
    depth: int
    harness: str
    options: Mapping[str, object]  # domain.options, what differs
    resume_on_crash: int  # how often, at most
    work_hash: str | None
    command: tuple[str, ...]
    cwd: str
    prompt: str | None
    created_at: float
    isolation: Isolation = Isolation.SHARED
    policy: Mapping[str, Any] = field(default_factory=dict)  # domain.policy, what differs


@dataclass(frozen=True, slots=True)
class Worktree:
    """A git worktree that was made, or is to be made, for an agent. It belongs to the agent, not to a run."""

    agent_id: str
    repository: str  # the common git directory
    path: str
    branch: str
    base: str  # the commit that it began at
    state: WorktreeState
    made_at: float
    tip: str | None = None  # the commit that it was at when it was removed
    trash_ref: str | None = None  # where what only it had was kept
    trashes: int = 0  # how many such refs were made
    result: Mapping[str, Any] | None = None  # as it was at the end of the latest run that is over
    removed_at: float | None = None
    seq: int = 0  # order of making


class LockState(StrEnum):
    """What a probe of a run's lock said. Unknown never changes a row."""

    HELD = "held"
    FREE = "free"
    UNKNOWN = "unknown"


class Presence(StrEnum):
    """Whether a process is there."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class StartRecord:
    """What a runner wrote before it let the harness begin."""

    runner: Process
    process: Process
    pidns: str
    started_at: float
    layers: tuple[str, ...]
    cgroup: str | None


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What a runner wrote when nothing of its run was left; exactly one of code and signal is set,
    but for a run whose harness never began (`error`)."""

    code: int | None
    signal: int | None
    error: str | None
    stopped: bool
    started_at: float | None
    ended_at: float
    max_rss_kb: int
    cpu_ms: int
    output_bytes: int
    output_cut: int
    stderr_bytes: int
    stderr_cut: int
    survivors: tuple[int, ...] = ()
    oom_kills: int | None = (
        None  # processes that the kernel killed for want of memory; None: it cannot be told
    )


@dataclass(frozen=True, slots=True)
class VoidRecord:
    """Proof that a run was never started and never will be."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at one run directory. The lock was probed first, the records read after it:
    a free lock makes the records final."""

    key: RunKey
    path: str
    lock: LockState
    runner_pid: int | None = None
    start: StartRecord | None = None
    exit: ExitRecord | None = None
    void: VoidRecord | None = None
    deployer: Presence = Presence.UNKNOWN
    marked: bool = True  # it stands in live/
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """All that a run needs, as it is written into the run directory. No secret is in it."""

    key: RunKey
    task_id: str
    role: str
    parent: str | None
    depth: int
    harness: str
    model: str | None
    effort: str | None
    argv: tuple[str, ...]
    cwd: str
    prompt: str | None
    stdin: bytes | None
    files: Mapping[str, bytes]
    grace: float
    output_cap: int
    deployer: Process
    reserved_at: float
    renders: bool = False  # the harness's stream needs rendering for people
    rows: Mapping[str, object] = field(default_factory=dict)  # task and agent, to rebuild a registry from
    interrupts: bool = False  # a stop begins with SIGINT to the agent itself, so that it says its last words


@dataclass(frozen=True, slots=True)
class Started:
    """What a confirmed start gave."""

    runner: Process
    process: Process
    started_at: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. A person has no agent; an agent is known by its token or by the tree it runs in.

    `env` holds the allow-listed variables of the caller, never the daemon's own.
    """

    agent_id: str | None = None
    run: int | None = None
    cwd: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    dropped_env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent said of its own progress; `late` came after the end of its run."""

    id: int
    agent_id: str
    run: int
    task_id: str
    status: ReportStatus
    message: str
    progress: int | None
    late: bool
    at: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What an agent discovered; it belongs to the task and outlives the run."""

    id: int
    agent_id: str
    run: int
    task_id: str
    type: str
    severity: Severity
    message: str
    data: Mapping[str, object]
    late: bool
    at: float


@dataclass(frozen=True, slots=True)
class FindingCounts:
    """How many findings a task has; names that count 0 are left out, the most severe stands first."""

    total: int
    by_severity: Mapping[str, int]
    by_type: Mapping[str, int]


class Way(StrEnum):
    """How a message reaches an agent."""

    STEER = "steer"  # in the middle of its work
    REPORT = "report"  # with the answer to its next report
    RESUME = "resume"  # in the prompt of a run that goes on with its conversation


class MessageState(StrEnum):
    """What has become of a message."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AgentMessage:
    """A message for an agent, whatever run of it it reaches. `sender` None: a person."""

    id: int
    task_id: str
    agent_id: str
    sender: str | None
    text: str
    state: MessageState
    way: Way | None
    run: int | None
    reason: str | None
    at: float
    delivered_at: float | None


@dataclass(frozen=True, slots=True)
class Used:
    """What runs used together. A sum is of what is known, None if nothing is; `cost_unknown` counts the runs
    of which it is known that a model worked, and not what that cost."""

    runs: int
    unaccounted: int  # live, or just over
    input: int | None
    output: int | None
    cached: int | None
    reasoning: int | None
    cost_usd: float | None
    cost_unknown: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The daemon's last sign of life. `monotonic` stops while the machine sleeps; `longest` is the longest
    headcount of that daemon so far, in seconds."""

    pid: int
    boot_id: str
    at: float
    monotonic: float
    headcounts: int
    longest: float


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal; `seq` grows and is the cursor."""

    seq: int
    at: float
    kind: str
    task_id: str | None
    agent_id: str | None
    run: int | None
    reason: str | None
    data: Mapping[str, object]
