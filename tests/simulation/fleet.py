"""The programs of one simulation: people, the daemon, agents; and all that they have been told."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from headcount.bootstrap import OurPrograms, on_terminal
from headcount.config import Home, Settings
from headcount.domain.errors import HeadcountError, InvalidInput, NotAllowed, PlacementFailed, Refused
from headcount.domain.model import Caller, Limits, RunKey
from headcount.domain.options import Ability, Options
from headcount.harnesses import catalogue
from headcount.harnesses.base import Harness
from headcount.harnesses.command import Command
from headcount.runtimes.systemd import Systemd
from headcount.runtimes.worktrees import GitRepositories
from headcount.services import (
    agents,
    deploy,
    headcount,
    messages,
    pause,
    report,
    resume,
    rights,
    settle,
    stop,
    tasks,
    wait,
)
from headcount.services.answers import Deployed
from headcount.services.context import Context
from headcount.services.request import Again, Request
from tests.simulation.audit import Auditor, hold
from tests.simulation.placement import SimClock, SimPlacement, SimViews
from tests.simulation.registry import WatchedRegistry
from tests.simulation.strands import Strand
from tests.simulation.world import Proc, RunDir, World

ROLES = ("builder", "fixer", "tester")
WORKS = (None, "the first work", "the second work")
SLOTS = ("machine_max_live", "max_live", "duplicate_role", "same_work")
GRACES = (0.0, 0.05, None)
ENV = {"PATH": "/usr/bin:/bin"}


class Talker(Command):
    """A plain program that remembers its conversation."""

    name = "talker"
    abilities = frozenset({Ability.RESUME, Ability.PRESET_SESSION})


def find(name: str) -> Harness:
    return Talker() if name == Talker.name else catalogue.find(name)


class NoDaemon:
    """Here the daemon is one of the actors, and nobody starts it."""

    def start(self) -> bool:
        return False

    def ready(self) -> bool:
        return False

    def stop(self) -> bool:
        return True


@dataclass(frozen=True)
class Said:
    """A report or finding that was acknowledged."""

    table: str
    number: int
    agent_id: str
    message: str


class Fleet:
    """Starts programs in strands, and remembers what they were promised."""

    def __init__(self, world: World, home: Home, limits: Limits, rng: random.Random) -> None:
        self.world = world
        self.home = home
        self.rng = rng
        self.settings = Settings(limits=limits, grace=0.2, start_timeout=0.5, autostart=False)
        self.registry = WatchedRegistry(home, world)
        self.auditor = Auditor(world, home.registry, home.halted, limits)
        self.daemon: Proc | None = None
        self.said: list[Said] = []
        self.told: dict[int, str] = {}  # messages that were acknowledged
        self.heard: list[str] = []  # and those that reports were answered with
        self.refused: dict[tuple[str, str], int] = {}
        self.keyed: dict[tuple[str, str], set[str]] = {}
        self.requests: list[tuple[Request, str | None]] = []
        self._count = 0
        self._bases: dict[Proc, Context] = {}

    # programs

    def begin(
        self, name: str, process: Proc, body: Callable[[Context], object], *, doom: int | None = None
    ) -> Strand:
        """Begin a strand of `process` that runs `body`."""
        self._count += 1
        context = self.context(process)
        strand = Strand(f"{self._count}:{name}", process, lambda: body(context), doom)
        self.world.strands.begin(strand)
        return strand

    def person(self, name: str, body: Callable[[Context], object], *, doom: int | None = None) -> Strand:
        """A command line: a process of its own, which ends with its command."""
        process = self.world.spawn("person")

        def command(context: Context) -> None:
            try:
                body(context)
            finally:
                process.alive = False

        return self.begin(name, process, command, doom=doom)

    def in_daemon(self, name: str, body: Callable[[Context], object], *, doom: int | None = None) -> Strand:
        if self.daemon is None or not self.daemon.alive:
            self.daemon = self.world.spawn("daemon")
        return self.begin(name, self.daemon, body, doom=doom)

    def context(self, process: Proc) -> Context:
        """Return the one context of a process; all its threads share it."""
        if process not in self._bases:
            self._bases[process] = self._new_context(process)
        return self._bases[process]

    def _new_context(self, process: Proc) -> Context:
        return Context(
            home=self.home,
            settings=self.settings,
            registry=self.registry,
            repositories=GitRepositories({}),
            placement=SimPlacement(self.world, process),
            views=SimViews(self.world),
            clock=SimClock(self.world),
            harness=find,
            known_harness=find,
            offered=list,
            programs=OurPrograms(),
            on_terminal=on_terminal,
            headcount=("/usr/bin/headcount",),
            caller=Caller(cwd=str(self.home.root), env=ENV),
            token=None,
            remote=None,
            ensure_daemon=lambda: None,
            daemon_pid=lambda: None,
            daemon=NoDaemon(),
            tell=lambda _hook, _facts: None,
            hook_wrong=lambda _hook: "",
            memory_kill=lambda _pids, _within: None,
            service_manager=Systemd({}, Path("/"), ()),
        )

    # what programs do

    def any_task(self) -> str:
        return self.rng.choice(sorted(self.auditor.tasks)) if self.auditor.tasks else "task-0000000000000000"

    def any_agent(self) -> str:
        known = sorted(self.auditor.agents)
        return self.rng.choice(known) if known else "builder-0000000000000000"

    def new_task(self, **given: object) -> tasks.NewTask:
        """Return a task that somebody may want; `given` sets its limits."""
        plain = tasks.NewTask(
            description="a task",
            project=str(self.home.root),
            priority="P1",
            background="",
            deliverables=(),
            success_criteria=(),
            constraints=(),
            relevant_files=(),
            conversation=(),
            max_live=None,
            max_agents=None,
            max_depth=None,
            spawn_rules=None,
        )
        return replace(plain, **given)  # type: ignore[arg-type]

    def create_task(self, context: Context) -> None:
        rng = self.rng
        new = self.new_task(
            max_live=rng.randint(1, 4),
            max_agents=rng.randint(2, 12),
            max_depth=rng.randint(1, 3),
            spawn_rules={"builder": rng.sample(ROLES, rng.randint(0, 2))} if rng.random() < 0.4 else None,
        )
        tasks.create(context, new)

    def request(self, *, by_agent: bool = False, **given: object) -> Request:
        """Return a deploy that somebody may ask for, most often a colliding one."""
        rng = self.rng
        duplicate, same = rng.random() < 0.3, rng.random() < 0.5
        program = rng.choice(("/bin/sh", "/bin/sh", "/bin/sh", "/bin/sh", "/nowhere/agent"))
        flags = ("by-agent",) * by_agent + ("dup",) * duplicate + ("same",) * same
        request = Request(
            task_id=self.any_task(),
            role=rng.choice(ROLES),
            prompt=rng.choice(WORKS),
            harness=rng.choice(("command", "talker")),
            command=(program, *flags, *(("fails",) if rng.random() < 0.1 else ())),
            parent=self.any_agent() if rng.random() < 0.1 else None,
            options=Options(),
            cwd=None,
            env=(),
            allow_duplicate_role=duplicate,
            allow_same_work=same,
            idempotency_key=f"key-{rng.randint(1, 3)}" if rng.random() < 0.2 else None,
        )
        return replace(request, **given)  # type: ignore[arg-type]

    def deploy(self, context: Context, request: Request | None = None) -> Deployed | None:
        request = request or self.request()
        scope = context.caller.agent_id or request.parent or "person"
        dead = self._dead()
        try:
            answer = deploy.deploy(context, request)
        except Refused as error:
            if error.code != "stopped_meanwhile":
                self._count_refusal(request, error)
                holds_a_slot = error.code in SLOTS
                hold(
                    not (holds_a_slot and self._held_by(dead, error)),
                    "I2",
                    f"held by the dead: {error.holders}",
                )
            return None
        except HeadcountError as error:
            self.world.note(f"deploy failed: {error.code} {error.message}")
            return None
        self.world.note(f"deployed {answer.agent_id}{' again' if answer.repeated else ''}")
        self._judge_answer(request, scope, answer)
        return answer

    def _dead(self) -> set[RunKey]:
        """Return the runs that anybody who looks now sees to be over: none of them may hold a slot."""
        if self.world.climate.unknown:
            return set()  # a look may fail, and then it holds its slot rightly
        runs = [run for run in self.world.dirs.values() if run.lock is None and not run.blind]
        return {run.key for run in runs if run.marked and (run.start or run.exit or run.void)}

    def _held_by(self, dead: set[RunKey], error: Refused) -> bool:
        """Say whether a slot is held by one of the dead, and not by a further run of the same agent."""
        self.auditor.step()
        known = (self.auditor.agents.get(holder) for holder in error.holders)
        return any(each is not None and each.key in dead for each in known)

    def _count_refusal(self, request: Request, error: Refused) -> None:
        self.world.note(f"refused: {error.code} {error.message}")
        if error.code != "not_allowed":
            at = (request.task_id, error.code)
            self.refused[at] = self.refused.get(at, 0) + 1

    def _judge_answer(self, request: Request, scope: str, answer: Deployed) -> None:
        if request.idempotency_key is not None:
            given = self.keyed.setdefault((scope, request.idempotency_key), set())
            given.add(answer.agent_id)
            hold(len(given) == 1, "idempotency", f"one key, several agents: {sorted(given)}")
        if not answer.repeated:
            run = self.world.dirs[RunKey(answer.agent_id, answer.run)]
            hold(
                run.starts == 1, "I3", f"{run.key} is said to be deployed and was started {run.starts} times"
            )

    def again(self, context: Context) -> None:
        """Make an earlier call once more, as a bridge does that does not know whether it arrived."""
        if not self.requests:
            self.requests.append((self.request(idempotency_key="key-again", parent=None), None))
        self.deploy(context, self.requests[0][0])

    def any_talker(self) -> str:
        """Return an agent that may be resumed, most often."""
        orders = [run.order for run in self.world.dirs.values() if run.order and run.start]
        talkers = {order.key.agent_id for order in orders if order.harness == Talker.name}
        over = sorted(
            each for each in talkers if each in self.auditor.agents and not self.auditor.agents[each].live
        )
        return self.rng.choice(over) if over and self.rng.random() < 0.9 else self.any_agent()

    def resume(self, context: Context) -> None:
        agent_id = self.any_talker()
        dead = self._dead()
        try:
            answer = resume.resume(context, Again(agent_id, f"prompt {self.rng.getrandbits(32)}"))
        except Refused as error:
            self._note_refusal(agent_id, error, dead)
            return
        except HeadcountError as error:
            self.world.note(f"resume of {agent_id}: {error.code} {error.message}")
            return
        run = self.world.dirs[RunKey(agent_id, answer.run)]
        hold(run.starts == 1, "I3", f"{run.key} is said to be resumed and was started {run.starts} times")

    def _note_refusal(self, agent_id: str, error: Refused, dead: set[RunKey]) -> None:
        self.world.note(f"resume of {agent_id}: {error.code} {error.message}")
        if error.code in ("stopped_meanwhile", "cannot_resume"):
            return
        at = (self.auditor.agents[agent_id].task_id, error.code)
        self.refused[at] = self.refused.get(at, 0) + 1
        held = error.code in SLOTS and self._held_by(dead, error)
        hold(not held, "I2", f"held by the dead: {error.holders}")

    def send(self, context: Context) -> None:
        text = f"told {self.rng.getrandbits(64):016x}"
        try:
            sent = messages.send(context, self.any_talker(), text)
        except HeadcountError as error:
            self.world.note(f"send: {error.code} {error.message}")
            return
        self.told[sent.id] = text

    def bring(self, context: Context) -> None:
        """Bring what waits on its way, as the daemon does."""
        with context.registry.read() as tx:
            waiting = [each.id for agent_id in tx.messages.waiting() for each in tx.messages.queued(agent_id)]
        for number in waiting:
            messages.bring(context, number)

    def stop(self, context: Context) -> None:
        agent_id = self.any_agent()
        try:
            answer = stop.stop(context, agent_id, reason="", grace=self.rng.choice(GRACES))
        except HeadcountError as error:
            self.world.note(f"stop of {agent_id}: {error.code} {error.message}")
            return
        self.world.note(f"stop of {agent_id}: {answer.state} {answer.note}")
        run = self.world.dirs.get(RunKey(agent_id, answer.run))
        if answer.state in ("ended", "lost") and run is not None:
            left = {each.identity.pid for each in run.living} - set(answer.survivors)
            hold(not left, "I6", f"{agent_id} is said to be stopped, and {left} live")

    def halt(self, context: Context) -> None:
        stop.halt(context, reason="")

    def release(self, context: Context) -> None:
        stop.release(context)

    def tick(self, context: Context) -> None:
        headcount.tick(context)

    def repair(self, context: Context) -> None:
        headcount.repair(context, dry_run=False, task_id=None)

    def dry_run(self, context: Context) -> None:
        headcount.repair(context, dry_run=True, task_id=None)

    def status(self, context: Context) -> None:
        tasks.status(context, self.any_task())

    def list_agents(self, context: Context) -> None:
        agents.page(context, task_id=None, ended=True, limit=50, cursor=None)

    def wait(self, context: Context) -> None:
        wish = wait.Wish((), self.any_task(), any=True, until="ended", timeout=0.3, cursor=None)
        wait.wait(context, wish)

    def observe(self, context: Context) -> None:
        settle.observe(context)

    def close_task(self, context: Context) -> None:
        tasks.close(context, self.any_task())

    def pause_task(self, context: Context) -> None:
        stops, grace = self.rng.random() < 0.5, self.rng.choice([0.0, 0.2])
        pause.pause(context, self.any_task(), stops=stops, reason="", grace=grace)

    def resume_task(self, context: Context) -> None:
        pause.unpause(context, self.any_task(), agents=self.rng.random() < 0.5)

    def archive_task(self, context: Context) -> None:
        tasks.archive(context, self.any_task())

    # what agents do

    def of_agent(self, run: RunDir, body: Callable[[Context, RunDir], object]) -> Strand:
        """Let an agent act: by its own shell with its token, or through the daemon."""
        if self.rng.random() < 0.5:
            token = run.token

            def in_shell(context: Context) -> object:
                return body(replace(context, token=token), run)

            return self.begin(f"shell of {run.key}", run.tree[0], in_shell)

        def by_daemon(context: Context) -> object:
            return body(context.acting_as(rights.identify(context, run.token)), run)

        return self.in_daemon(f"daemon for {run.key}", by_daemon)

    def agent_reports(self, context: Context, run: RunDir) -> None:
        message = f"message {self.rng.getrandbits(32)}"
        if self.rng.random() < 0.5:
            said = report.progress(context, status="working", message=message, progress=50, agent_id=None)
            table = "report"
        else:
            said = report.finding(
                context, type="insight", severity="low", message=message, data={}, agent_id=None
            )
            table = "finding"
        hold(said.agent_id == run.key.agent_id, "I10", f"{run.key} spoke as {said.agent_id}")
        self.said.append(Said(table, said.id, said.agent_id, message))
        self.heard.extend(each.text for each in said.messages)

    def says_late(self, context: Context) -> None:
        """Let any agent that ever ran speak through the daemon, most often one that is over."""
        runs = [run for run in self.world.dirs.values() if run.token]
        if runs:
            run = self.rng.choice(runs)
            acting = context.acting_as(rights.identify(context, run.token))
            self.agent_reports(acting, run)

    def agent_spawns(self, context: Context, run: RunDir) -> None:
        task_id = self.auditor.agents[run.key.agent_id].task_id
        caller = Caller(run.key.agent_id, run.key.n, cwd=context.caller.cwd, env=ENV)
        acting = replace(context, caller=caller, token=None)  # the daemon deploys, whoever asked
        for _ in range(self.rng.choice((1, 1, 2, 4))):
            answer = self.deploy(acting, self.request(by_agent=True, task_id=task_id, parent=None))
            if answer is not None:
                hold(
                    answer.parent == run.key.agent_id, "I10", f"{run.key} deployed a child of {answer.parent}"
                )

    def agent_oversteps(self, context: Context, run: RunDir) -> None:
        """Ask for what no agent may do: speak for another, stop a stranger, halt, create or close a task."""
        others = [each for each in sorted(self.auditor.agents) if not self._descends(each, run.key.agent_id)]
        asks: list[Callable[[], object]] = [
            lambda: self.create_task(context),
            lambda: stop.halt(context, reason="mine"),
            lambda: stop.release(context),
            lambda: tasks.archive(context, self.auditor.agents[run.key.agent_id].task_id),
        ]
        if others:
            other = self.rng.choice(others)
            asks += [
                lambda: stop.stop(context, other, reason="", grace=0.0),
                lambda: report.progress(context, status="done", message="I", progress=None, agent_id=other),
            ] * 2
        try:
            self.rng.choice(asks)()
        except NotAllowed:
            return
        hold(False, "I10", f"{run.key} did what it may not do")

    def _descends(self, agent_id: str | None, ancestor: str) -> bool:
        while agent_id is not None:
            if agent_id == ancestor:
                return True
            agent_id = self.auditor.agents[agent_id].parent
        return False

    def stranger(self, context: Context) -> None:
        """Come with a token that nobody was given."""
        try:
            report.progress(
                replace(context, token="guessed"), status="done", message="I", progress=None, agent_id=None
            )
        except NotAllowed:
            return
        hold(False, "I10", "a guessed token was taken")

    def expects(self, error: BaseException) -> bool:
        """Say whether a program may fail so."""
        return isinstance(error, (HeadcountError, InvalidInput, PlacementFailed))


def make_home(folder: Path, empty: bytes) -> Home:
    """Return a home with an empty registry in it."""
    home = Home(folder)
    home.root.mkdir(mode=0o700)
    home.registry.write_bytes(empty)
    return home
