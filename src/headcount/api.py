"""The Python API: `Headcount` does everything that the doors do.

It is also the composition root's product: the doors translate to these methods and render the answers.
Each method imports its service when it is first called: a command line that lists agents does not pay for
what deploys them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from headcount.domain.model import Caller
    from headcount.domain.output import OutputPage
    from headcount.services import answers
    from headcount.services.context import Context


class Headcount:
    """A fleet of agents: one registry, its runs, and what one may do with them.

    Safe to use from many threads and many processes at once; correctness rests on the registry alone.
    Answers are frozen dataclasses with plain values; times in them are ISO 8601 in UTC. What is not done
    is raised as a `HeadcountError`, with a `code`, a `message` and a `hint` at what to do next.

    Every example below runs as a test. In them `fleet` is an open fleet, and `task` the id of a task in it.

    >>> from headcount import Headcount
    >>> with Headcount() as fleet:
    ...     task = fleet.create_task("Tidy the parser", project=".").task_id
    ...     agent = fleet.deploy(task, role="builder", harness="command", command=["echo", "tidy"])
    ...     done = fleet.wait_for_agents([agent.agent_id])
    ...     print(done.agents[0].outcome, fleet.get_agent_output(agent.agent_id).text)
    completed tidy
    <BLANKLINE>
    """

    def __init__(self, home: str | Path | None = None, **settings: Any) -> None:
        """Open the fleet in `home` (default: `HEADCOUNT_HOME`, or the platform's state directory).

        `settings` override the settings file and the environment.

        >>> Headcount(task_max_live=5).create_task("Tidy the parser", project=".").max_live
        5

        Raises:
            InvalidInput: an unknown setting, or one of a wrong type.
            Infrastructure: the home cannot be used.
        """
        from headcount import bootstrap

        self._context: Context = bootstrap.context(home, settings)

    @classmethod
    def of(cls, context: Context) -> Headcount:
        """Return the fleet of a context that was made elsewhere: by the daemon, or with other parts.

        >>> Headcount.of(fleet.context).list_tasks().tasks[0].task_id == task
        True
        """
        made = cls.__new__(cls)
        made._context = context  # noqa: SLF001  # its own
        return made

    @property
    def context(self) -> Context:
        """Return what this fleet stands on: settings, home, registry, placement, views and who asks.

        >>> fleet.context.settings.limits.task_max_live
        20
        """
        return self._context

    def acting_as(self, caller: Caller, *, call: str | None = None) -> Headcount:
        """Return this fleet as `caller` sees it: with its rights, working directory and variables.

        The daemon does this for each request, so that an agent works where its deployer is. `call` is a key
        of the request: a task, report, finding or deploy of the same key is made once and answered again.

        >>> from headcount.domain.model import Caller
        >>> there = fleet.acting_as(Caller(cwd="/tmp"))
        >>> there.create_task("Tidy up").project
        '/tmp'
        >>> sent = fleet.acting_as(Caller(cwd="/tmp"), call="a key")
        >>> sent.create_task("Sort it").task_id == sent.create_task("Sort it").task_id
        True
        """
        return self.of(self._context.acting_as(caller, call=call))

    def close(self) -> None:
        """Close the registry's connections; agents go on. A `with` block does this at its end.

        >>> fleet.close()
        """
        self._context.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # tasks

    def create_task(
        self,
        description: str,
        *,
        project: str | Path | None = None,
        priority: str = "P2",
        background: str = "",
        deliverables: Sequence[str] = (),
        success_criteria: Sequence[str] = (),
        constraints: Sequence[str] = (),
        relevant_files: Sequence[str] = (),
        conversation: Sequence[Mapping[str, str]] = (),
        max_live: int | None = None,
        max_agents: int | None = None,
        max_depth: int | None = None,
        spawn_rules: Mapping[str, Sequence[str]] | None = None,
        isolation: str = "shared",
        setup: Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,
    ) -> answers.TaskFacts:
        """Create a task for agents to work on.

        `project` is the directory that agents work in (default: the caller's). `priority` is P0 to P3. What
        agents are told of the task is in `background`, `deliverables`, `success_criteria`, `constraints`,
        `relevant_files` and `conversation` (messages with role, content and perhaps timestamp). The limits
        stand for the task's whole life: live at once, over its life, and levels of delegation.
        `spawn_rules` maps a role to the roles that it may deploy. With `isolation` worktree each agent works
        in a git worktree of its own, unless its deploy says otherwise; `setup` is a program and its
        arguments, run in each new one (default: the setting worktree_setup). `policy` is what the watchdog
        holds its agents to, as in `headcount.domain.policy.Policy`; under `roles` for a role.

        >>> made = fleet.create_task(
        ...     "Tidy the parser", project=".", success_criteria=["its tests pass"], max_live=3
        ... )
        >>> made.state, made.max_live, made.max_depth
        ('open', 3, 5)

        Raises:
            InvalidInput: a blank description, a project that is not a directory, a limit below 1.
            NotAllowed: an agent asks.
        """
        from headcount.services import given, tasks

        return tasks.create(
            self._context,
            tasks.NewTask(
                description=description,
                project=None if project is None else str(project),
                priority=priority,
                background=background,
                deliverables=given.words("deliverables", deliverables),
                success_criteria=given.words("success_criteria", success_criteria),
                constraints=given.words("constraints", constraints),
                relevant_files=given.words("relevant_files", relevant_files),
                conversation=tuple(conversation),
                max_live=max_live,
                max_agents=max_agents,
                max_depth=max_depth,
                spawn_rules=spawn_rules,
                isolation=isolation,
                setup=given.words("setup", setup),
                policy={} if policy is None else policy,
            ),
        )

    def list_tasks(
        self, *, state: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> answers.TaskList:
        """List tasks, newest first, all but archived ones; `state` is open, paused, closed or archived.

        `cursor` is the `next_cursor` of an earlier answer.

        >>> [each.task_id for each in fleet.list_tasks(state="open").tasks] == [task]
        True
        """
        from headcount.services import tasks

        return tasks.page(self._context, state=state, limit=limit, cursor=cursor)

    def get_task_status(self, task_id: str) -> answers.TaskStatus:
        """Say where a task stands: agents, counts, refusals, last reports and findings.

        Counts are derived from the rows when asked, after recording what can be seen of live agents.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> status = fleet.get_task_status(task)
        >>> status.counts["live"], status.counts["total"], status.refusals
        (1, 1, {})

        Raises:
            NotFound: no such task.
        """
        from headcount.services import tasks

        return tasks.status(self._context, task_id)

    def close_task(self, task_id: str) -> answers.TaskFacts:
        """Close a task: it takes no new agents.

        >>> fleet.close_task(task).state
        'closed'

        Raises:
            Refused: an agent of it is live.
            NotAllowed: an agent asks.
        """
        from headcount.services import tasks

        return tasks.close(self._context, task_id)

    def archive_task(self, task_id: str) -> answers.TaskFacts:
        """Archive a closed task: it leaves the default lists. All of it can still be read.

        >>> _ = fleet.close_task(task)
        >>> fleet.archive_task(task).state
        'archived'
        >>> fleet.list_tasks().tasks
        ()

        Raises:
            Refused: it is not closed.
            NotAllowed: an agent asks.
        """
        from headcount.services import tasks

        return tasks.archive(self._context, task_id)

    def pause_task(
        self, task_id: str, *, stop: bool = False, reason: str = "", grace: float | None = None
    ) -> answers.PausedTask:
        """Let a task begin no run until `resume_task`: no deploy, no resume, nobody after a crash or for a
        message, which wait. It holds against everybody, and over restarts of the daemon.

        Live agents go on to their own end; with `stop` they are stopped, with `grace` as for `stop_agent`.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> paused = fleet.pause_task(task, stop=True, reason="lunch")
        >>> paused.task.state, [each.outcome for each in paused.stopped]
        ('paused', ['stopped'])

        Raises:
            NotFound: no such task.
            Refused: it is closed.
            NotAllowed: an agent asks.
        """
        from headcount.services import pause

        return pause.pause(self._context, task_id, stops=stop, reason=reason, grace=grace)

    def resume_task(self, task_id: str, *, agents: bool = False) -> answers.UnpausedTask:
        """Let a paused task begin runs again. The answer names the agents that its pause stopped and that
        have not gone on since, and which of them can; with `agents` those do, in further runs.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> _ = fleet.pause_task(task, stop=True)
        >>> again = fleet.resume_task(task, agents=True)
        >>> again.task.state, [each.state for each in again.agents]
        ('open', ['cannot_resume'])

        Raises:
            NotFound: no such task.
            Refused: it is closed.
            NotAllowed: an agent asks.
        """
        from headcount.services import pause

        return pause.unpause(self._context, task_id, agents=agents)

    # agents

    def deploy(
        self,
        task_id: str,
        *,
        role: str,
        prompt: str | None = None,
        harness: str = "claude",
        command: Sequence[str] = (),
        parent: str | None = None,
        model: str | None = None,
        effort: str | None = None,
        cwd: str | Path | None = None,
        env: Sequence[str] = (),
        allow_duplicate_role: bool = False,
        allow_same_work: bool = False,
        idempotency_key: str | None = None,
        resume_on_crash: int = 0,
        isolation: str | None = None,
        policy: Mapping[str, Any] | None = None,
        **options: object,
    ) -> answers.Deployed:
        """Deploy one agent and return when its process is confirmed to run.

        `harness` is the program that is the agent: claude, command, script or another one; `command` is the
        program and its arguments for `command`, and further flags for the others. `prompt` is what it is to
        do; `command` and `script` can do without. It works in `cwd` (default: the caller's directory if that
        is in the project, else the project). `env` names further variables of the caller that it gets.
        `idempotency_key`: repeated with the same key, the deploy is done once and answered again.
        `resume_on_crash`: if it is lost, killed or ended by an error of its model's API, the daemon lets it
        go on, at most so often. `isolation` is shared, or worktree: a git worktree of its own, on a branch of
        its own, made from what is checked out where it would work otherwise (default: as the task has it).
        `policy` is what the watchdog holds it to besides its task's (see `headcount.domain.policy.Policy`).
        `options` are those of `headcount.domain.options.Options`: permissions,
        allowed_tools, denied_tools, max_turns, budget_usd, system_prompt, result_schema, only_our_mcp, steer,
        peers. What the harness cannot do is refused.

        Within an agent's tree the new agent is that agent's child, whatever `parent` says.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> agent.state, agent.run, agent.depth
        ('running', 1, 1)

        Limits and rules are checked before anything is started, and a refusal says what holds it:

        >>> from headcount import Refused
        >>> try:
        ...     fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        ... except Refused as refusal:
        ...     print(refusal.code, refusal.holders == (agent.agent_id,))
        duplicate_role True

        Raises:
            InvalidInput: bad role, prompt, harness or directory.
            NotFound: no such task.
            Refused: a limit or rule; nothing was started.
            PlacementFailed: it did not start; the reason is on record, nothing is left.
        """
        from headcount.domain.options import parse_options
        from headcount.services import deploy, given, request

        return deploy.deploy(
            self._context,
            request.Request(
                task_id=task_id,
                role=role,
                prompt=prompt,
                harness=harness,
                command=given.words("command", command),
                parent=parent,
                options=parse_options({"model": model, "effort": effort, **options}),
                cwd=None if cwd is None else str(cwd),
                env=given.words("env", env),
                allow_duplicate_role=allow_duplicate_role,
                allow_same_work=allow_same_work,
                idempotency_key=idempotency_key or self._context.call,
                resume_on_crash=resume_on_crash,
                isolation=isolation,
                policy={} if policy is None else policy,
            ),
        )

    def resume_agent(
        self,
        agent_id: str,
        prompt: str,
        *,
        env: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> answers.Deployed:
        """Let an agent that is over go on with its conversation, in a further run with the same options and
        directory, and return when its process is confirmed to run.

        `prompt` is what it is to do now; messages that wait for it come with it. It holds its role and its
        work again, and counts as live, but not as a new agent of its task. `env` and `idempotency_key` are
        as for `deploy`.

        >>> steps = '[{"say": "one"}]'
        >>> agent = fleet.deploy(task, role="builder", harness="script", prompt=steps)
        >>> _ = fleet.wait_for_agents([agent.agent_id])
        >>> fleet.resume_agent(agent.agent_id, '[{"say": "two"}]').run
        2
        >>> _ = fleet.wait_for_agents([agent.agent_id])
        >>> [(run.run, run.why, run.resumes) for run in fleet.get_agent(agent.agent_id).runs]
        [(1, 'deploy', None), (2, 'resume', 1)]

        Raises:
            InvalidInput: a blank prompt.
            NotFound: no such agent.
            NotAllowed: an agent asks, and it is not its own descendant.
            Refused: it is live, its harness has no conversations, nobody knows which conversation it was,
                or a limit or rule forbids it; nothing was started.
            PlacementFailed: it did not start; the reason is on record, nothing is left.
        """
        from headcount.services import given, request, resume

        given.text("prompt", prompt)
        return resume.resume(
            self._context,
            request.Again(
                agent_id,
                prompt,
                given.words("env", env),
                idempotency_key=idempotency_key or self._context.call,
            ),
        )

    def take_over(self, agent_id: str, *, env: Sequence[str] = ()) -> answers.Deployed:
        """Open an agent's conversation for a person: in its program's own interactive form, on a terminal
        that `attach_command` goes to. What the agent does at the moment is ended first, by a stop.

        It is a further run of the agent, which holds its role and its work. It ends with its program, by a
        stop, or by `hand_back`. `env` is as for `deploy`.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> from headcount import Refused
        >>> try:
        ...     fleet.take_over(agent.agent_id)
        ... except Refused as refusal:
        ...     print(refusal.code)
        cannot_take_over

        Raises:
            NotFound: no such agent.
            NotAllowed: an agent asks.
            Refused: it is taken over already, its harness has no such form, or nobody knows its
                conversation: it goes on as before. Or a limit or rule forbids the new run: then it ends.
            PlacementFailed: its program cannot be started in that form; the reason is on record.
        """
        from headcount.services import given, takeover

        return takeover.take_over(self._context, agent_id, env=given.words("env", env))

    def hand_back(self, agent_id: str, prompt: str, *, env: Sequence[str] = ()) -> answers.Deployed:
        """Let an agent that was taken over go on headless, with what was said meanwhile and a new prompt.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> from headcount import Refused
        >>> try:
        ...     fleet.hand_back(agent.agent_id, "go on")
        ... except Refused as refusal:
        ...     print(refusal.code)
        not_taken_over

        Raises:
            InvalidInput: a blank prompt.
            NotFound: no such agent.
            NotAllowed: an agent asks.
            Refused: it was not taken over, or a limit or rule forbids it.
            PlacementFailed: it did not start; the reason is on record, nothing is left.
        """
        from headcount.services import given, request, takeover

        given.text("prompt", prompt)
        return takeover.hand_back(self._context, request.Again(agent_id, prompt, given.words("env", env)))

    def explain_agent(self, agent_id: str) -> answers.Explained:
        """Say why an agent, live or over, stands as it does: which signals there are and since when, what the
        watchdog has flagged and done, and what would change it.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> found = fleet.explain_agent(agent.agent_id)
        >>> found.why, found.changes[0]  # doctest: +NORMALIZE_WHITESPACE
        ("its program was confirmed to run, and its runner holds the run's lock",
         "it ends with its program, or by 'headcount stop'")

        Raises:
            NotFound: no such agent.
        """
        from headcount.services import explain

        return explain.explain(self._context, agent_id)

    def list_agents(
        self, *, task_id: str | None = None, all: bool = False, limit: int = 200, cursor: str | None = None
    ) -> answers.AgentList:
        """List live agents, newest first; with `all`, ended ones too.

        `cursor` is the `next_cursor` of an earlier answer.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> [(each.role, each.state) for each in fleet.list_agents(task_id=task).agents]
        [('builder', 'running')]
        """
        from headcount.services import agents

        return agents.page(self._context, task_id=task_id, ended=all, limit=limit, cursor=cursor)

    def get_agent(self, agent_id: str) -> answers.AgentWhole:
        """Return all that is known of one agent: how it was deployed, where it stands, and each of its runs
        with its outcome, ending, account (what it used and did), result, conversation and directory.

        >>> agent = fleet.deploy(
        ...     task, role="builder", harness="command", command=["sh", "-c", "echo a; exit 3"]
        ... )
        >>> _ = fleet.wait_for_agents([agent.agent_id])
        >>> found = fleet.get_agent(agent.agent_id)
        >>> found.state, found.outcome, found.ending, found.exit_code, found.reason
        ('ended', 'failed', 'error', 3, 'exit code 3')
        >>> [(run.why, run.account["lines"], run.account["cost_usd"]) for run in found.runs]
        [('deploy', 1, None)]

        Raises:
            NotFound: no such agent.
        """
        from headcount.services import agents

        return agents.whole(self._context, agent_id)

    def get_postmortem(self, agent_id: str, *, run: int | None = None) -> answers.PostMortem:
        """Return what is known of the end of a run: how and why it ended, who asked for that, what it said
        and did last, which limits were near, which files were changed since its start, and what nobody knows.

        By default of the agent's latest run that is over. The daemon makes it soon after each end and it is
        kept; of a run that has none it is made now.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sh", "-c", "exit 3"])
        >>> _ = fleet.wait_for_agents([agent.agent_id])
        >>> found = fleet.get_postmortem(agent.agent_id)
        >>> found.how, found.stop, found.files["source"]
        ('exited with code 3', None, 'none')

        Raises:
            NotFound: no such agent or run.
            Refused: it is live.
        """
        from headcount.services import postmortem

        return postmortem.get(self._context, agent_id, run)

    def wait_for_agents(
        self,
        agent_ids: Sequence[str] = (),
        *,
        task_id: str | None = None,
        any: bool = False,
        until: str = "ended",
        timeout: float = 45.0,
        cursor: str | None = None,
    ) -> answers.Waited:
        """Wait for agents, or for those of a task: until all of them (or, with `any`, one) satisfy `until`.

        `until` is ended; reported (a report or a finding since the wait began); finding; done or blocked (the
        last report says so). An agent that has ended satisfies each of them: nothing more will come from it.

        `timeout` in seconds; time running out is an answer with `done=False`, not an error. Pass its `cursor`
        to go on with the same wait; that of an answer that is done begins the next one behind it, so that
        `any` finds the next agent.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> waited = fleet.wait_for_agents([agent.agent_id], timeout=0.1)
        >>> waited.done, waited.pending == (agent.agent_id,)
        (False, True)
        >>> _ = fleet.stop_agent(agent.agent_id)
        >>> fleet.wait_for_agents([agent.agent_id], cursor=waited.cursor).agents[0].outcome
        'stopped'

        Raises:
            InvalidInput: neither agents nor a task, or both; an unknown condition.
            NotFound: one of them does not exist.
        """
        from headcount.services import wait

        return wait.wait(
            self._context,
            wait.Wish(
                tuple(agent_ids), task_id=task_id, any=any, until=until, timeout=timeout, cursor=cursor
            ),
        )

    def get_agent_output(
        self,
        agent_id: str,
        *,
        run: int | None = None,
        stream: str = "output",
        format: str = "text",
        tail: int | None = None,
        filter: str | None = None,
        max_bytes: int = 8000,
        cursor: int | None = None,
    ) -> OutputPage:
        r"""Read what an agent wrote, during its run or after it.

        Without more, the end of it; `tail` asks for so many lines; `cursor` (0, then each answer's
        `next_cursor`) reads from the beginning on, page by page. `stream` is output or stderr. `format` is
        text, jsonl (lines that are JSON objects), parsed (entries in one vocabulary for all harnesses),
        summary or recent. `filter` is a regular expression in RE2's syntax. A page has at most `max_bytes`,
        and everything left out is counted.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["seq", "100"])
        >>> _ = fleet.wait_for_agents([agent.agent_id])
        >>> page = fleet.get_agent_output(agent.agent_id, tail=2)
        >>> page.text, page.lines_before
        ('99\n100\n', 98)
        >>> fleet.get_agent_output(agent.agent_id, filter="^4.$", tail=1).text
        '49\n'

        Raises:
            InvalidInput: an unknown format or stream, a pattern that is none, numbers out of range.
            NotFound: no such agent or run.
        """
        from headcount.services import output

        return output.read(
            self._context,
            output.Wish(agent_id, run, stream, format, tail, filter, max_bytes, cursor),
        )

    def stop_agent(self, agent_id: str, *, reason: str = "", grace: float | None = None) -> answers.Stopped:
        """End an agent and all of its processes: TERM, `grace` seconds, KILL. Returns when it is over.

        What could not be ended is listed in `survivors`.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> stopped = fleet.stop_agent(agent.agent_id, reason="no longer needed")
        >>> stopped.outcome, stopped.signal, stopped.survivors
        ('stopped', 15, ())

        Raises:
            NotFound: no such agent.
            NotAllowed: an agent asks, and it is not its own descendant.
        """
        from headcount.services import stop

        return stop.stop(self._context, agent_id, reason=reason, grace=grace)

    def kill_agent(self, agent_id: str, *, reason: str = "") -> answers.Stopped:
        """End an agent and all of its processes at once.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> fleet.kill_agent(agent.agent_id).signal
        9
        >>> fleet.kill_agent(agent.agent_id).was_live
        False
        """
        from headcount.services import stop

        return stop.stop(self._context, agent_id, reason=reason, grace=0.0)

    def halt(self, *, reason: str = "") -> answers.Halted:
        """End every live agent at once and refuse new deploys until `release_halt`. Needs no daemon.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> halted = fleet.halt(reason="enough")
        >>> halted.halted, [each.agent_id for each in halted.stopped] == [agent.agent_id]
        (True, True)

        Raises:
            NotAllowed: an agent asks.
        """
        from headcount.services import stop

        return stop.halt(self._context, reason=reason)

    def release_halt(self) -> answers.Halted:
        """Lift the emergency stop.

        >>> _ = fleet.halt()
        >>> fleet.release_halt().halted
        False
        """
        from headcount.services import stop

        return stop.release(self._context)

    def attach_command(self, agent_id: str) -> tuple[str, ...]:
        """Return the command that shows a live agent's view in a terminal.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> "attach-session" in fleet.attach_command(agent.agent_id)
        True

        Raises:
            Refused: the agent is over, or there are no views here.
        """
        from headcount.services import agents

        return agents.attach_command(self._context, agent_id)

    # who is told of what happens

    def list_hooks(self) -> answers.HookList:
        """List the notification hooks of the settings: what each is told of, how much of that it was told,
        and what is wrong with it. The daemon tells them.

        >>> Headcount(notify=[{"name": "me", "command": ["true"]}]).list_hooks().hooks[0].on
        ('run_ended', 'run_lost', 'halted', 'restart_given_up')
        """
        from headcount.services import notify

        return notify.page(self._context)

    def test_hook(self, name: str) -> answers.Tested:
        """Tell a notification hook something now, once, and say whether it took it.

        >>> Headcount(notify=[{"name": "me", "command": ["false"]}]).test_hook("me").note
        'false ended with 1'

        Raises:
            NotFound: the settings have no such hook.
            NotAllowed: an agent asks.
        """
        from headcount.services import notify

        return notify.test(self._context, name)

    # where agents work

    def list_worktrees(
        self, *, removed: bool = False, limit: int = 100, cursor: int | None = None
    ) -> answers.WorktreeList:
        """List the git worktrees of agents, newest first, as they are on record; with `removed`, those that
        are gone too. `cursor` is the `next_cursor` of an earlier answer.

        >>> fleet.list_worktrees().worktrees
        ()
        """
        from headcount.services import worktrees

        return worktrees.page(self._context, removed=removed, limit=limit, cursor=cursor)

    def get_worktree_diff(self, agent_id: str, *, max_bytes: int = 1_000_000) -> answers.WorktreeDiff:
        """Return how an agent's worktree differs from the commit that it began at, committed or not, as git
        prints it; at most `max_bytes` of it.

        >>> from headcount import NotFound
        >>> try:
        ...     fleet.get_worktree_diff("builder-01jx5e2k9pab12cd")
        ... except NotFound as error:
        ...     print(error.code)
        not_found

        Raises:
            NotFound: no such agent, or it has none.
            WorktreeFailed: git cannot say.
        """
        from headcount.services import worktrees

        return worktrees.diff(self._context, agent_id, max_bytes=max_bytes)

    def remove_worktree(self, agent_id: str, *, snapshot: bool = False) -> answers.WorktreeRemoved:
        """Take an agent's worktree and branch away, if nothing is lost with it; its directory goes to the
        trash folder. With `snapshot`, what would be lost is kept under a git ref first, new files and staged
        state included. Never while its agent is live, or a process works in it.

        >>> from headcount import NotFound
        >>> try:
        ...     fleet.remove_worktree("builder-01jx5e2k9pab12cd")
        ... except NotFound as error:
        ...     print(error.code)
        not_found

        Raises:
            NotFound: no such agent, or it has none.
            NotAllowed: an agent asks.
            Refused: it is in use, cannot be inspected, or something would be lost; nothing was changed.
            WorktreeFailed: git did not do it.
        """
        from headcount.services import worktrees

        return worktrees.remove(self._context, agent_id, snapshot=snapshot)

    def undo_worktree(self, agent_id: str) -> answers.WorktreeFacts:
        """Bring a removed worktree back, with its branch, and from a snapshot its files and staged state.

        >>> from headcount import NotFound
        >>> try:
        ...     fleet.undo_worktree("builder-01jx5e2k9pab12cd")
        ... except NotFound as error:
        ...     print(error.code)
        not_found

        Raises:
            NotFound: no such agent, or it never had one.
            NotAllowed: an agent asks.
            Refused: it is not removed, or something else is in its place.
            WorktreeFailed: git does not have any more what was kept.
        """
        from headcount.services import worktrees

        return worktrees.undo(self._context, agent_id)

    # what agents say

    def update_agent_progress(
        self, status: str, message: str, *, progress: int | None = None, agent_id: str | None = None
    ) -> answers.Reported:
        """Record what the calling agent says of itself: working, blocked, done or failed.

        `progress` is 0 to 100. `agent_id` may only be the caller's own (for a person: any agent's). It
        changes no state: that follows from what is seen alone.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> said = fleet.update_agent_progress("working", "half", progress=50, agent_id=agent.agent_id)
        >>> said.late, fleet.get_agent(agent.agent_id).progress
        (False, 50)

        Raises:
            InvalidInput: an unknown status, a blank message; a person who names no agent.
            NotAllowed: an agent that speaks for another.
        """
        from headcount.services import report

        return report.progress(
            self._context, status=status, message=message, progress=progress, agent_id=agent_id
        )

    def report_agent_finding(
        self,
        type: str,
        message: str,
        *,
        severity: str = "info",
        data: Mapping[str, object] | None = None,
        agent_id: str | None = None,
    ) -> answers.Reported:
        """Record what the calling agent discovered; `severity` is critical, high, medium, low or info.

        `type` is a word such as bug or risk, `data` whatever facts belong to it.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> found = fleet.report_agent_finding(
        ...     "bug", "it drops tabs", severity="high", data={"line": 40}, agent_id=agent.agent_id
        ... )
        >>> fleet.get_findings(task).findings[0].data["line"]
        40

        Raises:
            InvalidInput: an unknown severity, a blank message; a person who names no agent.
            NotAllowed: an agent that speaks for another.
        """
        from headcount.services import report

        return report.finding(
            self._context, type=type, severity=severity, message=message, data=data or {}, agent_id=agent_id
        )

    # what agents are told

    def send_message(self, agent_id: str, text: str, *, resume: bool = True) -> answers.Sent:
        """Tell an agent something after its deploy. It is on record first; the answer says which way it goes.

        A live agent that was deployed with `steer` is told in the middle of its work, another one with the
        answer to its next report. One that is over goes on with the message as its prompt, unless `resume`
        is False or it cannot: then the message waits for its next run.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> sent = fleet.send_message(agent.agent_id, "mind the tabs")
        >>> sent.state, sent.way
        ('queued', 'report')

        Raises:
            InvalidInput: a blank text, or one of more than 4,000 characters.
            NotFound: no such agent.
            NotAllowed: an agent of another task asks.
        """
        from headcount.services import messages

        return messages.send(self._context, agent_id, text, resume=resume)

    def list_messages(
        self, agent_id: str, *, limit: int = 100, cursor: int | None = None
    ) -> answers.MessageList:
        """List what an agent was told after its deploy, newest first, and what became of each message.

        `cursor` is the `next_cursor` of an earlier answer.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> _ = fleet.send_message(agent.agent_id, "mind the tabs")
        >>> [(each.text, each.state, each.sender) for each in fleet.list_messages(agent.agent_id).messages]
        [('mind the tabs', 'queued', None)]

        Raises:
            NotFound: no such agent.
        """
        from headcount.services import messages

        return messages.page(self._context, agent_id, limit=limit, cursor=cursor)

    def cancel_turn(self, agent_id: str) -> answers.Cancelled:
        """End what a live agent does at the moment, without ending its conversation.

        >>> agent = fleet.deploy(task, role="builder", harness="script", prompt='[{"sleep": 60}]', steer=True)
        >>> fleet.cancel_turn(agent.agent_id).state
        'cancelled'

        Raises:
            Refused: it is not running, was not deployed with `steer`, or its harness cannot do that.
            NotFound: no such agent.
            NotAllowed: an agent asks, and it is not its own descendant.
        """
        from headcount.services import messages

        return messages.cancel(self._context, agent_id)

    def list_approvals(self, *, task_id: str | None = None) -> answers.ApprovalList:
        """List what live agents ask before they do it (permissions `ask`), the oldest first.

        An agent sees what its descendants ask.

        >>> fleet.list_approvals(task_id=task).approvals
        ()

        Raises:
            NotFound: no such task.
        """
        from headcount.services import approvals

        return approvals.page(self._context, task_id=task_id)

    def answer_approval(self, approval_id: str, *, allow: bool, reason: str = "") -> answers.Approved:
        """Allow or deny what an agent asks. What nobody answers in time (setting `ask_expiry`) is denied.

        >>> from headcount import NotFound
        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> try:
        ...     fleet.answer_approval(f"{agent.agent_id}.1.1", allow=True)
        ... except NotFound as error:
        ...     "does not ask" in error.message
        True

        Raises:
            NotFound: nobody asks that.
            NotAllowed: an agent answers that is not above the one that asks.
            Refused: it was answered, expired or withdrawn before.
        """
        from headcount.services import approvals

        return approvals.answer(self._context, approval_id, allow=allow, reason=reason)

    def get_findings(
        self,
        task_id: str,
        *,
        severity: str | None = None,
        type: str | None = None,
        agent_id: str | None = None,
        since: str | None = None,
        cursor: int = 0,
        limit: int = 100,
    ) -> answers.FindingList:
        """Read a task's findings, oldest first.

        `since` is an ISO 8601 time, `cursor` the `next_cursor` of an earlier answer: only newer ones.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> for severity in ("low", "high"):
        ...     _ = fleet.report_agent_finding("bug", "here", severity=severity, agent_id=agent.agent_id)
        >>> page = fleet.get_findings(task, severity="high")
        >>> len(page.findings), dict(page.by_severity)
        (1, {'high': 1, 'low': 1})
        >>> fleet.get_findings(task, cursor=page.next_cursor).findings
        ()

        Raises:
            InvalidInput: an unknown severity, a time that is none.
            NotFound: no such task.
        """
        from headcount.services import findings

        return findings.page(
            self._context,
            task_id,
            findings.Filter(
                severity=severity, type=type, agent_id=agent_id, since=since, cursor=cursor, limit=limit
            ),
        )

    def read_events(
        self, *, cursor: int = 0, limit: int = 100, task_id: str | None = None, agent_id: str | None = None
    ) -> answers.EventList:
        """Read the journal from behind `cursor`, oldest first: every change, with its reason.

        >>> page = fleet.read_events(task_id=task)
        >>> [each.kind for each in page.events], page.more
        (['task_created'], False)
        >>> fleet.read_events(cursor=page.next_cursor, task_id=task).events
        ()
        """
        from headcount.services import events

        return events.page(self._context, cursor=cursor, limit=limit, task_id=task_id, agent_id=agent_id)

    # the headcount

    def registry_health_check(self, *, task_id: str | None = None) -> answers.Health:
        """Compare the registry with the machine; change nothing.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> health = fleet.registry_health_check()
        >>> health.healthy, health.live_rows, health.live_runs, health.ghosts
        (True, 1, 1, ())
        """
        from headcount.services import headcount

        return headcount.check(self._context, task_id=task_id)

    def validate_and_repair_registry(
        self, *, dry_run: bool = True, task_id: str | None = None
    ) -> answers.Health:
        """Compare, and unless `dry_run` make them agree. Starts no agent, ever.

        >>> import os, signal
        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["sleep", "60"])
        >>> os.kill(agent.runner_pid, signal.SIGKILL)
        >>> while fleet.registry_health_check().healthy:
        ...     pass  # the system takes a moment to end it
        >>> [each.action for each in fleet.validate_and_repair_registry().ghosts]
        ['record_lost']
        >>> [each.action for each in fleet.validate_and_repair_registry(dry_run=False).done]
        ['record_lost']
        >>> fleet.get_agent(agent.agent_id).state
        'lost'

        Raises:
            NotFound: no such task.
            NotAllowed: an agent asks for more than a dry run.
        """
        from headcount.services import headcount

        return headcount.repair(self._context, dry_run=dry_run, task_id=task_id)

    def rebuild_registry(self) -> answers.Rebuilt:
        """Make a quarantined registry anew from the last backup and the run directories.

        >>> from headcount import Refused
        >>> try:
        ...     fleet.rebuild_registry()
        ... except Refused as refusal:
        ...     print(refusal)
        the registry is whole, there is nothing to rebuild

        Raises:
            Refused: the registry is whole.
            NotAllowed: an agent asks.
        """
        from headcount.services import rebuild

        return rebuild.rebuild(self._context)

    def doctor(self) -> answers.Diagnosis:
        """Examine everything that Headcount stands on. Never raises for what it finds.

        >>> found = fleet.doctor()
        >>> found.checks[0].detail
        'Registry: 0, Running: 0, Tmux: 0, Diff: 0'
        """
        from headcount.services import doctor

        return doctor.examine(self._context)

    def list_harnesses(self) -> answers.HarnessList:
        """List the harnesses, our own and those of other packages: what each can do, whether its program is
        here, new enough and logged in, as an agent of the caller's would find it. Starts no agent.

        >>> [each.state for each in fleet.list_harnesses().harnesses if each.name == "script"]
        ['ready']
        """
        from headcount.services import probes

        return probes.page(self._context)

    def get_harness(self, name: str) -> answers.HarnessWhole:
        """Return all that is known of one harness.

        >>> found = fleet.get_harness("claude")
        >>> found.program, "resume" in found.abilities, "ANTHROPIC_*" in found.variables
        ('claude', True, True)

        Raises:
            NotFound: there is none of that name.
        """
        from headcount.services import probes

        return probes.whole(self._context, name)

    def gc(
        self, *, dry_run: bool = True, older_than: float = 14 * 86400.0, keep_bytes: int | None = None
    ) -> answers.Collected:
        """Move old run directories to the trash folder and prune the journal; never anything live.

        `older_than` in seconds since the end; `keep_bytes` bounds what all ended runs together may take.

        >>> agent = fleet.deploy(task, role="builder", harness="command", command=["true"])
        >>> _ = fleet.wait_for_agents([agent.agent_id])
        >>> would = fleet.gc(older_than=0)
        >>> would.dry_run, would.runs == (f"{agent.agent_id}.1",), would.trash
        (True, True, None)
        >>> fleet.gc(older_than=0, dry_run=False).runs == would.runs
        True
        """
        from headcount.services import collect

        return collect.collect(self._context, dry_run=dry_run, older_than=older_than, keep_bytes=keep_bytes)

    # the daemon

    def up(self) -> answers.DaemonFacts:
        """Start the daemon if none runs, and return when it answers. It also starts on first need.

        >>> fleet.up().running
        True
        >>> fleet.down().running
        False

        Raises:
            Infrastructure: it does not answer; its log says why.
            NotAllowed: an agent asks.
        """
        from headcount.services import daemon

        return daemon.up(self._context)

    def down(self) -> answers.DaemonFacts:
        """End the daemon; agents go on, and the next daemon finds them again.

        If no agent is live, the empty view server ends too, and nothing of Headcount is left running.

        >>> fleet.down().live_agents
        0

        Raises:
            Infrastructure: it does not end.
            NotAllowed: an agent asks.
        """
        from headcount.services import daemon

        return daemon.down(self._context)

    def get_service(self) -> answers.ServiceFacts:
        """Say how the systemd unit of this home's daemon reads, whether it is installed and how it stands.

        >>> "KillMode=process" in fleet.get_service().unit
        True
        """
        from headcount.services import service

        return service.get(self._context)

    def install_service(self) -> answers.ServiceFacts:
        """Have systemd keep the daemon alive, from now on and from each login.

        >>> fleet.install_service().state  # doctest: +SKIP
        'active'

        Raises:
            Infrastructure: there is no systemd to be asked, or it could not start the daemon.
            NotAllowed: an agent asks.
        """
        from headcount.services import service

        return service.install(self._context)

    def remove_service(self) -> answers.ServiceFacts:
        """Take the unit away and end its daemon; agents are left as they are.

        >>> fleet.remove_service().installed  # doctest: +SKIP
        False

        Raises:
            Infrastructure: there is no systemd to be asked, or it failed.
            NotAllowed: an agent asks.
        """
        from headcount.services import service

        return service.remove(self._context)
