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

    >>> from headcount import Headcount
    >>> fleet = Headcount()
    >>> fleet.list_agents().agents
    ()
    """

    def __init__(self, home: str | Path | None = None, **settings: Any) -> None:
        """Open the fleet in `home` (default: `HEADCOUNT_HOME`, or the platform's state directory).

        `settings` override the settings file and the environment, such as `task_max_live=5`.

        Raises:
            InvalidInput: an unknown setting.
            Infrastructure: the home cannot be used.
        """
        from headcount import bootstrap

        self._context: Context = bootstrap.context(home, settings)

    @classmethod
    def of(cls, context: Context) -> Headcount:
        """Return the fleet of a context that was made elsewhere: by the daemon, or with other parts."""
        made = cls.__new__(cls)
        made._context = context  # noqa: SLF001  # its own
        return made

    @property
    def context(self) -> Context:
        return self._context

    def acting_as(self, caller: Caller) -> Headcount:
        """Return this fleet as `caller` sees it: with its rights, working directory and variables."""
        return self.of(self._context.acting_as(caller))

    def close(self) -> None:
        """Close the registry's connections; agents go on."""
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
    ) -> answers.TaskFacts:
        """Create a task for agents to work on.

        `project` is the directory that agents work in (default: the caller's). `priority` is P0 to P3.
        `spawn_rules` maps a role to the roles that it may deploy.

        Raises:
            InvalidInput: a blank description, a project that is not a directory, a limit below 1.
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
            ),
        )

    def list_tasks(
        self, *, state: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> answers.TaskList:
        """List tasks, newest first; `state` is open, paused, closed or archived."""
        from headcount.services import tasks

        return tasks.page(self._context, state=state, limit=limit, cursor=cursor)

    def get_task_status(self, task_id: str) -> answers.TaskStatus:
        """Say where a task stands: agents, counts, refusals, last reports and findings."""
        from headcount.services import tasks

        return tasks.status(self._context, task_id)

    def close_task(self, task_id: str) -> answers.TaskFacts:
        """Close a task: it takes no new agents. Refused while one is live."""
        from headcount.services import tasks

        return tasks.close(self._context, task_id)

    def archive_task(self, task_id: str) -> answers.TaskFacts:
        """Archive a closed task: it leaves the default lists, and `gc` may take its runs."""
        from headcount.services import tasks

        return tasks.archive(self._context, task_id)

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
    ) -> answers.Deployed:
        """Deploy one agent and return when its process is confirmed to run.

        `env` names further variables of the caller that the agent gets. Within an agent's tree the
        new agent is that agent's child, whatever `parent` says.

        Raises:
            InvalidInput: bad role, prompt, harness or directory.
            NotFound: no such task.
            Refused: a limit or rule; nothing was started.
            PlacementFailed: it did not start; the reason is on record, nothing is left.
        """
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
                model=model,
                effort=effort,
                cwd=None if cwd is None else str(cwd),
                env=given.words("env", env),
                allow_duplicate_role=allow_duplicate_role,
                allow_same_work=allow_same_work,
                idempotency_key=idempotency_key,
            ),
        )

    def list_agents(
        self, *, task_id: str | None = None, all: bool = False, limit: int = 200, cursor: str | None = None
    ) -> answers.AgentList:
        """List live agents; with `all`, ended ones too."""
        from headcount.services import agents

        return agents.page(self._context, task_id=task_id, ended=all, limit=limit, cursor=cursor)

    def get_agent(self, agent_id: str) -> answers.AgentFacts:
        """Return the facts of one agent by its latest run."""
        from headcount.services import agents

        return agents.get(self._context, agent_id)

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
        """Wait until all (or, with `any`, one) of the agents have ended, or `until="reported"`.

        `timeout` in seconds; time running out is an answer with `done=False`, not an error.
        `cursor` of an earlier answer makes "reported" mean since then.
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
        """Read what an agent wrote, during its run or after it.

        `format` is text, jsonl, parsed, summary or recent; `filter` a regular expression; `cursor`
        continues an earlier page. Everything left out is counted.
        """
        from headcount.services import output

        return output.read(
            self._context,
            output.Wish(agent_id, run, stream, format, tail, filter, max_bytes, cursor),
        )

    def stop_agent(self, agent_id: str, *, reason: str = "", grace: float | None = None) -> answers.Stopped:
        """End an agent and all of its processes: TERM, `grace` seconds, KILL. Returns when it is over."""
        from headcount.services import stop

        return stop.stop(self._context, agent_id, reason=reason, grace=grace)

    def kill_agent(self, agent_id: str, *, reason: str = "") -> answers.Stopped:
        """End an agent and all of its processes at once."""
        from headcount.services import stop

        return stop.stop(self._context, agent_id, reason=reason, grace=0.0)

    def halt(self, *, reason: str = "") -> answers.Halted:
        """End every live agent at once and refuse new deploys until `release_halt`."""
        from headcount.services import stop

        return stop.halt(self._context, reason=reason)

    def release_halt(self) -> answers.Halted:
        """Lift the emergency stop."""
        from headcount.services import stop

        return stop.release(self._context)

    def attach_command(self, agent_id: str) -> tuple[str, ...]:
        """Return the command that shows a live agent's view in a terminal."""
        from headcount.services import agents

        return agents.attach_command(self._context, agent_id)

    # what agents say

    def update_agent_progress(
        self, status: str, message: str, *, progress: int | None = None, agent_id: str | None = None
    ) -> answers.Reported:
        """Record what the calling agent says of itself: working, blocked, done or failed.

        `progress` is 0 to 100. `agent_id` may only be the caller's own (for a person: any agent's).
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
        """Record what the calling agent discovered; `severity` is critical, high, medium, low or info."""
        from headcount.services import report

        return report.finding(
            self._context, type=type, severity=severity, message=message, data=data or {}, agent_id=agent_id
        )

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
        """Read a task's findings; `since` is an ISO 8601 time, `cursor` that of an earlier answer."""
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
        """Read the journal from behind `cursor`."""
        from headcount.services import events

        return events.page(self._context, cursor=cursor, limit=limit, task_id=task_id, agent_id=agent_id)

    # the headcount

    def registry_health_check(self, *, task_id: str | None = None) -> answers.Health:
        """Compare the registry with the machine; change nothing."""
        from headcount.services import headcount

        return headcount.check(self._context, task_id=task_id)

    def validate_and_repair_registry(
        self, *, dry_run: bool = True, task_id: str | None = None
    ) -> answers.Health:
        """Compare, and unless `dry_run` make them agree. Starts no agent, ever."""
        from headcount.services import headcount

        return headcount.repair(self._context, dry_run=dry_run, task_id=task_id)

    def rebuild_registry(self) -> answers.Rebuilt:
        """Make a quarantined registry anew from the last backup and the run directories."""
        from headcount.services import rebuild

        return rebuild.rebuild(self._context)

    def doctor(self) -> answers.Diagnosis:
        """Examine everything that Headcount stands on."""
        from headcount.services import doctor

        return doctor.examine(self._context)

    def gc(
        self, *, dry_run: bool = True, older_than: float = 14 * 86400.0, keep_bytes: int | None = None
    ) -> answers.Collected:
        """Move old run directories to the trash folder and prune the journal; never anything live.

        `older_than` in seconds since the end; `keep_bytes` bounds what all ended runs together may take.
        """
        from headcount.services import collect

        return collect.collect(self._context, dry_run=dry_run, older_than=older_than, keep_bytes=keep_bytes)
