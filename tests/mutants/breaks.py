"""The breaks: each takes away what keeps one promise, and names the tests that must notice.

`old` is exact text of the source and stands there once. If it is no longer there, the break is out of date
and the run fails: whoever changes that place writes the break anew.
"""

from __future__ import annotations

from dataclasses import dataclass

LIMITS = "tests/simulation/test_limits.py"
FOUND = "tests/simulation/test_found.py"
HISTORIES = "tests/simulation/test_histories.py"
ROWS = "tests/contract/test_registry_rows.py"
CROWDS = "tests/contract/test_registry_crowds.py"
OUTPUT = "tests/contract/test_placement_output.py"
PLACEMENT = "tests/contract/test_placement.py"
RUNNER = "tests/faults/test_runner.py"
MESSAGES = "tests/acceptance/test_messages.py"
MESSAGES = "tests/acceptance/test_messages.py"
WATCHDOG = "tests/integration/test_watchdog.py"
REPEATED = "tests/faults/test_repeated_calls.py"


@dataclass(frozen=True, slots=True)
class Break:
    """One edit of one file below src/headcount, and the tests (node ids) of which at least one must fail."""

    promise: str  # the invariant or limit
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def limit(promise: str, old: str, new: str, test: str, file: str = "domain/admission.py") -> Break:
    """A limit that is not kept; the test of that name in the list of limits must notice."""
    return Break(promise, f"{promise} is not kept", file, old, new, (f"{LIMITS}::{test}",))


BREAKS = (
    # --- limits and rules
    limit(
        "machine_max_live",
        "facts.live_machine, limits.machine_max_live)",
        "facts.live_machine, limits.machine_max_live + 1)",
        "TestWidth::test_machine_max_live",
    ),
    limit(
        "max_live",
        "facts.live_task, task.max_live)",
        "facts.live_task, task.max_live + 1)",
        "TestWidth::test_max_live_of_a_task",
    ),
    limit(
        "max_agents",
        "facts.agents_of_task >= task.max_agents",
        "facts.agents_of_task > task.max_agents",
        "TestWidth::test_max_agents_counts_those_that_ended",
    ),
    limit(
        "max_depth",
        "parent.depth + 1 > task.max_depth",
        "parent.depth > task.max_depth",
        "TestTree::test_max_depth",
    ),
    limit(
        "spawn_rate",
        "facts.recent_children >= limits.spawn_rate",
        "facts.recent_children > limits.spawn_rate",
        "TestTree::test_the_spawn_rate_is_over_a_window",
    ),
    limit(
        "spawn_rules",
        "or asked.role in rules[parent.role]:",
        "or rules[parent.role]:",
        "TestTree::test_spawn_rules_bind_the_roles_they_name",
    ),
    Break(
        "reach",
        "a child may do what its parent may not",
        "domain/admission.py",
        "beyond = None if most is None else asked.reach.beyond(most)",
        "beyond = None",
        ("tests/acceptance/test_inside.py::test_no_agent_gets_by_a_child_what_it_may_not_do_itself",),
    ),
    limit(
        "duplicate role",
        "if facts.role_holders and not asked.allow_duplicate_role:",
        "if facts.role_holders and asked.allow_duplicate_role is None:",
        "TestSameness::test_duplicate_role",
    ),
    limit(
        "same work",
        'return hashlib.sha256(prompt.strip().encode("utf-8", "surrogateescape")).hexdigest()',
        'return hashlib.sha256(prompt.encode("utf-8", "surrogateescape")).hexdigest()',
        "TestSameness::test_same_work",
        "services/admit.py",
    ),
    limit(
        "disk",
        '("min_disk_mb", "disk", machine.free_disk_mb, limits.min_disk_mb)',
        '("min_disk_mb", "disk", machine.free_disk_mb, 0)',
        "TestMachine::test_disk",
    ),
    limit(
        "memory",
        '("min_memory_mb", "memory", machine.free_memory_mb, limits.min_memory_mb)',
        '("min_memory_mb", "memory", machine.free_memory_mb, 0)',
        "TestMachine::test_memory",
    ),
    limit(
        "prompt size",
        'size = len(prompt.encode("utf-8", "surrogateescape"))',
        "size = len(prompt)",
        "TestInput::test_a_prompt_has_a_greatest_size",
        "services/request.py",
    ),
    limit(
        "blank prompt",
        "if not prompt.strip():",
        "if not prompt:",
        "TestInput::test_a_prompt_is_not_blank",
        "services/request.py",
    ),
    limit(
        "halted",
        "halted=context.home.halted.exists(),",
        "halted=False,",
        "TestMachine::test_a_halt_ends_all_and_refuses_more_until_it_is_lifted",
        "services/admit.py",
    ),
    limit(
        "task closed",
        "if task.state is not TaskState.OPEN:",
        "if task.state is TaskState.PAUSED:",
        "TestInput::test_a_task_that_is_closed",
    ),
    limit(
        "parent ended",
        "if not parent.live:",
        "if parent.live is None:",
        "TestTree::test_a_parent_that_has_ended",
    ),
    limit(
        "parent unknown",
        '        yield _parent_refused(asked, "parent_unknown", "does not exist")\n        return\n',
        "        return\n",
        "TestTree::test_an_unknown_parent",
    ),
    limit(
        "parent foreign",
        "if parent.task_id != task.task_id:",
        'if parent.task_id == "":',
        "TestTree::test_a_parent_of_another_task",
    ),
    limit(
        "idempotency key",
        "if sought.key:\n        tx.keys.put(",
        "if False and sought.key:\n        tx.keys.put(",
        "TestSameness::test_an_idempotency_key_gives_the_first_answer_again",
        "services/admit.py",
    ),
    limit(
        "idempotency key reused",
        "if fingerprint != sought.fingerprint:",
        "if not fingerprint:",
        "TestSameness::test_an_idempotency_key_is_for_one_request",
        "services/admit.py",
    ),
    # --- I1 rows(live) = processes(alive) one headcount after any crash
    Break(
        "I1",
        "a run whose deployer died after the start is not adopted",
        "domain/plan.py",
        "row.state is State.RESERVED and deployer is Presence.DEAD and seen.start",
        "row.state is State.STOPPING and deployer is Presence.DEAD and seen.start",
        (f"{FOUND}::test_a_run_that_a_dead_deployer_started_after_the_look_is_not_given_up",),
    ),
    Break(
        "I1",
        "a run that a dead deployer never started is not voided",
        "domain/plan.py",
        "return Void(seen) if seen.deployer is Presence.DEAD else None",
        "return None",
        (f"{FOUND}::test_a_repair_starts_nothing",),
    ),
    Break(
        "I1",
        "the deployer is asked for after its directory was looked at",
        "services/settle.py",
        """    deployers = {row.key: _deployer(context, row) for row in undecided}
    seen = dict(looked.seen)
    for row in rows:
        if row.key not in seen:
            seen[row.key] = context.placement.look_at(row.key, row.path)
        seen[row.key] = _if_taken_away(context, row, seen[row.key])
""",
        """    seen = dict(looked.seen)
    for row in rows:
        if row.key not in seen:
            seen[row.key] = replace(context.placement.look_at(row.key, row.path), marked=False)
        seen[row.key] = _if_taken_away(context, row, seen[row.key])
    deployers = {row.key: _deployer(context, row) for row in undecided}
""",
        (f"{FOUND}::test_a_run_that_is_started_between_two_questions_about_it_is_not_given_up",),
    ),
    Break(
        "I1",
        "what is over stays marked as live",
        "services/settle.py",
        "        context.placement.unmark(each.row.key)\n",
        "",
        (f"{FOUND}::test_a_reboot_leaves_no_row", f"{FOUND}::test_a_repair_starts_nothing"),
    ),
    Break(
        "I1",
        "a deploy whose undoing failed stays with its daemon",
        "services/settle.py",
        "return Presence.DEAD if row.key in context.given_up else",
        "return",
        (f"{FOUND}::test_a_daemon_that_cannot_undo_a_deploy_does_so_at_its_next_headcount",),
    ),
    # --- I2 no limit is exceeded under any interleaving
    Break(
        "I2",
        "the limits are checked before the transaction that takes the row",
        "services/admit.py",
        '    with context.registry.write("deploy") as tx:\n',
        """    with context.registry.read() as before:
        stale = before.runs.admission(
            request.task_id, parent=request.parent, role=request.role, work_hash=work_hash(request.prompt),
            boot_id="", since_boottime=0.0,
        )
    with context.registry.write("deploy") as tx:
        facts = {"__slots__": (), "admission": lambda *_, **__: stale}
        tx.runs = type("Stale", (type(tx.runs),), facts)(tx.runs._session)
""",
        (f"{FOUND}::test_two_deployers_between_look_and_reserve_take_one_slot",),
    ),
    Break(
        "I2",
        "a dead agent holds its slot until somebody counts",
        "services/admit.py",
        "settled = settle.record(context, tx, looked, tx.runs.live())",
        "settled = settle.record(context, tx, looked, [])",
        (f"{LIMITS}::TestWidth",),
    ),
    # --- I3 one live run per agent, never started twice, one of a role
    Break(
        "I3",
        "a runner starts a run that has a start record",
        "runtimes/runner.py",
        'for name in ("start.json", "exit.json", "void.json"):',
        'for name in ("exit.json",):',
        (
            f"{PLACEMENT}::test_a_run_that_was_started_cannot_be_started_again",
            f"{PLACEMENT}::test_a_void_run_never_starts",
        ),
    ),
    Break(
        "I3",
        "a runner does not mind that the lock is held",
        "runtimes/runner.py",
        """        if error.errno in HELD:
            return "another runner holds the lock"
        return f"the lock cannot be taken: {error.strerror}"
""",
        "        pass\n",
        (
            "tests/faults/test_second_runner.py",
            f"{RUNNER}::test_of_many_runners_of_one_run_exactly_one_starts_it",
        ),
    ),
    Break(
        "I3",
        "a double that was asked for does not keep its role",
        "store/runs.py",
        'role_holders=tuple(row["agent_id"] for row in here if row["role"] == role),',
        "role_holders=(),",
        (f"{LIMITS}::TestSameness::test_duplicate_role",),
    ),
    Break(
        "I3",
        "the schema lets one agent have two live runs",
        "store/sql/migrations/0001_core.sql",
        "CREATE UNIQUE INDEX run_live ON run (agent_id) WHERE live;",
        "CREATE INDEX run_live ON run (agent_id) WHERE live;",
        (f"{ROWS}::test_an_agent_has_one_live_run",),
    ),
    # --- I4 over stays over
    Break(
        "I4",
        "an ended run can be confirmed",
        "domain/lifecycle.py",
        "    (State.RESERVED, Change.CONFIRMED): State.RUNNING,\n",
        "    (State.RESERVED, Change.CONFIRMED): State.RUNNING,\n"
        "    (State.ENDED, Change.CONFIRMED): State.RUNNING,\n",
        ("tests/unit/test_lifecycle.py::test_over_stays_over",),
    ),
    Break(
        "I4",
        "the schema lets a run that is over live again",
        "store/sql/migrations/0001_core.sql",
        "WHEN NOT OLD.live OR NEW.agent_id <> OLD.agent_id",
        "WHEN NEW.agent_id <> OLD.agent_id",
        (f"{ROWS}::test_over_stays_over_by_constraint",),
    ),
    # --- I5 no observation error changes state
    Break(
        "I5",
        "a run that cannot be seen is taken for gone",
        "domain/plan.py",
        "        case LockState.UNKNOWN:\n            return None\n",
        "        case LockState.UNKNOWN:\n            return RecordLost(row, 'not seen')\n",
        (f"{FOUND}::test_what_cannot_be_seen_does_not_change",),
    ),
    Break(
        "I5",
        "a dead runner's run is lost though it was not reaped",
        "services/settle.py",
        "            if survivors is not None:\n                reaped[key] = tuple(survivors)\n",
        "            reaped[key] = tuple(survivors or ())\n",
        (f"{FOUND}::test_a_dead_runner_whose_second_look_fails_is_left_for_the_next_headcount",),
    ),
    Break(
        "I5",
        "a damaged record is taken for none",
        "runtimes/local.py",
        "unsure = LockState.HELD if lock is LockState.HELD else LockState.UNKNOWN",
        "unsure = lock",
        (f"{PLACEMENT}::test_damaged_and_newer_records_are_unknown_not_absent",),
    ),
    # --- I6 nothing of a stopped run survives unlisted, nothing of another is touched
    Break(
        "I6",
        "a status calls a run lost whose children live",
        "services/settle.py",
        "if not left] if gone else []",
        "if left is not None] if gone else []",
        (f"{FOUND}::test_a_status_calls_a_run_lost_only_if_nothing_of_it_is_left",),
    ),
    Break(
        "I6",
        "a pid is taken for the process that had it",
        "runtimes/system.py",
        "if found is not None and not same(found.ticks, ticks):",
        "if found is None:",
        (f"{RUNNER}::test_a_pid_that_was_given_to_another_process_is_not_killed",),
    ),
    Break(
        "I6",
        "a stop that comes between start and confirm is forgotten",
        "services/deploy.py",
        "    if run.state is State.STOPPING:\n        stop.end(context, run, grace=0.0)\n",
        "    if run.state is State.STOPPING:\n",
        (f"{FOUND}::test_a_stop_between_start_and_confirm_ends_the_run",),
    ),
    Break(
        "I6",
        "survivors are not told",
        "services/stop.py",
        "        survivors=run.survivors,\n",
        "        survivors=(),\n",
        (f"{FOUND}::test_a_survivor_is_listed",),
    ),
    # --- I7 nothing acknowledged is lost
    Break(
        "I7",
        "what is on its way into an agent's work comes with a report too",
        "services/messages.py",
        "        if each.run is not None:\n            continue",
        "        if False:\n            continue",
        (f"{MESSAGES}::test_what_is_on_its_way_into_the_work_does_not_come_with_a_report_too",),
    ),
    Break(
        "I7",
        "a late finding is acknowledged and not kept",
        "services/report.py",
        "        number = tx.findings.add(\n",
        "        number = 0 if not run.live else tx.findings.add(\n",
        (f"{FOUND}::test_what_an_agent_says_after_its_end_is_kept_and_marked_late",),
    ),
    Break(
        "I7",
        "a transaction is acknowledged and not committed",
        "store/connection.py",
        'self.connection.execute("COMMIT")',
        'self.connection.execute("ROLLBACK")',
        (f"{LIMITS}::TestInput::test_a_task_that_is_closed",),
    ),
    Break(
        "I7",
        "a message in a prompt is not counted as delivered",
        "services/settle.py",
        "        for number in tx.messages.begun(row.key, now=now):\n",
        "        for number in ():\n",
        (f"{MESSAGES}::test_an_agent_that_is_over_goes_on_with_the_message",),
    ),
    Break(
        "I7",
        "a message is handed over with every report",
        "services/messages.py",
        "        if tx.messages.deliver(each.id, Way.REPORT, run=run.key.n, now=now):\n",
        "        if True:\n",
        (f"{MESSAGES}::test_another_live_agent_is_told_with_the_answer_to_its_next_report",),
    ),
    Break(
        "I7",
        "a refusal leaves no event",
        "services/admit.py",
        "            _record_refusal(context, tx, sought, error)\n",
        "",
        (f"{LIMITS}::TestInput::test_a_task_that_is_closed",),
    ),
    Break(
        "I7",
        "an event can be deleted",
        "store/sql/migrations/0001_core.sql",
        "CREATE TRIGGER event_is_kept BEFORE DELETE ON event WHEN OLD.seq > (SELECT upto FROM retention)",
        "CREATE TRIGGER event_is_kept BEFORE DELETE ON event WHEN OLD.seq < 0",
        (f"{ROWS}::test_an_event_is_never_changed_or_deleted",),
    ),
    Break(
        "I7",
        "what a call that is sent again says is recorded again",
        "services/once.py",
        "    if earlier is None:",
        "    if earlier != 0:",
        (f"{REPEATED}::test_what_an_agent_said_before_the_daemon_died_is_said_once",),
    ),
    # --- I8 output
    Break(
        "I8",
        "what the cap takes away is not counted",
        "runtimes/stream.py",
        "            self.cut += size\n",
        "",
        (f"{OUTPUT}::test_within_the_cap_nothing_is_lost_and_beyond_it_all_is_counted",),
    ),
    Break(
        "I8",
        "bytes behind the head begin at a wrong offset",
        "runtimes/stream.py",
        "        self.out = self._open(self._name(self.total))\n",
        "        self.out = self._open(self._name(self.total + 1))\n",
        (f"{OUTPUT}::test_within_the_cap_nothing_is_lost_and_beyond_it_all_is_counted",),
    ),
    # --- I9 user text
    Break(
        "I9",
        "any text is a role",
        "domain/ids.py",
        "not _ROLE.fullmatch(role):",
        "not _ROLE.match(role):",
        ("tests/acceptance/test_deploy.py::test_a_role_that_could_harm_is_refused_before_anything_is_made",),
    ),
    Break(
        "I9",
        "an agent's text steers the terminal",
        "doors/cli/text.py",
        'return escape_controls(text if lines else " ".join(text.split()))',
        'return text if lines else " ".join(text.split())',
        ("tests/acceptance/test_cli_text.py::test_no_text_steers_the_terminal",),
    ),
    # --- I10 tokens
    Break(
        "I10",
        "an agent speaks for another",
        "services/rights.py",
        "if agent_id is not None and agent_id != own.key.agent_id:",
        "if agent_id is not None and not own.live:",
        (f"{FOUND}::test_a_token_acts_for_its_run_only",),
    ),
    Break(
        "I10",
        "an agent stops a stranger",
        "services/rights.py",
        "        if seen.key.agent_id == own.key.agent_id:\n            return\n",
        "        if seen.live:\n            return\n",
        (f"{FOUND}::test_a_token_acts_for_its_run_only",),
    ),
    Break(
        "I10",
        "a child belongs to whom it names",
        "services/admit.py",
        "parent = request.parent if own is None else own.key.agent_id",
        "parent = request.parent",
        (f"{LIMITS}::TestTree::test_max_depth",),
    ),
    Break(
        "I10",
        "an agent acts when its run is over",
        "services/rights.py",
        "    if run is not None and not run.live:\n",
        "    if run is not None and run.key.n < 0:\n",
        ("tests/acceptance/test_rights.py",),
    ),
    Break(
        "I10",
        "a web page with a token is answered",
        "doors/http/app.py",
        "        if page := page_refusal(Headers(scope=scope)):\n",
        "        if (page := page_refusal(Headers(scope=scope))) and not bearer(Headers(scope=scope)):\n",
        ("tests/acceptance/test_web_pages.py",),
    ),
    # --- I11 intent
    Break(
        "I11",
        "the watchdog does not see a pause or a halt",
        "services/watchdog.py",
        "if task is None or task.state is not TaskState.OPEN or context.home.halted.exists():",
        "if task is None:",
        (f"{WATCHDOG}::test_while_a_persons_word_is_in_force_nothing_is_done",),
    ),
    Break(
        "I11",
        "a stop leaves the restart that is owed",
        "services/stop.py",
        "        forgo_restarts(context, tx, agent_id)\n",
        "",
        (f"{WATCHDOG}::test_what_a_person_stops_is_not_restarted",),
    ),
    Break(
        "I11",
        "one witness is enough",
        "domain/watchdog.py",
        "return self.confirmed and self.held_s >= policy.act_after_s",
        "return self.held_s >= policy.act_after_s",
        (f"{WATCHDOG}::test_a_silent_agent_that_computes_is_not_stopped",),
    ),
    Break(
        "I11",
        "time that nobody watched counts",
        "daemon/watchdog.py",
        "min(now - self._looked, LATE * self._context.settings.watchdog_every)",
        "now - self._looked",
        (f"{WATCHDOG}::test_nothing_fires_for_a_night_in_which_nobody_watched",),
    ),
    # --- what only random histories find
    Break(
        "I1",
        "a reserved run is given up by time, not by its deployer's death",
        "domain/plan.py",
        "if deployer is Presence.DEAD and not seen.marked:",
        "if not seen.marked:",
        (HISTORIES,),
    ),
    Break(
        "I7",
        "a refusal undoes what was recorded with it",
        "services/admit.py",
        "        except (Refused, NotFound) as error:",
        "        except NotFound as error:",
        (HISTORIES,),
    ),
)
