"""What an agent asks is answered by a person or by those above it, whoever of ours is alive meanwhile."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount, InvalidInput, NotAllowed, NotFound, Refused
from headcount.domain.model import Caller
from headcount.services.answers import ApprovalFacts
from tests.support import daemons, fleets
from tests.support.commands import headcount
from tests.support.daemons import Bridge
from tests.support.drivers import ACP_AGENT, play
from tests.support.waiting import until

AGENT = [sys.executable, "-I", "-S", ACP_AGENT]
SHELL = {"shell": "echo ran > ran.txt; echo done"}


@pytest.fixture
def fleet(home: Path) -> Iterator[Headcount]:
    with fleets.fleet(home) as opened:
        yield opened


@pytest.fixture
def task(fleet: Headcount, tmp_path: Path) -> str:
    return fleet.create_task("Tidy the parser", project=tmp_path).task_id


def deploy(fleet: Headcount, task: str, *steps: dict[str, Any], **more: Any) -> str:
    options = {"permissions": "ask", **more}
    made = fleet.deploy(task, role="builder", harness="acp", prompt=play(*steps), command=AGENT, **options)
    return made.agent_id


def asked(fleet: Headcount) -> ApprovalFacts:
    until(lambda: fleet.list_approvals().approvals, what="an agent asks")
    (found,) = fleet.list_approvals().approvals
    return found


@pytest.mark.parametrize(("allow", "state"), [(True, "allowed"), (False, "denied")])
def test_a_person_allows_or_denies_what_an_agent_asks(
    allow: bool, state: str, fleet: Headcount, task: str, tmp_path: Path
) -> None:
    agent = deploy(fleet, task, SHELL, {"say": "All done."})
    found = asked(fleet)
    assert (found.id, found.agent_id, found.kind) == (f"{agent}.1.1", agent, "execute")
    assert json.loads(found.arguments) == {"command": SHELL["shell"]}
    answered = fleet.answer_approval(found.id, allow=allow, reason="because")
    assert answered.state == state
    facts = fleet.wait_for_agents([agent], timeout=30).agents[0]
    assert (facts.outcome, (facts.result or {})["text"]) == ("completed", "All done.")
    assert (tmp_path / "ran.txt").exists() == allow
    (event,) = [each for each in fleet.read_events(agent_id=agent).events if each.kind == f"approval_{state}"]
    assert (event.reason, event.data["by"], event.data["approval"]) == ("because", "person", found.id)
    assert fleet.list_approvals().approvals == ()
    with pytest.raises(Refused, match=state):
        fleet.answer_approval(found.id, allow=True)


def test_what_nobody_answers_is_denied_and_says_so(home: Path, task: str, tmp_path: Path) -> None:
    with fleets.fleet(home, ask_expiry=0.2) as fleet:
        agent = deploy(fleet, task, SHELL, {"say": "All done."})
        assert fleet.wait_for_agents([agent], timeout=30).agents[0].outcome == "completed"
        assert "nobody answered in time" in fleet.get_agent_output(agent, format="parsed").text
        assert not (tmp_path / "ran.txt").exists()
        with pytest.raises(Refused, match="expired"):
            fleet.answer_approval(f"{agent}.1.1", allow=True)


def test_only_those_above_an_agent_answer_it(fleet: Headcount, task: str) -> None:
    parent, stranger = (fleets.sleeper(fleet, task, role).agent_id for role in ("lead", "tester"))
    agent = deploy(fleet, task, SHELL, parent=parent)
    found = asked(fleet)
    for other in (agent, stranger):
        seen = fleet.acting_as(Caller(agent_id=other, run=1))
        assert seen.list_approvals().approvals == ()
        with pytest.raises(NotAllowed):
            seen.answer_approval(found.id, allow=True)
    above = fleet.acting_as(Caller(agent_id=parent, run=1))
    assert above.list_approvals(task_id=task).approvals == (found,)
    assert above.answer_approval(found.id, allow=True).state == "allowed"
    assert fleet.wait_for_agents([agent], timeout=30).done


@pytest.mark.parametrize("wrong", ["", "x", "a.b", "builder-01jx5e2k9pab12cd.1.x", "a.99999999999.1", 3])
def test_what_is_no_id_is_refused(wrong: Any, fleet: Headcount) -> None:
    with pytest.raises(InvalidInput):
        fleet.answer_approval(wrong, allow=True)


def test_what_nobody_asks_is_not_found(fleet: Headcount, task: str) -> None:
    with pytest.raises(NotFound):
        fleet.answer_approval("builder-01jx5e2k9pab12cd.1.1", allow=True)
    agent = deploy(fleet, task, {"say": "x"})
    assert fleet.wait_for_agents([agent], timeout=30).done
    with pytest.raises(NotFound):
        fleet.answer_approval(f"{agent}.1.1", allow=True)


def test_a_stopped_agent_asks_nothing_any_more(fleet: Headcount, task: str) -> None:
    agent = deploy(fleet, task, SHELL)
    found = asked(fleet)
    assert fleet.stop_agent(agent).outcome == "stopped"
    assert fleet.list_approvals().approvals == ()
    with pytest.raises(Refused):
        fleet.answer_approval(found.id, allow=True)


def test_the_command_lists_and_answers(fleet: Headcount, task: str) -> None:
    agent = deploy(fleet, task, SHELL, {"edit": "made.txt"}, {"say": "All done."})
    found = asked(fleet)
    listed = headcount("approvals")
    assert found.id in listed.out
    assert "echo ran" in listed.out
    assert headcount("approvals", "deny", found.id, "--reason", "no").out == f"{found.id} denied\n"
    assert fleet.wait_for_agents([agent], timeout=30).done
    assert headcount("approvals").out == "nobody asks for anything\n"
    assert headcount("approvals", "allow").code == 2


# ---------------------------------------------------------------- who of ours is alive


def test_a_new_daemon_picks_up_a_prompt_in_flight_whose_question_is_then_answered(
    home: Path, tmp_path: Path
) -> None:
    try:
        with Bridge(home, cwd=tmp_path) as door:
            task = door.call("create_task", description="Tidy", project=str(tmp_path))["task_id"]
            steps = ({"say": "I begin."}, SHELL, {"say": "All done."})
            deployed = door.call(
                "deploy_headless_agent",
                task_id=task,
                agent_type="builder",
                harness="acp",
                prompt=play(*steps),
                command=AGENT,
                options={"permissions": "ask"},
            )
            agent = deployed["agent_id"]
            until(lambda: door.call("list_approvals")["approvals"], what="it asks")
            daemons.kill(home)
            (found,) = door.call("list_approvals")["approvals"]  # of a daemon that has just been started
            assert door.call("get_agent", agent_id=agent)["state"] == "running"
            answered = door.call("answer_approval", approval_id=found["id"], allow=True)
            assert answered["state"] == "allowed"
            facts = door.call("wait_for_agents", agent_ids=[agent], timeout=30)["agents"][0]
            assert (facts["outcome"], facts["result"]["text"]) == ("completed", "All done.")
            assert (tmp_path / "ran.txt").read_text() == "ran\n"
            recent = door.call("get_agent_output", agent_id=agent, format="recent")["text"]
            assert "[END] finished" in recent
    finally:
        daemons.end(home)
