"""What is written into the registry is what is read from it, and its rules hold whatever the code does."""

# ruff: noqa: PT012  # the transaction is what raises; what is in it is the one statement
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headcount.domain.errors import InvalidInput, NotFound, Refused
from headcount.domain.lifecycle import TRANSITIONS, Change, IllegalChange, Outcome, State, advance
from headcount.domain.model import (
    ExitRecord,
    Message,
    Process,
    ReportStatus,
    RunKey,
    Severity,
    Task,
    TaskContext,
    TaskState,
)
from headcount.store.registry import Registry, Tx
from tests.support.registries import (
    AGENT,
    BOOT,
    DEPLOYER,
    RUNNER,
    TASK,
    confirm,
    end,
    exit_record,
    new_run,
    registry,
    task,
    with_task,
)

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
times = st.floats(min_value=0, max_value=4e9)
pids = st.integers(min_value=1, max_value=2**22)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)
processes = st.builds(Process, pids, st.integers(0, 2**63 - 1), text)
many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@pytest.fixture
def opened(home: Path) -> Iterator[Registry]:
    made = with_task(home)
    yield made
    made.close()


class _Undo(Exception):
    """Ends a transaction without a trace."""


def in_a_transaction(opened: Registry, work: Any) -> None:
    """Run `work(tx)` and undo it."""
    with pytest.raises(_Undo), opened.write("test") as tx:
        work(tx)
        raise _Undo


# ------------------------------------------------------------------ round trips


@many
@given(
    found=st.builds(
        Task,
        task_id=st.just("task-01jx5e2k9pab12ce"),
        description=text,
        priority=text,
        project=text,
        state=st.sampled_from([TaskState.OPEN, TaskState.PAUSED]),
        context=st.builds(
            TaskContext,
            background=st.text(),
            deliverables=st.lists(st.text()).map(tuple),
            relevant_files=st.lists(st.text()).map(tuple),
            conversation=st.lists(st.builds(Message, st.text(), st.text(), st.none() | st.text())).map(tuple),
        ),
        max_live=pids,
        max_agents=pids,
        max_depth=pids,
        spawn_rules=st.none() | st.dictionaries(st.text(), st.lists(st.text()).map(tuple)),
        created_at=times,
        closed_at=st.none(),
    )
)
def test_a_task_is_read_as_it_was_written(opened: Registry, found: Task) -> None:
    def work(tx: Tx) -> None:
        tx.tasks.add(found)
        assert tx.tasks.get(found.task_id) == found

    in_a_transaction(opened, work)


@many
@given(
    model=st.none() | text,
    prompt=st.none() | text,
    work_hash=st.none() | text,
    command=st.lists(st.text()).map(tuple),
    cwd=text,
    path=text,
    deployer=processes,
    reserved_at=times,
    runner=processes,
    process=processes,
    started_at=times,
    reason=st.none() | text,
    result=st.none() | json_objects,
    usage=st.none() | json_objects,
    survivors=st.lists(pids).map(tuple),
    record=st.none()
    | st.builds(
        ExitRecord,
        code=st.integers(0, 255),
        signal=st.none(),
        error=st.none() | st.text(),
        stopped=st.booleans(),
        started_at=st.none() | times,
        ended_at=times,
        **dict.fromkeys(
            ("max_rss_kb", "cpu_ms", "output_bytes", "output_cut", "stderr_bytes", "stderr_cut"), pids
        ),
        survivors=st.lists(pids).map(tuple),
    ),
    outcome=st.sampled_from(Outcome),
)
def test_a_run_is_read_as_it_was_written(opened: Registry, **facts: Any) -> None:
    rows = {"model", "prompt", "work_hash", "command", "cwd", "path", "deployer", "reserved_at"}
    new = new_run("builder-1", **{name: facts[name] for name in rows})
    key, record = new.key, facts["record"]
    identity = {name: facts[name] for name in ("runner", "process", "started_at")}

    def work(tx: Tx) -> None:
        tx.runs.add(new)
        (live,) = tx.runs.live()
        assert (live.key, live.path, live.deployer) == (key, new.path, new.deployer)
        assert (live.role, live.harness, live.state) == ("builder", "command", State.RESERVED)
        assert confirm(tx, key, **identity)
        assert tx.runs.end(
            key,
            exit=record,
            now=7.0,
            **{name: facts[name] for name in ("outcome", "reason", "result", "usage", "survivors")},
        )
        run = tx.runs.get("builder-1")
        assert run is not None
        assert (run.path, run.deployer, run.reserved_at) == (new.path, new.deployer, new.reserved_at)
        assert (run.runner, run.process, run.started_at) == tuple(identity.values())
        assert (run.state, run.outcome, run.reason) == (State.ENDED, facts["outcome"], facts["reason"])
        assert (run.result, run.usage, run.survivors) == (facts["result"], facts["usage"], facts["survivors"])
        assert run.ended_at == (record.ended_at if record else 7.0)
        assert run.exit_code == (record.code if record else None)

    in_a_transaction(opened, work)


@many
@given(
    message=text,
    status=st.sampled_from(ReportStatus),
    progress=st.none() | st.integers(0, 100),
    severity=st.sampled_from(Severity),
    data=json_objects,
    late=st.booleans(),
    at=times,
)
def test_what_an_agent_says_is_read_as_it_was_written(
    opened: Registry,
    message: str,
    status: ReportStatus,
    progress: int | None,
    severity: Severity,
    data: dict[str, object],
    late: bool,
    at: float,
) -> None:
    def work(tx: Tx) -> None:
        tx.runs.add(new_run("builder-1"))
        said: dict[str, Any] = {"message": message, "late": late, "now": at}
        number = tx.reports.add("builder-1", 1, TASK, status=status, progress=progress, **said)
        (report,) = tx.reports.page(TASK, limit=9)
        assert (report.id, report.status, report.progress, report.late) == (number, status, progress, late)
        assert (report.message, report.at, report.run, report.task_id) == (message, at, 1, TASK)
        number = tx.findings.add("builder-1", 1, TASK, type=message, severity=severity, data=data, **said)
        (finding,) = tx.findings.page(TASK, limit=9)
        assert (finding.id, finding.type, finding.severity, finding.data) == (number, message, severity, data)
        number = tx.events.add(
            "k", task_id=TASK, agent_id="builder-1", run=1, reason=message, data=data, now=at
        )
        (event,) = tx.events.since(0, limit=9)
        assert (event.seq, event.kind, event.reason, event.data) == (number, "k", message, data)
        assert (event.task_id, event.agent_id, event.run, event.at) == (TASK, "builder-1", 1, at)

    in_a_transaction(opened, work)


@pytest.mark.parametrize("role", ["a\ud800b", "\udcff"])
def test_half_of_a_surrogate_pair_is_refused_and_nothing_is_written(opened: Registry, role: str) -> None:
    with pytest.raises(InvalidInput, match="Unicode"), opened.write("test") as tx:
        tx.events.add("before", now=1.0)
        tx.events.add(role, now=1.0)
    with opened.read() as tx:
        assert tx.events.since(0, limit=9) == []


def test_a_number_beyond_64_bits_is_refused(opened: Registry) -> None:
    with pytest.raises(InvalidInput, match="64 bits"), opened.read() as tx:
        tx.events.since(2**63, limit=1)


# ------------------------------------------------------------------ slots


def adding_is_refused(opened: Registry, code: str, first: Any, second: Any) -> None:
    with opened.write("test") as tx:
        tx.runs.add(first)
    with pytest.raises(Refused) as refused, opened.write("test") as tx:
        tx.runs.add(second)
    assert refused.value.code == code
    with opened.read() as tx:
        assert [row.key for row in tx.runs.live()] == [first.key]


@pytest.mark.parametrize("holder_takes", [True, False])
def test_a_newcomer_that_takes_the_role_is_refused_by_any_live_holder(
    opened: Registry, holder_takes: bool
) -> None:
    first = new_run("builder-1", takes_role=holder_takes)
    adding_is_refused(opened, "duplicate_role", first, new_run("builder-2", takes_role=True))


@pytest.mark.parametrize("holder_takes", [True, False])
def test_a_newcomer_that_takes_the_work_is_refused_by_any_live_holder(
    opened: Registry, holder_takes: bool
) -> None:
    first = new_run("builder-1", work_hash="w", takes_work=holder_takes)
    adding_is_refused(opened, "same_work", first, new_run("fixer-2", work_hash="w", takes_work=True))


def test_the_unique_index_alone_keeps_a_role_single(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs._session._connection.execute("DROP TRIGGER run_role_is_free")
    adding_is_refused(
        opened, "duplicate_role", new_run("builder-1", takes_role=True), new_run("builder-2", takes_role=True)
    )


def test_a_refused_run_leaves_no_agent_in_its_transaction(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1", takes_role=True))
        with pytest.raises(Refused):
            tx.runs.add(new_run("builder-2", takes_role=True))
        with pytest.raises(Refused):
            tx.runs.add(new_run("builder-1"))
        assert agents_left(tx) == {"builder-1"}


def test_a_double_that_was_asked_for_is_let_in(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1", takes_role=True, work_hash="w", takes_work=True))
        tx.runs.add(new_run("builder-2", work_hash="w"))
        assert len(tx.runs.live()) == 2


def test_a_slot_is_free_again_when_its_holder_is_over(opened: Registry) -> None:
    with opened.write("test") as tx:
        for number in range(3):
            tx.runs.add(new_run(f"builder-{number}", takes_role=True))
            assert tx.runs.lost(RunKey(f"builder-{number}", 1), reason="gone", survivors=(), now=2.0)


def test_the_same_role_and_work_in_another_task_is_no_double(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.tasks.add(task("task-other"))
        slots: dict[str, Any] = {"takes_role": True, "takes_work": True, "work_hash": "w"}
        tx.runs.add(new_run("builder-1", **slots))
        tx.runs.add(new_run("builder-2", task_id="task-other", **slots))


def test_an_agent_has_one_live_run(opened: Registry) -> None:
    adding_is_refused(opened, "agent_live", new_run("builder-1"), new_run("builder-1", 2))


def test_an_agent_id_is_unique(opened: Registry) -> None:
    adding_is_refused(opened, "agent_exists", new_run("builder-1"), new_run("builder-1"))


def test_a_run_number_only_grows(opened: Registry) -> None:
    with opened.write("test") as tx:
        for n in (1, 4):
            tx.runs.add(new_run("builder-1", n))
            assert end(tx, RunKey("builder-1", n))
    for n in (1, 3, 4):
        with pytest.raises(Refused), opened.write("test") as tx:
            tx.runs.add(new_run("builder-1", n, first=False))


@pytest.mark.parametrize(
    "given_", [{"task_id": "task-none"}, {"parent": "builder-none", "depth": 2}, {"first": False}]
)
def test_a_run_needs_its_task_parent_and_agent(opened: Registry, given_: dict[str, Any]) -> None:
    with pytest.raises(NotFound), opened.write("test") as tx:
        tx.runs.add(new_run("builder-1", **given_))


def test_a_run_is_of_its_agents_task(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.tasks.add(task("task-other"))
        tx.runs.add(new_run("builder-1"))
        end(tx, RunKey("builder-1", 1))
    with pytest.raises(NotFound), opened.write("test") as tx:
        tx.runs.add(new_run("builder-1", 2, task_id="task-other"))


# ------------------------------------------------------------------ changes


def bring(tx: Tx, state: State) -> RunKey:
    """Add a run in `state`."""
    key = RunKey("builder-1", 1)
    tx.runs.add(new_run("builder-1"))
    if state is State.RUNNING:
        assert confirm(tx, key)
    elif state is State.STOPPING:
        assert tx.runs.stop_asked(key, reason="test", by=None, now=2.0)
    elif state is State.ENDED:
        assert end(tx, key)
    elif state is State.LOST:
        assert tx.runs.lost(key, reason="test", survivors=(), now=2.0)
    return key


def change(tx: Tx, key: RunKey, what: Change) -> bool:
    if what is Change.CONFIRMED:
        return confirm(tx, key)
    if what is Change.STOP_ASKED:
        return tx.runs.stop_asked(key, reason="again", by="someone", now=3.0)
    if what is Change.END_SEEN:
        return end(tx, key, outcome=Outcome.FAILED)
    return tx.runs.lost(key, reason="gone", survivors=(1,), now=3.0)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("what", Change)
def test_the_registry_changes_state_as_the_table_says(opened: Registry, state: State, what: Change) -> None:
    def work(tx: Tx) -> None:
        key = bring(tx, state)
        before = tx.runs.get("builder-1")
        changed = change(tx, key, what)
        after = tx.runs.get("builder-1")
        assert after is not None
        assert changed == ((state, what) in TRANSITIONS)
        if changed:
            assert after.state is advance(state, what)
        else:
            assert after == before
            with pytest.raises(IllegalChange):
                advance(state, what)

    in_a_transaction(opened, work)


@pytest.mark.parametrize("state", [State.ENDED, State.LOST])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE run SET state = 'running'", "UPDATE run SET outcome = 'failed'", "UPDATE run SET ended_at = 3"],
)
def test_over_stays_over_by_constraint(opened: Registry, state: State, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="over"), opened.write("test") as tx:
        bring(tx, state)
        tx.runs._session._connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run SET state = 'ended', ended_at = 1",  # without an outcome
        "UPDATE run SET outcome = 'failed'",  # while it lives
        "UPDATE run SET state = 'lost'",  # without a time
        "UPDATE run SET state = 'running'",  # without an identity
        "UPDATE run SET state = 'asleep'",
        "UPDATE run SET exit_code = 1, signal = 9",
        "UPDATE run SET n = 2",
        "UPDATE run SET runner_pid = 1",
        "DELETE FROM run",
        "UPDATE task SET state = 'closed'",  # without a time
        "UPDATE task SET state = 'asleep'",
        "INSERT INTO task SELECT * FROM task",
        "UPDATE run SET view_failures = 'many'",
    ],
)
def test_a_row_that_cannot_be_true_is_not_written(opened: Registry, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError), opened.write("test") as tx:
        bring(tx, State.RESERVED)
        tx.runs._session._connection.execute(statement)


def test_an_end_that_was_never_confirmed_has_its_start_from_the_record(opened: Registry) -> None:
    with opened.write("test") as tx:
        key = bring(tx, State.RESERVED)
        assert end(tx, key, exit=replace(exit_record(), started_at=5.0, ended_at=6.0))
        run = tx.runs.get("builder-1")
        assert run is not None
        assert (run.started_at, run.ended_at, run.runner) == (5.0, 6.0, None)


@pytest.mark.parametrize("to", TaskState)
@pytest.mark.parametrize("state", TaskState)
def test_a_task_moves_only_from_where_it_is_said_to_be(
    opened: Registry, state: TaskState, to: TaskState
) -> None:
    closed = None if state in {TaskState.OPEN, TaskState.PAUSED} else 5.0

    def work(tx: Tx) -> None:
        tx.tasks.add(task("task-other", state=state, closed_at=closed))
        elsewhere = tuple(set(TaskState) - {state})
        assert not tx.tasks.move("task-other", from_=elsewhere, to=to, now=9.0)
        assert tx.tasks.move("task-other", from_=(state,), to=to, now=9.0)
        found = tx.tasks.get("task-other")
        assert found is not None
        assert found.state is to
        over = to in {TaskState.CLOSED, TaskState.ARCHIVED}
        assert found.closed_at == ((closed or 9.0) if over else None)
        assert not tx.tasks.move("task-none", from_=tuple(TaskState), to=to, now=9.0)

    in_a_transaction(opened, work)


# ------------------------------------------------------------------ reading


def test_admission_counts_what_lives_and_what_has_lived(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.tasks.add(task("task-other"))
        tx.runs.add(new_run("builder-1", work_hash="w"))
        tx.runs.add(new_run("fixer-2", work_hash="v", parent="builder-1", depth=2, reserved_boottime=95.0))
        tx.runs.add(new_run("fixer-3", parent="builder-1", depth=2, reserved_boottime=90.0))
        earlier = Process(1, 1, "another boot")
        tx.runs.add(new_run("fixer-4", parent="builder-1", depth=2, reserved_boottime=99.0, deployer=earlier))
        tx.runs.add(new_run("builder-5", task_id="task-other"))
        end(tx, RunKey("fixer-3", 1))
        facts = tx.runs.admission(
            TASK, parent="builder-1", role="builder", work_hash="v", boot_id=BOOT, since_boottime=90.0
        )
        nobody = tx.runs.admission(
            "task-none", parent="x-1", role="x", work_hash=None, boot_id=BOOT, since_boottime=0.0
        )
    assert facts.task == task()
    assert facts.live_machine == ("builder-1", "fixer-2", "fixer-4", "builder-5")
    assert facts.live_task == ("builder-1", "fixer-2", "fixer-4")
    assert facts.agents_of_task == 4
    assert facts.parent is not None
    assert facts.parent.key == RunKey("builder-1", 1)
    assert facts.role_holders == ("builder-1",)
    assert facts.work_holders == ("fixer-2",)
    assert facts.recent_children == 1
    assert (nobody.task, nobody.parent, nobody.live_task, nobody.work_holders) == (None, None, (), ())


def test_pages_are_complete_and_newest_first(opened: Registry) -> None:
    with opened.write("test") as tx:
        for number in range(7):
            tx.runs.add(new_run(f"builder-{number}"))
            if number % 2:
                end(tx, RunKey(f"builder-{number}", 1))
        tx.runs.add(new_run("builder-1", 2))  # its latest run is live
    with opened.read() as tx:
        for where in (TASK, None):
            for everything, names in ((True, "6543210"), (False, "64210")):
                pages: list[str] = []
                after = None
                while page := tx.runs.page(where, all=everything, limit=2, after=after):
                    pages += [run.key.agent_id[-1] for run in page]
                    after = page[-1].key.agent_id
                assert "".join(pages) == names
        assert tx.runs.page(None, all=True, limit=9, after="builder-none") == []
        assert [run.key.n for run in tx.runs.page(TASK, all=True, limit=9)] == [1, 1, 1, 1, 1, 2, 1]
        assert tx.runs.get("builder-1") == tx.runs.get("builder-1", 2)
        assert [run.key.agent_id for run in tx.runs.live_of_task(TASK)] == [
            f"builder-{n}" for n in (0, 1, 2, 4, 6)
        ]


def test_tasks_are_paged_newest_first_without_archived_ones(opened: Registry) -> None:
    with opened.write("test") as tx:
        for number in range(4):
            tx.tasks.add(task(f"task-1{number}", created_at=float(number)))
        tx.tasks.move("task-12", from_=tuple(TaskState), to=TaskState.ARCHIVED, now=1.0)
        first = tx.tasks.page(limit=2)
        second = tx.tasks.page(limit=9, before=first[-1].task_id)
        assert [each.task_id for each in first + second] == ["task-13", "task-11", "task-10", TASK]
        assert [each.task_id for each in tx.tasks.page(TaskState.ARCHIVED, limit=9)] == ["task-12"]


def test_counts_follow_from_the_rows(opened: Registry) -> None:
    with opened.write("test") as tx:
        for number, outcome in enumerate([Outcome.COMPLETED, Outcome.FAILED, Outcome.FAILED]):
            tx.runs.add(new_run(f"builder-{number}"))
            end(tx, RunKey(f"builder-{number}", 1), outcome=outcome)
        tx.runs.add(new_run("builder-2", 2))
        tx.runs.add(new_run("builder-4"))
        tx.runs.lost(RunKey("builder-4", 1), reason="gone", survivors=(), now=2.0)
        counts = tx.runs.counts(TASK)
    expected = {"total": 4, "live": 1, "reserved": 1, "ended": 2, "completed": 1, "failed": 1, "lost": 1}
    assert {name: number for name, number in counts.items() if number} == expected
    assert set(counts) == {"total", "live", *State, *Outcome}


def test_a_token_finds_its_run_only(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1", token_hash=b"\x01\xff"))
        tx.runs.add(new_run("builder-2", token_hash="02"))
        found = tx.runs.by_token("01ff")
        assert found is not None
        assert found.key == RunKey("builder-1", 1)
        assert tx.runs.by_token(b"\x02") == tx.runs.get("builder-2")
        assert tx.runs.by_token("03") is None


def test_the_latest_report_is_of_the_latest_run(opened: Registry) -> None:
    def say(tx: Tx, run: int, message: str) -> None:
        said: dict[str, Any] = {"status": ReportStatus.WORKING, "progress": None, "late": False, "now": 1.0}
        tx.reports.add("builder-1", run, TASK, message=message, **said)

    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1"))
        assert tx.reports.latest("builder-1") is None
        say(tx, 1, "one")
        end(tx, RunKey("builder-1", 1))
        tx.runs.add(new_run("builder-1", 2))
        say(tx, 2, "two")
        say(tx, 2, "three")
        say(tx, 1, "late")
        latest = tx.reports.latest("builder-1")
        assert latest is not None
        assert latest.message == "three"
        keys = [RunKey("builder-1", 1), RunKey("builder-1", 2), RunKey("builder-1", 3)]
        assert {key.n: report.message for key, report in tx.reports.latest_of(keys).items()} == {
            1: "late",
            2: "three",
        }
        assert [each.message for each in tx.reports.recent(TASK, limit=2)] == ["late", "three"]
        assert [each.message for each in tx.reports.page(agent_id="builder-1", after=1, limit=2)] == [
            "two",
            "three",
        ]
        assert len(tx.reports.page(limit=9)) == 4


def test_findings_are_filtered_and_counted(opened: Registry) -> None:
    with opened.write("test") as tx:
        for name in ("a-1", "b-2"):
            tx.runs.add(new_run(name))
        for number, (agent, kind, severity) in enumerate(
            [("a-1", "bug", Severity.HIGH), ("b-2", "bug", Severity.LOW), ("b-2", "note", Severity.LOW)]
        ):
            about: dict[str, Any] = {
                "type": kind,
                "severity": severity,
                "message": str(number),
                "data": {},
                "late": False,
            }
            tx.findings.add(agent, 1, TASK, now=float(number), **about)

        def numbers(**wanted: Any) -> str:
            return "".join(each.message for each in tx.findings.page(TASK, limit=9, **wanted))

        assert numbers() == "012"
        assert numbers(severity=Severity.LOW) == "12"
        assert numbers(type="bug") == "01"
        assert numbers(agent_id="b-2") == "12"
        assert numbers(since=1.0) == "12"
        assert numbers(after=1) == "12"
        assert numbers(type="bug", severity="low") == "1"
        assert [each.message for each in tx.findings.recent(TASK, limit=2)] == ["2", "1"]
        counts = tx.findings.summary(TASK)
    assert counts.total == 3
    assert list(counts.by_severity.items()) == [("high", 1), ("low", 2)]
    assert counts.by_type == {"bug": 2, "note": 1}


def test_an_idempotency_key_is_answered_once(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1"))
        assert tx.keys.get("s", "k") is None
        answer: dict[str, Any] = {"request_hash": "h", "agent_id": "builder-1", "run": 1, "now": 5.0}
        tx.keys.put("s", "k", **answer)
        assert tx.keys.get("s", "k") == ("h", "builder-1", 1)
        assert tx.keys.get("s2", "k") is None
        with pytest.raises(sqlite3.IntegrityError):
            tx.keys.put("s", "k", **answer)


def test_a_call_writes_once_and_is_forgotten_by_its_age(opened: Registry) -> None:
    with opened.write("test") as tx:
        assert tx.calls.get("person", "k") is None
        tx.calls.put("person", "k", request_hash="h", wrote={"id": 1, "late": False}, now=5.0)
        assert tx.calls.get("person", "k") == ("h", {"id": 1, "late": False})
        assert tx.calls.get("builder-1", "k") is None
        with pytest.raises(sqlite3.IntegrityError):
            tx.calls.put("person", "k", request_hash="h", wrote={}, now=5.0)
        assert tx.calls.prune(5.0) == 0
        assert tx.calls.prune(6.0) == 1


# ------------------------------------------------------------------ the journal


def test_an_event_is_never_changed_or_deleted(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.events.add("k", now=1.0)
    for statement in (
        "UPDATE event SET kind = 'x'",
        "DELETE FROM event",
        "REPLACE INTO event SELECT * FROM event",
    ):
        with pytest.raises(sqlite3.IntegrityError), opened.write("test") as tx:
            tx.events._session._connection.execute(statement)
    with opened.read() as tx:
        assert [each.kind for each in tx.events.since(0, limit=9)] == ["k"]


def test_pruning_spares_the_newest_and_never_gives_a_number_twice(opened: Registry) -> None:
    with opened.write("test") as tx:
        for number in range(1, 11):
            tx.events.add(f"k{number}", now=float(number))
        assert tx.events.prune(before=20.0, keep=100) == 0
        assert tx.events.prune(before=4.0, keep=2) == 3
        assert tx.events.prune(before=20.0, keep=2) == 5
        assert [each.seq for each in tx.events.since(0, limit=9)] == [9, 10]
        assert tx.events.prune(before=20.0, keep=0) == 2
        assert tx.events.last() == 10
        assert tx.events.add("k", now=1.0) == 11
    with pytest.raises(sqlite3.IntegrityError), opened.write("test") as tx:
        tx.events._session._connection.execute("DELETE FROM event")


def test_events_are_followed_by_a_cursor(opened: Registry) -> None:
    with opened.write("test") as tx:
        assert tx.events.last() == 0
        tx.events.add("a", task_id="t1", agent_id="x-1", now=1.0)
        tx.events.add("refused", task_id="t1", reason="max_live", now=1.0)
        tx.events.add("refused", task_id="t1", reason="max_live", now=1.0)
        tx.events.add("refused", task_id="t2", reason="max_depth", now=1.0)
        tx.events.add("b|c", task_id="t1", agent_id="x-1", now=1.0)

        def kinds(cursor: int = 0, **wanted: Any) -> list[int]:
            return [each.seq for each in tx.events.since(cursor, limit=9, **wanted)]

        assert kinds() == [1, 2, 3, 4, 5]
        assert kinds(3) == [4, 5]
        assert kinds(task_id="t1") == [1, 2, 3, 5]
        assert kinds(agent_id="x-1") == [1, 5]
        assert kinds(agent_id="x-1", task_id="t2") == []
        assert kinds(kinds=["a"]) == [1]
        assert kinds(kinds=["a", "refused"], task_id="t1") == [1, 2, 3]
        assert kinds(kinds=[]) == []
        assert [each.seq for each in tx.events.since(1, limit=2)] == [2, 3]
        assert tx.events.refusals("t1") == {"max_live": 2}
        assert tx.events.last() == 5


# ------------------------------------------------------------------ forgetting


def test_a_live_run_is_not_forgotten(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1"))
        assert tx.runs.forget([RunKey("builder-1", 1)]) == 0
        assert tx.runs.get("builder-1") is not None


def test_a_forgotten_agent_still_counts_against_an_open_task(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("builder-1", prompt="p"))
        end(tx, RunKey("builder-1", 1))
        assert tx.runs.forget([RunKey("builder-1", 1)]) == 1
        assert tx.runs.get("builder-1") is None
        facts = tx.runs.admission(
            TASK, parent=None, role="b", work_hash=None, boot_id=BOOT, since_boottime=0.0
        )
        assert facts.agents_of_task == 1
        assert tx.runs.page(TASK, all=True, limit=9) == []


def agents_left(tx: Tx) -> set[str]:
    rows = tx.runs._session._connection.execute("SELECT agent_id FROM agent")
    return {row[0] for row in rows}


def test_agents_of_a_closed_task_go_when_nothing_refers_to_them(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("a-1"))
        tx.runs.add(new_run("b-2", parent="a-1", depth=2))
        tx.runs.add(new_run("c-3"))
        about: dict[str, Any] = {
            "type": "t",
            "severity": Severity.LOW,
            "message": "m",
            "data": {},
            "late": False,
            "now": 1.0,
        }
        tx.findings.add("c-3", 1, TASK, **about)
        tx.reports.add(
            "a-1", 1, TASK, status=ReportStatus.DONE, message="", progress=None, late=False, now=1.0
        )
        keys = [RunKey(name, 1) for name in ("a-1", "b-2", "c-3")]
        for key in keys:
            end(tx, key)
        tx.tasks.move(TASK, from_=(TaskState.OPEN,), to=TaskState.CLOSED, now=1.0)
        assert tx.runs.forget(keys[:1]) == 1
        assert agents_left(tx) == {"a-1", "b-2", "c-3"}  # a-1 has a child
        assert tx.reports.page(limit=9) == []
        assert tx.runs.forget(keys[1:]) == 2
        assert agents_left(tx) == {"c-3"}  # its finding outlives it
        assert len(tx.findings.page(TASK, limit=9)) == 1


def test_the_latest_run_of_an_agent_goes_last(opened: Registry) -> None:
    """Its number fences the tokens of the earlier ones."""
    with opened.write("test") as tx:
        for n in (1, 2):
            tx.runs.add(new_run("a-1", n))
            end(tx, RunKey("a-1", n))
        assert tx.runs.forget([RunKey("a-1", 2)]) == 0
        assert tx.runs.forget([RunKey("a-1", 2), RunKey("a-1", 1)]) == 2


def test_only_runs_that_were_over_in_time_are_named_to_the_collector(opened: Registry) -> None:
    with opened.write("test") as tx:
        for number, at in enumerate([30.0, 10.0, 20.0]):
            tx.runs.add(new_run(f"a-{number}"))
            tx.runs.lost(RunKey(f"a-{number}", 1), reason="r", survivors=(), now=at)
        tx.runs.add(new_run("a-live"))
        assert [run.key.agent_id for run in tx.runs.ended_before(30.0, 9)] == ["a-1", "a-2"]
        assert [run.key.agent_id for run in tx.runs.ended_before(99.0, 1)] == ["a-1"]


def test_views_that_died_are_counted(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("a-1"))
        assert [tx.runs.view_failed(RunKey("a-1", n)) for n in (1, 1, 2)] == [1, 2, 0]


def test_children_are_named_by_their_latest_run(opened: Registry) -> None:
    with opened.write("test") as tx:
        tx.runs.add(new_run("a-1"))
        for name in ("b-2", "c-3"):
            tx.runs.add(new_run(name, parent="a-1", depth=2))
        end(tx, RunKey("b-2", 1))
        tx.runs.add(new_run("b-2", 2))
        assert [run.key for run in tx.runs.children("a-1")] == [RunKey("b-2", 2), RunKey("c-3", 1)]
        assert {run.parent for run in tx.runs.children("a-1")} == {"a-1"}


# ------------------------------------------------------------------ transactions


def test_a_transaction_that_fails_leaves_nothing(opened: Registry) -> None:
    with pytest.raises(ZeroDivisionError), opened.write("test") as tx:
        tx.runs.add(new_run("a-1"))
        tx.events.add("k", now=1 / 0)
    with opened.read() as tx:
        assert tx.runs.get("a-1") is None


def test_a_snapshot_does_not_change_under_its_reader(home: Path, opened: Registry) -> None:
    other = registry(home)
    with opened.read() as tx:
        assert tx.events.last() == 0
        with other.write("test") as their:
            their.events.add("k", now=1.0)
        assert tx.events.last() == 0
    with opened.read() as tx:
        assert tx.events.last() == 1
    other.close()


def test_a_transaction_in_a_transaction_is_a_mistake_that_is_told(opened: Registry) -> None:
    with opened.write("test") as tx:
        for again in (opened.write("again"), opened.read()):
            with pytest.raises(RuntimeError, match="transaction open"), again:
                pass
        tx.events.add("k", now=1.0)
    with opened.read() as tx:
        assert tx.events.last() == 1


def test_the_version_changes_with_every_commit_and_only_then(home: Path, opened: Registry) -> None:
    other = registry(home)
    seen = [opened.version()]
    for writer in (opened, other):
        with writer.write("test") as tx:
            tx.events.add("k", now=1.0)
        seen.append(opened.version())
    with pytest.raises(_Undo), other.write("test") as tx:
        tx.events.add("k", now=1.0)
        raise _Undo
    with other.read():
        pass
    assert len(set(seen)) == 3
    assert opened.version() == seen[-1]
    other.close()


def test_identities_are_not_mixed_up(opened: Registry) -> None:
    with opened.write("test") as tx:
        key = bring(tx, State.RUNNING)
        (live,) = tx.runs.live()
        run = tx.runs.get(key.agent_id)
        assert run is not None
        assert (live.deployer, live.runner, live.process) == (DEPLOYER, RUNNER, AGENT)
        assert (run.deployer, run.runner, run.process) == (DEPLOYER, RUNNER, AGENT)
