"""What a model or its server does to a real agent CLI is how its run ends, in the same words for all of them.

Here are the faults that the tests of each CLI do not have.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from headcount.domain.account import Ending
from headcount.domain.entries import EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Options
from tests.support import agent_clis, harness_runs
from tests.support.agent_clis import AgentClis, agent_cli, model_server
from tests.support.harness_runs import Done
from tests.support.model_server import ModelServer, Step

__all__ = ["agent_cli", "model_server"]  # fixtures
pytestmark = [pytest.mark.harnesses, pytest.mark.timeout(240)]

NOBODY: Final = "http://127.0.0.1:9"
FAULTS: Final[Mapping[str, tuple[Step, Ending]]] = {
    "400": ({"status": 400, "message": "it is wrong"}, Ending.API_ERROR),
    "429": ({"status": 429, "retry_after": 0, "message": "slow down"}, Ending.RATE_LIMITED),
    "500": ({"status": 500, "message": "it is us"}, Ending.API_ERROR),
    "cut": ({"text": "These words are never heard.", "cut": True}, Ending.API_ERROR),
    "refusal": ({"text": "I will not.", "stop": "refusal"}, Ending.REFUSED),
    "max_tokens": ({"text": "I would", "stop": "max_tokens"}, Ending.TOKEN_LIMIT),
}
WANTED: Final[Mapping[str, tuple[str, ...]]] = {
    "claude": ("400", "429", "500", "cut", "refusal", "max_tokens"),
    "gemini": ("429", "500", "cut"),
    "opencode": ("400",),
    "qwen": ("429", "500"),
    "copilot": ("429", "500", "cut"),
    "pi": ("400",),
}
SLOW: Final = (("opencode", "500"), ("opencode", "cut"))
"""Over a minute each, and no setting of it makes them shorter: for `make test-harnesses-all`."""
SILENT: Final = ("gemini", "qwen", "copilot")
"""They do not say that a model refused or that its answer was cut off: what it said is the answer."""
MODELS: Final = {"gemini": "gemini-2.5-pro"}


def faults() -> list[Any]:
    found = [
        pytest.param(cli, *FAULTS[fault], marks=each.marks, id=f"{cli}-{fault}")
        for each in agent_clis.every(*WANTED)
        for cli in map(str, each.values)
        for fault in WANTED[cli]
    ]
    slow = [
        pytest.param(cli, *FAULTS[fault], marks=pytest.mark.every_harness, id=f"{cli}-{fault}")
        for cli, fault in SLOW
    ]
    return found + slow


@pytest.mark.parametrize(("name", "fault", "ending"), faults())
def test_a_fault_is_how_it_ends(
    name: str, fault: Step, ending: Ending, agent_cli: AgentClis, model_server: ModelServer, tmp_path: Path
) -> None:
    done = harness_runs.run(
        agent_cli(name), tmp_path / "work", [fault], options=Options(model=MODELS.get(name))
    )
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, ending), told(done)


@pytest.mark.parametrize("name", agent_clis.every(*SILENT))
@pytest.mark.parametrize("stop", ["refusal", "max_tokens"])
def test_what_is_not_said_is_not_guessed(
    name: str, stop: str, agent_cli: AgentClis, model_server: ModelServer, tmp_path: Path
) -> None:
    said: Step = {"text": "These words.", "stop": stop}
    done = harness_runs.run(
        agent_cli(name), tmp_path / "work", [said], options=Options(model=MODELS.get(name))
    )
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.COMPLETED, None), told(done)
    assert "These words." in (done.account().answer or "")


def quick() -> list[Any]:
    """Return all but Codex, which has it in its own tests; OpenCode gives up after a minute and more."""
    late = pytest.param("opencode", marks=pytest.mark.every_harness)
    return [late if each.values == ("opencode",) else each for each in agent_clis.every(*WANTED)]


@pytest.mark.parametrize("name", quick())
def test_a_model_that_cannot_be_reached_ends_it(name: str, tmp_path: Path) -> None:
    cli = agent_clis.set_up(name, home=tmp_path / "home", url=NOBODY)
    done = harness_runs.run(cli, tmp_path / "work", [{"text": "x"}], options=Options(model=MODELS.get(name)))
    assert (done.verdict.outcome, done.verdict.ending) == (Outcome.FAILED, Ending.API_ERROR), told(done)


@pytest.mark.parametrize("name", agent_clis.every(*WANTED))
def test_a_model_that_asks_for_patience_gets_it(
    name: str, agent_cli: AgentClis, model_server: ModelServer, tmp_path: Path
) -> None:
    busy: Step = {"status": 429, "times": 1, "retry_after": 1, "text": "Better now."}
    done = harness_runs.run(
        agent_cli(name), tmp_path / "work", [busy], options=Options(model=MODELS.get(name))
    )
    assert done.verdict.outcome is Outcome.COMPLETED, told(done)
    assert done.account().answer == "Better now."


def told(done: Done) -> object:
    errors = [each.text for each in done.entries if each.kind in (EntryKind.ERROR, EntryKind.RATE_LIMITED)]
    return done.verdict, errors, done.stderr[-500:]
