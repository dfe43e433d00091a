"""The daemon's figures: what each says, who may read them, and what is written that rests on them."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # the library says nothing of types
from prometheus_client.parser import text_string_to_metric_families

from headcount import Headcount
from headcount.config import Home
from headcount.daemon.metrics import FIGURES, Metrics
from headcount.domain.errors import HeadcountError
from headcount.domain.model import RunKey
from headcount.services.answers import Problem
from tests.support import daemons
from tests.support.fleets import alive, fleet, new_task, sleeper
from tests.support.source import REPOSITORY
from tests.support.waiting import until

Values = Mapping[tuple[str, ...], float]


def values(text: str) -> Values:
    """Return each sample by its name and the values of its labels."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


@pytest.fixture
def metrics(opened: Headcount) -> Metrics:
    made = Metrics(opened.context)
    opened.context.registry.around = made.transaction
    made.begin()
    return made


def now(metrics: Metrics) -> Values:
    return values(metrics.exposition().decode())


def test_what_happens_is_counted_once_whoever_did_it(
    opened: Headcount, metrics: Metrics, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    first, second = sleeper(opened, task), sleeper(opened, task, role="tester", allow_same_work=True)
    with pytest.raises(HeadcountError):
        sleeper(opened, task)
    found = now(metrics)
    assert found["headcount_agents", "command", "running"] == 2
    assert found["headcount_admissions_total", "deploy"] == 2
    assert found["headcount_refusals_total", "duplicate_role"] == 1
    assert found["headcount_deploy_seconds_count",] == 2
    opened.kill_agent(first.agent_id)
    assert second.runner_pid is not None
    os.kill(second.runner_pid, signal.SIGKILL)
    until(lambda: not alive(second.runner_pid), what="the end of its runner")
    opened.validate_and_repair_registry(dry_run=False)
    for _ in range(2):
        found = now(metrics)
        assert ("headcount_agents", "command", "running") not in found
        assert found["headcount_runs_over_total", "command", "stopped"] == 1
        assert found["headcount_runs_over_total", "command", "lost"] == 1
        assert found["headcount_repairs_total", "ghost"] == 1
        assert found["headcount_repairs_total", "stray"] == 0
        assert found["headcount_exit_notice_seconds_count",] == 1
        assert found["headcount_admissions_total", "deploy"] == 2


def test_what_was_before_its_start_is_not_counted(opened: Headcount, tmp_path: Path) -> None:
    sleeper(opened, new_task(opened, tmp_path))
    metrics = Metrics(opened.context)
    metrics.begin()
    found = now(metrics)
    assert ("headcount_admissions_total", "deploy") not in found
    assert found["headcount_agents", "command", "running"] == 1


def test_what_a_run_used_is_counted_once_its_account_is_there(
    opened: Headcount, metrics: Metrics, tmp_path: Path
) -> None:
    made = sleeper(opened, new_task(opened, tmp_path))
    opened.kill_agent(made.agent_id)
    assert ("headcount_tokens_total", "command", "input") not in now(metrics)
    account = {"input": 70, "output": 30, "cached": None, "cost_usd": 0.25}
    with opened.context.registry.write("account") as tx:
        tx.runs.set_account(RunKey(made.agent_id, 1), account, session_id=None)
    for _ in range(2):
        found = now(metrics)
        assert found["headcount_tokens_total", "command", "input"] == 70
        assert found["headcount_tokens_total", "command", "output"] == 30
        assert ("headcount_tokens_total", "command", "cached") not in found
        assert found["headcount_cost_usd_total", "command"] == 0.25


def test_what_stands_is_read_when_it_is_asked_for(
    opened: Headcount, metrics: Metrics, tmp_path: Path
) -> None:
    task = new_task(opened, tmp_path)
    agent = sleeper(opened, task).agent_id
    opened.send_message(agent, "hold on")
    opened.pause_task(task)
    opened.halt()
    found = now(metrics)
    assert found["headcount_messages_queued",] == found["headcount_messages_total", "sent"] == 1
    assert found["headcount_tasks_paused",] == found["headcount_halted",] == 1
    opened.release_halt()
    opened.resume_task(task)
    found = now(metrics)
    assert found["headcount_tasks_paused",] == found["headcount_halted",] == 0


def test_repairs_that_are_no_event_are_told_by_the_watch(metrics: Metrics) -> None:
    metrics.repaired(Problem("view_missing", "builder-1", "", "show_view"))
    metrics.repaired(Problem("ghost", "builder-1", "", "record_lost"))  # which the journal tells
    metrics.headcount_took(0.02)
    found = now(metrics)
    assert found["headcount_repairs_total", "view_missing"] == 1
    assert found["headcount_repairs_total", "ghost"] == 0
    assert found["headcount_tick_seconds_count",] == 1


# ---------------------------------------------------------------- over HTTP


def asked(home: Path, *, port: bool, token: str | None = None) -> tuple[int, str]:
    """Return status and body of a request for the figures."""
    head = f"Authorization: Bearer {token}\r\n" if token else ""
    request = f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{head}Connection: close\r\n\r\n"
    with socket.socket(socket.AF_INET if port else socket.AF_UNIX) as line:
        line.settimeout(daemons.PATIENCE)
        line.connect(
            ("127.0.0.1", daemons.facts(home)["port"]) if port else os.fspath(Home(home).daemon_socket)
        )
        line.sendall(request.encode())
        raw = b"".join(iter(lambda: line.recv(65_536), b""))
    first, _, body = raw.partition(b"\r\n\r\n")
    return int(first.split()[1]), body.decode()


def test_the_daemon_keeps_its_figures_and_tells_them_to_the_person_alone(home: Path, tmp_path: Path) -> None:
    with fleet(home) as opened, daemons.daemon(home, HEADCOUNT_HEADCOUNT_EVERY="0.2"):
        made = sleeper(opened, new_task(opened, tmp_path))
        assert made.runner_pid is not None
        environ = Path(f"/proc/{made.pid}/environ").read_bytes().decode().split("\0")
        (agents,) = [each.partition("=")[2] for each in environ if each.startswith("HEADCOUNT_TOKEN=")]
        assert asked(home, port=True)[0] == 401
        assert asked(home, port=True, token="mine")[0] == 401
        for port in (True, False):
            assert asked(home, port=port, token=agents)[0] == 403
        os.kill(made.runner_pid, signal.SIGKILL)

        def figures() -> Values:
            status, text = asked(home, port=True, token=daemons.token(home))
            assert status == 200
            return values(text)

        until(lambda: figures()["headcount_repairs_total", "ghost"] == 1, what="the ghost is counted")
        found = figures()
        assert found["headcount_admissions_total", "deploy"] == 1
        assert found["headcount_tick_seconds_count",] >= 1
        for kind in ("read", "write"):
            assert found["headcount_registry_transaction_seconds_count", kind] >= 1
        assert found["headcount_daemon_failures",] == 0
        assert found["process_resident_memory_bytes",] > 0
        assert asked(home, port=False)[0] == 200


# ---------------------------------------------------------------- what rests on them


def test_what_is_documented_is_what_is_told(metrics: Metrics) -> None:
    told = {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(metrics.exposition().decode())
        if family.name.startswith("headcount_")
    }
    assert told == {each.name.removesuffix("_total"): (each.kind.value, each.help) for each in FIGURES}
    page = runpy.run_path(str(REPOSITORY / "scripts" / "write_metrics_page.py"))
    assert page["page"]() == (REPOSITORY / "docs" / "metrics.md").read_text()


def expressions(found: Any) -> Iterator[str]:
    """Yield every `expr` in a parsed file."""
    if isinstance(found, dict):
        yield from (value for key, value in found.items() if key == "expr")
        found = list(found.values())
    if isinstance(found, list):
        for each in found:
            yield from expressions(each)


@pytest.mark.parametrize("file", ["grafana/headcount.json", "prometheus/alerts.yml"])
def test_every_figure_that_a_file_names_is_told(file: str, metrics: Metrics) -> None:
    text = (REPOSITORY / "contrib" / file).read_text()
    parsed = json.loads(text) if file.endswith("json") else yaml.safe_load(text)
    named = {
        name for each in expressions(parsed) for name in re.findall(r"\b(?:headcount|process)_\w+", each)
    }
    families = text_string_to_metric_families(metrics.exposition().decode())
    known = {name for family in families for name in names(family.name, family.type)}
    assert len(named) > 5
    assert named <= known, named - known


def names(family: str, kind: str) -> tuple[str, ...]:
    if kind == "histogram":
        return tuple(f"{family}_{end}" for end in ("bucket", "count", "sum"))
    return (f"{family}_total",) if kind == "counter" else (family,)


def test_every_rule_and_panel_is_whole() -> None:
    rules = yaml.safe_load((REPOSITORY / "contrib/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
        assert {"summary", "description"} == rule["annotations"].keys()
        assert rule["expr"].count("(") == rule["expr"].count(")")
    assert len({rule["alert"] for rule in rules}) == len(rules)
    board = json.loads((REPOSITORY / "contrib/grafana/headcount.json").read_text())
    assert all(each["targets"] and each["title"] for each in board["panels"])
    assert len({each["id"] for each in board["panels"]}) == len(board["panels"])
