"""What a run used and did is known after its end, whoever is there to read it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount
from headcount.domain.model import Caller, RunKey
from headcount.services import account
from headcount.services.agents import READ_AT_ONCE
from tests.support import daemons
from tests.support.fleets import fleet, new_task
from tests.support.waiting import until

SESSION = {"type": "system", "subtype": "init", "session_id": "s-1", "model": "big-2"}
RESULT = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "result": "all done",
    "session_id": "s-1",
    "num_turns": 2,
    "usage": {"input_tokens": 10, "output_tokens": 4},
}


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


def says(tmp_path: Path, *lines: object, times: int = 1) -> dict[str, str]:
    """Return a PATH with a program `claude` that writes these lines, `times` over."""
    text = "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
    (tmp_path / "said").write_text(text)
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.stdin.read()\n"
        f"said = open({str(tmp_path / 'said')!r}, 'rb').read()\n"
        f"for _ in range({times}): sys.stdout.buffer.write(said)\n"
    )
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "ANTHROPIC_API_KEY": "none"}


def run(opened: Headcount, tmp_path: Path, env: dict[str, str], model: str | None = None) -> str:
    task = new_task(opened, tmp_path)
    acting = opened.acting_as(Caller(cwd=str(tmp_path), env=env))
    agent = acting.deploy(task, role="builder", prompt="go", model=model)
    assert opened.wait_for_agents([agent.agent_id], timeout=20).done
    return agent.agent_id


def test_an_agent_is_shown_with_what_it_used_and_did(opened: Headcount, tmp_path: Path) -> None:
    agent_id = run(opened, tmp_path, says(tmp_path, SESSION, "no json", RESULT))
    whole = opened.get_agent(agent_id)
    assert (whole.outcome, whole.ending, whole.session_id) == ("completed", "finished", "s-1")
    (only,) = whole.runs
    assert only.account is not None
    assert only.account["model"] == "big-2"
    assert (only.account["turns"], only.account["answer"], only.account["unknown"]) == (2, "all done", 1)
    assert (only.account["cost_usd"], only.account["lines"]) == (None, 3)


def test_the_users_prices_count_where_the_program_tells_no_cost(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    (home / "prices.toml").write_text('["big-*"]\ninput = 3.0\noutput = 15.0\n')
    agent_id = run(opened, tmp_path, says(tmp_path, SESSION, RESULT))
    whole = opened.get_agent(agent_id)
    made = whole.runs[0].account
    assert made is not None
    assert made["cost_from"] == "prices"
    used = opened.get_task_status(whole.task_id).used
    assert used.cost_usd == made["cost_usd"] == pytest.approx((10 * 3 + 4 * 15) / 1e6)
    assert (used.runs, used.unaccounted, used.output, used.cost_unknown) == (1, 0, 4, 0)


def test_the_price_of_a_model_that_is_not_named_is_that_of_the_one_asked_for(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    (home / "prices.toml").write_text('["big-*"]\ninput = 3.0\noutput = 15.0\n')
    unnamed = {name: value for name, value in SESSION.items() if name != "model"}
    account = (
        opened.get_agent(run(opened, tmp_path, says(tmp_path, unnamed, RESULT), "big-3")).runs[0].account
    )
    assert account is not None
    assert (account["model"], account["cost_from"]) == (None, "prices")
    assert account["cost_usd"] == pytest.approx((10 * 3.0 + 4 * 15.0) / 1_000_000)


def test_an_unknown_cost_is_counted_and_not_taken_for_0(opened: Headcount, tmp_path: Path) -> None:
    whole = opened.get_agent(run(opened, tmp_path, says(tmp_path, SESSION, RESULT)))
    used = opened.get_task_status(whole.task_id).used
    assert (used.cost_usd, used.cost_unknown) == (None, 1)


def test_an_account_waits_for_a_price_table_without_errors(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    (home / "prices.toml").write_text('["big-*"]\ninput = "much"\noutput = 1\n')
    agent_id = run(opened, tmp_path, says(tmp_path, SESSION, RESULT))
    assert opened.get_agent(agent_id).runs[0].account is None
    (check,) = [each for each in opened.doctor().checks if each.name == "prices"]
    assert check.ok is False
    assert "much" in check.detail
    (home / "prices.toml").write_text('["big-*"]\ninput = 1.0\noutput = 1.0\n')
    made = opened.get_agent(agent_id).runs[0].account
    assert made is not None
    assert made["cost_from"] == "prices"


def test_lines_that_are_not_whole_are_counted(opened: Headcount, tmp_path: Path) -> None:
    env = says(tmp_path, SESSION, RESULT)
    with open(tmp_path / "said", "ab") as file:
        file.write(b'{"type": "caf\xe9"}\n{"type": "torn')
    made = opened.get_agent(run(opened, tmp_path, env)).runs[0].account
    assert made is not None
    assert (made["lines"], made["invalid"], made["torn"], made["oversized"]) == (4, 1, 1, 0)
    assert made["answer"] == "all done"


def test_an_account_is_made_once(opened: Headcount, tmp_path: Path) -> None:
    agent_id = run(opened, tmp_path, says(tmp_path, SESSION, RESULT))
    first = account.make(opened.context, RunKey(agent_id, 1))
    with opened.context.registry.write("again") as tx:
        assert not tx.runs.set_account(RunKey(agent_id, 1), {"input": 7}, session_id="x")
    assert opened.get_agent(agent_id).runs[0].account == account.make(opened.context, RunKey(agent_id, 1))
    assert first is not None


def test_without_a_daemon_a_repair_makes_what_is_missing(opened: Headcount, tmp_path: Path) -> None:
    agent_id = run(opened, tmp_path, says(tmp_path, SESSION, RESULT))
    opened.validate_and_repair_registry(dry_run=False)
    with opened.context.registry.read() as tx:
        found = tx.runs.get(agent_id)
    assert found is not None
    assert found.account is not None


def test_the_daemon_makes_accounts_long_ones_and_those_of_before_its_time(
    home: Path, opened: Headcount, tmp_path: Path
) -> None:
    text = {"type": "assistant", "message": {"content": [{"type": "text", "text": "x" * 1000}]}}
    times = 2 * READ_AT_ONCE // 1000
    agent_id = run(opened, tmp_path, says(tmp_path, SESSION, text, RESULT, times=times))

    def accounts() -> list[Any]:
        with opened.context.registry.read() as tx:
            return [each.account for each in tx.runs.of_agent(agent_id)]

    assert accounts() == [None]
    with daemons.daemon(home):
        until(lambda: accounts() != [None], what="an account", patience=60)
    assert accounts()[0]["lines"] == 3 * times


def test_a_resumed_run_is_counted_apart_where_its_program_counts_the_whole_conversation(
    opened: Headcount, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "codex"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        """echo '{"type":"thread.started","thread_id":"c-1"}'\n"""
        """echo '{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"so"}}'\n"""
        'n=$HEADCOUNT_RUN\necho "{\\"type\\":\\"turn.completed\\",\\"usage\\":'
        '{\\"input_tokens\\":$((n*n*100)),\\"output_tokens\\":$((n*10))}}"\n'
    )
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "CODEX_API_KEY": "none"}
    acting = opened.acting_as(Caller(cwd=str(tmp_path), env=env))
    agent = acting.deploy(new_task(opened, tmp_path), role="builder", harness="codex", prompt="go")
    for n in (2, 3):
        assert opened.wait_for_agents([agent.agent_id], timeout=20).done
        assert acting.resume_agent(agent.agent_id, "more").run == n
    assert opened.wait_for_agents([agent.agent_id], timeout=20).done
    runs = opened.get_agent(agent.agent_id).runs
    assert [run.session_id for run in runs] == ["c-1"] * 3
    used = [run.account and (run.account["input"], run.account["output"]) for run in runs]
    assert used == [(100, 10), (300, 10), (500, 10)]
    total = opened.get_task_status(agent.task_id).used
    assert (total.input, total.output) == (900, 30)
