"""All commands by name: where each is found and what it is for.

Standard library only, and little of it: `headcount --help` is drawn from here without loading anything else.
"""

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    # name: (the module of this package where the command bears its name, its short help)
    "Work": {
        "run": ("run", "Run a prompt with one or more agents and show the result."),
        "task": ("task", "Create, list, show, pause, close or archive tasks."),
        "deploy": ("deploy", "Deploy one agent for a task."),
        "resume": ("resume", "Let an agent that is over go on."),
        "takeover": ("takeover", "Go on with an agent's conversation yourself."),
        "handback": ("takeover", "Let an agent that was taken over go on headless."),
        "send": ("messages", "Tell an agent something."),
        "approvals": ("approvals", "Show what agents ask; allow or deny it."),
        "cancel": ("messages", "End what an agent does at the moment."),
        "wait": ("wait", "Wait until agents have ended."),
        "stop": ("stop", "Stop agents: TERM, grace, KILL."),
        "kill": ("stop", "End agents and all their processes at once."),
    },
    "See": {
        "ps": ("ps", "Show the agents as a tree."),
        "status": ("status", "Show where a task stands."),
        "show": ("agent", "Show all that is known of an agent."),
        "explain": ("explain", "Explain the state of an agent."),
        "postmortem": ("postmortem", "Show what is known of the end of a run."),
        "logs": ("logs", "Show what an agent wrote."),
        "attach": ("attach", "Go to a live agent's tmux session."),
        "messages": ("messages", "Show what an agent was told."),
        "worktree": ("worktree", "List, compare, remove or bring back agents' worktrees."),
        "findings": ("findings", "Show what the agents of a task discovered."),
        "events": ("events", "Show the registry's journal."),
    },
    "Inside an agent": {
        "report": ("report", "Report your own progress."),
        "finding": ("report", "Report something that you discovered."),
        "spawn": ("deploy", "Deploy a child of your own for the same task."),
    },
    "Machine": {
        "up": ("daemon", "Start the daemon."),
        "down": ("daemon", "Stop the daemon; agents go on."),
        "service": ("service", "Have systemd keep the daemon alive."),
        "halt": ("stop", "End every live agent and refuse new ones."),
        "connect": ("connect", "Register Headcount in an MCP client."),
        "mcp": ("daemon", "Serve MCP on stdin and stdout, for a client to start."),
        "harness": ("harness", "List the harnesses, and what each can do."),
        "notify": ("notify", "List or test the hooks that tell you what happens."),
        "doctor": ("doctor", "Check that the count is right, and what it stands on."),
        "repair": ("doctor", "Make registry and machine agree."),
        "audit": ("audit", "Prove the guarantees in a scratch home."),
        "gc": ("gc", "Move old run directories to the trash."),
        "demo": ("demo", "Watch a fleet do a whole job."),
        "version": ("version", "Show versions."),
        "completion": ("completion", "Print the completion script of a shell."),
    },
}

COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

_HEAD = """\
Usage: headcount COMMAND ...

  Deploy, track and supervise fleets of headless coding agents.
  The count is right.
"""

_TAIL = """\
Every command takes --help and, where it answers, --json.

Exit codes: 0 done, 1 the work failed or is unhealthy, 2 usage, 3 refused by
a limit or rule, 4 not found, 5 infrastructure, 6 a wait ran out.
HEADCOUNT_HOME moves all state. To begin: headcount demo, headcount run --help
"""


def overview() -> str:
    """Return what `headcount --help` says."""
    parts = [_HEAD]
    for title, section in SECTIONS.items():
        lines = "".join(f"  {name:<12}{short}\n" for name, (_, short) in section.items())
        parts.append(f"{title}:\n{lines}")
    return "\n".join([*parts, _TAIL])
